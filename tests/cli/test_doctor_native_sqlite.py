"""The doctor on a SQLite table that others made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.sqlite.shop import make_shop

pytestmark = pytest.mark.backend("sqlite")


def test_the_doctor_says_how_a_table_of_others_is_served(cli: Cli, tmp_path: Path) -> None:
    """Key, version, what is read-only, the index that would serve; it changes nothing."""
    path = tmp_path / "shop.db"
    make_shop(path)
    before = path.read_bytes()

    shown = " ".join(cli("doctor", f"sqlite:///{path}?layout=native&table=customer").out.split())
    assert "made by others; its key is id, the version of a row none" in shown
    assert "the owner's to decide" in shown
    assert 'CREATE INDEX … ON "customer" ("email" COLLATE BINARY)' in shown
    view = " ".join(cli("doctor", f"sqlite:///{path}?layout=native&table=spender&key=customer").out.split())
    assert "read-only, it is a view without a primary key; its key is customer" in view

    assert path.read_bytes() == before
