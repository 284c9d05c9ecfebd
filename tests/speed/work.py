"""Counts the work of a job: calls made by isthmus's own code, and bytes allocated at most.

`python -m tests.speed.work` prints the counts; `--keep` writes new bounds, a tenth above them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.data import document, name_of

import isthmus
from isthmus import AsyncDatabase, Query, Record, field
from isthmus._core.executor import mutation_for
from isthmus._query.evaluate import matches

BOUNDS = Path(__file__).with_name("bounds.json")
ROOM = 1.1
SLACK = 64  # bytes: what a job keeps once may fall on either size
GROWTH = 1.1
FEW, MANY = 200, 600
_OURS = f"{Path(isthmus.__file__).parent}/"

Job = Callable[[AsyncDatabase, int], Awaitable[None]]


def _made(count: int) -> list[Record]:
    return [Record(document(n), id=name_of(n)) for n in range(count)]


async def encode(db: AsyncDatabase, count: int) -> None:
    """Check and encode records as a write does."""
    for record in _RECORDS[:count]:
        mutation_for(record).encode()


async def judge(db: AsyncDatabase, count: int) -> None:
    """Evaluate records client-side, as for a condition that a store cannot."""
    assert sum(matches(_WHERE, record) for record in _RECORDS[:count]) == count // 10


async def create_batch(db: AsyncDatabase, count: int) -> None:
    """Create all in one batch."""
    assert len(await db.collection(f"batch{count}").create_batch(_RECORDS[:count])) == count


async def create(db: AsyncDatabase, count: int) -> None:
    """Create one after another."""
    some = db.collection(f"single{count}")
    for record in _RECORDS[:count]:
        await some.create(record)


async def get(db: AsyncDatabase, count: int) -> None:
    """Read one after another, each looked at."""
    for n in range(count):
        assert (await db.require(name_of(n)))["seq"] == n


async def search_and_decode(db: AsyncDatabase, count: int) -> None:
    """Find many and look at each."""
    found = await db.search(Query().filter("seq", "<", count))
    assert [record["seq"] for record in found] == list(range(count))


async def search(db: AsyncDatabase, count: int) -> None:
    """Find many and look at none: nothing is decoded."""
    assert len(await db.search(Query().filter("seq", "<", count))) == count


async def stream(db: AsyncDatabase, count: int) -> None:
    """Stream many and look at each."""
    seen = 0
    async for record in db.stream(field("seq") < count):
        seen += record["seq"] >= 0
    assert seen == count


JOBS: dict[str, Job] = {
    "encode": encode,
    "judge": judge,
    "create_batch": create_batch,
    "create": create,
    "get": get,
    "search": search,
    "search_and_decode": search_and_decode,
    "stream": stream,
}
_RECORDS = _made(MANY)
_WHERE = (field("group") == 3) & field("tags").exists() & ~field("city").like("%x%")
# These do not depend on the backend.
_PURE = ("encode", "judge")


class _Counter:
    """Counts calls that isthmus's code makes, on every thread that begins while it is on."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count a call into our code, and a call of C from it."""
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(_OURS):
            with self._lock:
                self.calls += 1


@contextmanager
def _counting() -> Iterator[_Counter]:
    counter, before = _Counter(), sys.getprofile()
    threading.setprofile(counter)
    sys.setprofile(counter)
    try:
        yield counter
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def counted(backend: str, job: str) -> dict[str, float]:
    """Return a job's calls for each record, how that changes with their number, and its bytes.

    The difference of two sizes is taken, so what a job does once is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = {"path": str(Path(folder) / "work.db")} if backend == "sqlite" else {}
        return asyncio.run(_counted(backend, config, JOBS[job]))


async def _counted(backend: str, config: dict[str, Any], job: Job) -> dict[str, float]:
    with _counting() as counter:  # before the backend starts its threads
        async with AsyncDatabase(backend, config) as db:
            await db.create_batch(_made(MANY))
            for size in (FEW, MANY):
                await _ready(db, size)
            calls = {}
            for size in (FEW, MANY):
                before = counter.calls
                await job(db, size)
                calls[size] = counter.calls - before
    async with AsyncDatabase(backend, config) as db:
        await db.clear()
        await db.create_batch(_made(MANY))
        for size in (FEW, MANY):
            await _ready(db, size)
        peaks = {size: await _peak(job, db, size) for size in (FEW, MANY)}
    each = (calls[MANY] - calls[FEW]) / (MANY - FEW)
    return {
        "calls": round(each, 2),
        "growth": round(calls[MANY] / MANY / (calls[FEW] / FEW), 3),
        "bytes": round((peaks[MANY] - peaks[FEW]) / (MANY - FEW)),
    }


async def _ready(db: AsyncDatabase, size: int) -> None:
    """Make the collections that creates go to, so that making them is not counted."""
    for name in (f"batch{size}", f"single{size}"):
        await db.collection(name).clear()


async def _peak(job: Job, db: AsyncDatabase, size: int) -> int:
    """Return the bytes of the leanest of three runs: others in the process may allocate meanwhile."""
    await job(db, size)  # caches are filled
    peaks = []
    for _ in range(3):
        await _ready(db, size)
        gc.collect()
        tracemalloc.start()
        try:
            await job(db, size)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


def cases() -> list[tuple[str, str]]:
    """Return each backend and job that has bounds; encoding needs no backend."""
    return [
        (backend, job)
        for backend in ("memory", "sqlite")
        for job in JOBS
        if backend == "memory" or job not in _PURE
    ]


def bounds() -> dict[str, dict[str, float]]:
    """Return the most that each job may take."""
    found: dict[str, dict[str, float]] = json.loads(BOUNDS.read_text())
    return found


def main() -> None:
    """Print the counts, and keep them as bounds if asked to."""
    found = {f"{backend} {job}": counted(backend, job) for backend, job in cases()}
    for name, counts in found.items():
        print(f"{name:<28} " + ", ".join(f"{value:,g} {what}" for what, value in counts.items()))
    if "--keep" in sys.argv:
        kept = {
            name: {
                "calls": round(counts["calls"] * ROOM, 1),
                "bytes": max(round(counts["bytes"] * ROOM), counts["bytes"] + SLACK, SLACK),
            }
            for name, counts in found.items()
        }
        BOUNDS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
