"""The torture of changes at a small size: `make changes-torture` is the whole of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.breadth import size

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "store",
    [
        "sqlite",
        pytest.param("s3", marks=pytest.mark.backend("s3")),
        pytest.param("postgres", marks=[pytest.mark.backend("postgres"), pytest.mark.breadth(2)]),
    ],
)
def test_no_change_is_skipped_whoever_writes_and_whatever_becomes_of_readers(store: str) -> None:
    """Sixteen writers; readers are killed, cancelled and begun in the middle."""
    options = ["--stores", store, "--changes", str(size(2_000 if store == "s3" else 5_000, 40_000))]
    command = [sys.executable, "-m", "tests.changes.torture", *options]

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(" 0 skipped") == 3
