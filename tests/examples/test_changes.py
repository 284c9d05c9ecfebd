"""The demo of changes, as a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import server

ROOT = Path(__file__).parents[2]


@pytest.mark.backend("postgres")
def test_the_demo_of_changes_prints_what_sql_and_isthmus_do() -> None:
    """What is rolled back is not printed, and the index that it keeps equals the collection."""
    command = [sys.executable, "-m", "examples.changes", server("postgres").url]

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert ran.returncode == 0, ran.stderr
    for words in ("Old and late", "New and early", "renamed", "gone", "Back again", "collection: True"):
        assert words in ran.stdout
