"""The demo, as a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from isthmus import AsyncDatabase

ROOT = Path(__file__).parents[2]


def run(url: str) -> subprocess.CompletedProcess[str]:
    """Run the demo at a store."""
    command = [sys.executable, "-W", "error", "-m", "examples.demo", url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.asyncio
async def test_the_demo_runs_on_a_store_of_its_own_and_harms_no_other(tmp_path: Path) -> None:
    """It begins by emptying the store: never one that holds anything else."""
    url = f"sqlite:///{tmp_path / 'cities.db'}"

    first = run(url)
    async with await AsyncDatabase.open(url) as db:
        counted = await db.count()
        mine = await db.create({"mine": True})
    second = run(url)

    assert first.returncode == 0, first.stderr
    assert "called 東京: Tokyo" in first.stdout
    assert "visited after the update: 2" in first.stdout
    assert counted == 34_006
    assert second.returncode == 1
    assert "1 other records" in second.stderr
    async with await AsyncDatabase.open(url) as db:
        assert await db.exists(mine)
