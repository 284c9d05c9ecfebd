"""A record takes no more memory than its text and what Python needs to hold it (a slice of `kept_memory`)."""

from __future__ import annotations

import subprocess
import sys


def test_a_record_in_memory_takes_less_than_a_kilobyte() -> None:
    """Of 94 bytes, in the resident memory of a process of its own; orjson's spare room was four more."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kept_memory", "memory://", "20000"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )

    sizes = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(sizes) == 4
    assert max(sizes) < 1_000, done.stdout
