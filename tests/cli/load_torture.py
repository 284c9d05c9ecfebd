"""Loads a CSV file into all stores while it stops the loader: `make cli-torture`.

    python -m tests.cli.load_torture --rows 1000000 --kills 20

Each store is loaded twice: with ids from a column, where some are there before and some come twice in
the file, and without, where the journal makes them. The loader is stopped at random points: by SIGKILL
most times, by Ctrl-C and by a limit on the size of its files, which stands for a full disk. The reader of
the last run's report has closed its pipe. At the end the store has each row once, and the counts add up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from isthmus import AsyncDatabase, Record
from tests import servers
from tests.transfer.torture import resident, stores

KINDS = ("sqlite", "postgres", "elasticsearch", "s3", "s3-object")
_OBJECTS = 50_000
"""The most rows of the object layout: each is a request."""
_REPEATED = 50
"""The last rows of the file, which have the ids of rows before."""
_EXIT_CODES = {
    "kill": {-signal.SIGKILL},
    "interrupt": {130, -signal.SIGINT},  # the latter while the interpreter ends
    "disk": {4, 7, 8},
    "pipe": {141},
}


@dataclass
class Case:
    """The load of a file into one store."""

    name: str
    url: str
    file: Path
    journal: Path
    rows: int
    ids: bool
    """Whether ids come from a column."""
    existing: int = 0
    """The records that were there before."""
    stops: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    peak: float = 0.0
    """The largest resident size of any loader, in MiB."""
    problems: list[str] = field(default_factory=list)

    @property
    def command(self) -> list[str]:
        """The command of each run."""
        ids = ["--id", "code"] if self.ids else []
        options = ["--journal", str(self.journal), "--resume", "--json", *ids]
        return [sys.executable, "-m", "isthmus.cli", "load", self.url, str(self.file), *options]


def make_row(n: int, rows: int) -> dict[str, Any]:
    """Return a row of the file."""
    code = n if n < rows - _REPEATED else n - rows // 2
    return {"code": f"c{code}", "n": n, "name": f"Name of row {n}", "price": n + 0.25, "open": n % 3 > 0}


def write_file(path: Path, rows: int) -> None:
    """Write the rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(make_row(0, rows))
        for n in range(rows):
            row = make_row(n, rows)
            writer.writerow([*list(row.values())[:-1], "true" if row["open"] else "false"])


