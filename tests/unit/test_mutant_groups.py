"""The groups of mutants name files that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.groups import GROUPS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_a_group_mutates_and_runs_what_is_there(name: str) -> None:
    """A file that was renamed would have no mutants, and a trial without its tests catches nothing."""
    group = GROUPS[name]

    missing = [file for file in group.files if not (ROOT / "src/isthmus" / file).is_file()]
    paths = [word for trial in group.trials for word in trial if word.startswith("tests/")]
    assert missing + [path for path in paths if not (ROOT / path).exists()] == []
    assert group.share > 0
