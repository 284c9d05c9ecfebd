"""The batch loader, as a process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus import AsyncDatabase

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the loader."""
    command = [sys.executable, "-W", "error", "-m", "examples.load", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.asyncio
async def test_good_lines_are_written_and_bad_ones_are_named(tmp_path: Path) -> None:
    """An outcome for each line; a second run writes the same records and no more."""
    source, rejects = tmp_path / "in.jsonl", tmp_path / "bad.jsonl"
    good = [json.dumps({"key": f"k{n:05}", "n": n}) for n in range(5_000)]
    bad = ["{", "[1]", '{"n": 1}', '{"key": "big", "n": 123456789012345678901234}']
    source.write_text("\n".join([*good[:10], *bad, "", *good[10:]]) + "\n")
    url = f"sqlite:///{tmp_path / 'out.db'}"

    done = run(str(source), url, "--id", "key", "--rejects", str(rejects))
    again = run(str(source), url, "--id", "key", "--batch", "77")

    assert (done.returncode, again.returncode) == (1, 1), done.stderr
    assert "5,000 written, 4 rejected" in done.stderr
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [line["line"] for line in told] == [11, 12, 13, 14]
    assert "data.n" in told[3]["error"]
    async with await AsyncDatabase.open(url) as db:
        assert await db.count() == 5_000
        assert (await db.require("k04999"))["n"] == 4_999


def test_a_store_that_is_down_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    """No traceback."""
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")

    done = run(str(source), "postgres://localhost:1/app")

    assert done.returncode == 2
    assert done.stderr.startswith("ConnectError: ")
    assert "Traceback" not in done.stderr