async def write_existing(case: Case) -> None:
    """Write records with some of the ids of the file, and another value."""
    old = [Record({"old": True}, id=f"c{n}") for n in range(0, min(case.rows // 2, 1_000), 3)]
    async with await AsyncDatabase.open(case.url) as db:
        await db.upsert_batch(old)
    case.existing = len(old)


def acknowledged(journal: Path) -> int:
    """Return how many rows a journal has acknowledged."""
    with contextlib.suppress(FileNotFoundError):
        for line in reversed(journal.read_bytes().rpartition(b"\n")[0].splitlines()[1:]):
            if "counts" in (entry := orjson.loads(line)):
                return int(entry["counts"]["read"])
    return 0


def run_loader(case: Case, how: str, due: int) -> tuple[int, bytes, bytes]:
    """Run a loader, stopped when it has acknowledged so many rows; return its code and its output."""
    due = max(due, acknowledged(case.journal) + 1)  # not while the interpreter starts
    reading, writing = os.pipe()
    if how == "pipe":
        os.close(reading)
    with subprocess.Popen(
        case.command,
        stdout=writing if how == "pipe" else subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Where no file may grow, a module's bytecode would be cut short too, and stay so for others.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    ) as loader:
        if how == "disk":  # no file of the loader grows beyond this
            size = case.journal.stat().st_size if case.journal.exists() else 0
            limit = size + 100 + due % 1_000
            resource.prlimit(loader.pid, resource.RLIMIT_FSIZE, (limit, limit))
        while loader.poll() is None:
            case.peak = max(case.peak, resident(loader.pid))
            if how in ("kill", "interrupt") and acknowledged(case.journal) >= due:
                time.sleep(due % 11 / 500)
                loader.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
                break
            time.sleep(0.005)
        out, err = loader.communicate()
    os.close(writing)
    if how != "pipe":
        os.close(reading)
    return loader.returncode, out or b"", err


def load(case: Case, kills: int, chance: random.Random) -> None:
    """Load the file, stopped so many times on the way, and check the counts at the end."""
    started = time.monotonic()
    for due in sorted(chance.randrange(1, max(2, case.rows * 9 // 10)) for _ in range(kills)):
        how = chance.choice(["kill", "kill", "kill", "interrupt", "disk"])
        code, _, err = run_loader(case, how, due)
        # A signal may come when the loader is done.
        case.stops[how if code else "late"] += 1
        if code and code not in _EXIT_CODES[how]:
            case.problems.append(f"{how}: exit code {code}: {err.decode()}")
    code, _, err = run_loader(case, "pipe", case.rows)
    case.stops["pipe"] += 1
    if code not in _EXIT_CODES["pipe"]:
        case.problems.append(f"pipe: exit code {code}: {err.decode()}")
    code, out, err = run_loader(case, "end", case.rows)
    case.seconds = time.monotonic() - started
    if code:
        case.problems.append(f"exit code {code} at the end: {err.decode()}")
        return
    counts = orjson.loads(out)
    replaced = case.existing + _REPEATED if case.ids else 0
    expected = {"read": case.rows, "created": case.rows - replaced, "replaced": replaced, "refused": 0}
    if {name: counts[name] for name in expected} != expected:
        case.problems.append(f"counts: {counts}, expected {expected}")


async def check_store(case: Case) -> None:
    """Compare each record with its row, and see that each row is there once."""
    seen = bytearray(case.rows)
    async with await AsyncDatabase.open(case.url) as db:
        async for record in db.stream():
            n = record.data.get("n", -1)
            row = make_row(n, case.rows)
            if record.data != row or (case.ids and record.id != row["code"]):
                case.problems.append(f"record {record.id}: {record.data}")
                return
            seen[n] += 1
    if case.ids:
        for n in range(case.rows - _REPEATED, case.rows):  # these replaced others
            seen[n - case.rows // 2] += 1
    missing, doubled = seen.count(0), case.rows - seen.count(0) - seen.count(1)
    if missing or doubled:
        case.problems.append(f"{missing} rows missing, {doubled} doubled")


def run_case(case: Case, kills: int, chance: random.Random) -> None:
    """Load a file into a store, and print how it went."""
    if case.ids:
        asyncio.run(write_existing(case))
    load(case, kills, chance)
    if not case.problems:
        asyncio.run(check_store(case))
    stops = ", ".join(f"{count} {how}" for how, count in sorted(case.stops.items()))
    print(
        f"{case.name:<22} {case.seconds:7.1f} s  {case.rows:>9,} rows, memory {case.peak:.0f} MiB;"
        f" stopped: {stops}: {'; '.join(case.problems) or 'equal, 0 doubled'}",
        flush=True,
    )


def torture(rows: int, kills: int, *, seed: int, kinds: Sequence[str] = KINDS) -> list[Case]:
    """Load a file into each store, with ids and without; return the cases, with their problems."""
    chance = random.Random(seed)
    cases = []
    with tempfile.TemporaryDirectory(prefix="isthmus-torture-") as folder:
        for kind in kinds:
            store, _, layout = kind.partition("-")
            count = min(rows, _OBJECTS) if layout == "object" else rows
            file = Path(folder, f"rows-{count}.csv")
            if not file.exists():
                write_file(file, count)
            for ids in (True, False):
                name = f"load_{uuid.uuid4().hex[:8]}"
                [url] = stores([store], Path(folder), layout or "log", name=name)
                label = f"{kind}, {'--id' if ids else 'own ids'}"
                case = Case(label, url, file, Path(folder, name), count, ids)
                run_case(case, kills, chance)
                cases.append(case)
                asyncio.run(clear(url))
    return cases


async def clear(url: str) -> None:
    """Empty a store; a million records are dropped at once where that can be done."""
    async with await AsyncDatabase.open(url) as db:
        if db.capabilities.drop:
            await db.drop_collection(db.collection_name)
        else:
            await db.clear()


def main() -> int:
    """Run it; the exit code is 1 if a store has other rows than the file."""
    # A background job ignores it, and so would its loaders.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--stores", default=",".join(KINDS))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    cases = torture(given.rows, given.kills, seed=given.seed, kinds=given.stores.split(","))
    return 1 if any(case.problems for case in cases) else 0


if __name__ == "__main__":
    session = servers.Session.current()
    begun = servers.Session.begin() if session is None else None
    try:
        code = main()
    finally:
        if begun is not None:
            begun.end()
    sys.exit(code)
