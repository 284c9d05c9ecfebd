"""The memory that a stream or a copy takes above its start, seen in a process of its own.

`python -m benchmarks.memory stream '["sqlite", {…}]'`, or `copy` with a target as well. A process that
built the records first would have their freed memory to hide in.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import Timer, resident
from isthmus import AsyncDatabase
from isthmus.transfer import copy

Store = tuple[str, dict[str, Any]]


async def taken(job: str, *stores: Store) -> dict[str, float]:
    """Return what a process of its own reports: MB above the start, records, seconds."""
    arguments = [json.dumps(store) for store in stores]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.memory", job, *arguments, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"measuring the memory of a {job} failed: see above")
    found: dict[str, float] = json.loads(said)
    return found


def _peak() -> int:
    """Return the most bytes that this process held since the kernel's mark was set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def _stream(db: AsyncDatabase) -> int:
    seen = 0
    async for record in db.stream():
        seen += record.id is not None
    return seen


async def main(job: str, stores: list[Store]) -> dict[str, float]:
    """Connect, mark the memory, run the job, and return what it took at most."""
    handles = [await AsyncDatabase.create(backend, config) for backend, config in stores]
    for db in handles:
        await db.get("nobody")  # the collection is made ready
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    start = resident()
    with Timer() as timer:
        records = await _stream(*handles) if job == "stream" else (await copy(*handles)).written
    above = max(0, _peak() - start) / 1e6
    for db in handles:
        await db.close()
    return {"mb": above, "records": records, "seconds": timer.seconds}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], [tuple(json.loads(text)) for text in sys.argv[2:]]))))
