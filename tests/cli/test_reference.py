"""The reference page is up to date, and every help fits 80 columns and 24 lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isthmus.cli._app import GROUPS
from isthmus.cli._reference import collect_help, render_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
HELPS = collect_help()


def test_the_page_is_up_to_date() -> None:
    """`make docs-cli` generates it."""
    assert PAGE.read_text() == render_page()


@pytest.mark.parametrize("name", HELPS)
def test_a_help_fits_one_screen(name: str) -> None:
    """24 lines of 80 columns, the size of the smallest terminals; `load` has the settings of all formats."""
    lines = HELPS[name].splitlines()

    assert len(lines) <= (48 if name == "isthmus load" else 24)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line or line.rstrip().endswith("...") for line in lines if "  " in line.strip())


def test_every_command_takes_json_and_a_password() -> None:
    """The options that the page promises for every command."""
    commands = [name for group in GROUPS.values() for name in group]

    assert set(HELPS) == {"isthmus", *(f"isthmus {name}" for name in commands)}
    for name in commands:
        assert "--json" in HELPS[f"isthmus {name}"]
        assert "--password" in HELPS[f"isthmus {name}"]


def test_the_page_names_every_exit_code() -> None:
    """So does the help of `isthmus`, in short form."""
    codes = re.findall(r"^\| (\d+) \|", render_page(), re.MULTILINE)
    short = " ".join(HELPS["isthmus"].split())

    assert len(codes) == 12
    assert all(re.search(rf"\b{code} ", short) for code in codes)
