"""The time that importing isthmus adds to `import asyncio`, and a core install's size: `make import-time`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

BUDGET_MS = 25.0
ROUNDS = 15
STATEMENT = "from isthmus import AsyncDatabase, Query, Record, field"
UNWANTED = (
    "pydantic", "importlib.metadata", "sqlite3", "asyncpg", "psycopg", "elasticsearch", "aiohttp",
    "aioboto3", "botocore", "obstore", "sqlalchemy", "typer", "rich", "zoneinfo", "urllib.parse",
)  # fmt: skip
MAX_DISTRIBUTIONS = 6
MAX_MEGABYTES = 15.0

PROBE = """
import time, sys
import asyncio
start = time.perf_counter()
{statement}
print((time.perf_counter() - start) * 1000)
print([m for m in {unwanted!r} if m in sys.modules])
"""


def probe(statement: str) -> tuple[float, list[str]]:
    """Return the milliseconds that a statement takes after `import asyncio` in a fresh interpreter."""
    code = PROBE.format(statement=statement, unwanted=UNWANTED)
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    milliseconds, loaded = out.strip().splitlines()
    return float(milliseconds), json.loads(loaded.replace("'", '"'))


def environment() -> dict[str, str]:
    """Return the environment for a Python that writes bytecode, as that of an installed package exists.

    A developer's shell may forbid it.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def core_install() -> tuple[list[str], float]:
    """Return the other distributions, and the megabytes, of a core install in a new environment.

    It installs the checkout that this interpreter's isthmus is in.
    """
    spec = importlib.util.find_spec("isthmus")
    assert spec is not None
    root = str(Path(spec.origin or "").resolve().parents[2])
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        site = next(Path(folder).glob("lib/python*/site-packages"))
        before = {path.name for path in site.iterdir()}
        install = [str(python), "-m", "pip", "install", "-q", "--no-compile", root]
        subprocess.run(install, check=True)
        new = [path for path in site.iterdir() if path.name not in before]
        names = [path.name.split("-")[0] for path in new if path.suffix == ".dist-info"]
        size = sum(
            f.stat().st_size
            for path in new
            for f in ([path] if path.is_file() else path.rglob("*"))
            if f.is_file()
        )
        return sorted(n for n in names if n != "isthmus"), size / 1e6


def main() -> int:
    """Print the figures; return 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="leave out the core install's size")
    arguments = parser.parse_args()
    probe(STATEMENT)  # writes bytecode
    rounds = [probe(STATEMENT) for _ in range(ROUNDS)]
    median = statistics.median(ms for ms, _ in rounds)
    loaded = rounds[0][1]
    print(
        f"{STATEMENT}\n  adds {median:.1f} ms to `import asyncio` (median of {ROUNDS}; at most {BUDGET_MS:g})"
    )
    print(f"  loaded though unwanted: {', '.join(loaded) or 'none'}")
    good = median <= BUDGET_MS and not loaded
    if not arguments.no_install:
        names, megabytes = core_install()
        print(f"core install: {len(names)} distributions ({', '.join(names)}), {megabytes:.1f} MB")
        print(f"  at most {MAX_DISTRIBUTIONS} distributions and {MAX_MEGABYTES:g} MB")
        good = good and len(names) <= MAX_DISTRIBUTIONS and megabytes <= MAX_MEGABYTES
    print("met" if good else "NOT met")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
