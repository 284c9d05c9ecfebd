"""The memory that a stream or a copy takes above its start, measured in a process of its own.

`python -m benchmarks.profile.memory stream '["sqlite", {…}]'`, or `copy` with a target as well. In a process
that built the records first, their freed memory would hide what the job takes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import Timer
from isthmus import AsyncDatabase
from isthmus.transfer import copy

Store = tuple[str, dict[str, Any]]


async def measure_memory(job: str, *stores: Store) -> dict[str, float]:
    """Run the job in a new process; return MB above its start (`mb`), `records` and `seconds`."""
    arguments = [json.dumps(store) for store in stores]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.profile.memory", job, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"measuring the memory of a {job} failed: see above")
    found: dict[str, float] = json.loads(output)
    return found


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    """Return the most bytes that this process held since the kernel's mark was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def _stream(db: AsyncDatabase) -> int:
    seen = 0
    async for record in db.stream():
        seen += record.id is not None
    return seen


async def main(job: str, stores: list[Store]) -> dict[str, float]:
    """Connect, reset the kernel's mark, run the job, and return its peak."""
    handles = [await AsyncDatabase.create(backend, config) for backend, config in stores]
    for db in handles:
        await db.get("absent")  # prepares the collection
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    start = _resident()
    with Timer() as timer:
        if job == "stream":
            records = await _stream(handles[0])
        else:
            records = (await copy(handles[0], handles[1])).written
    above = max(0, _peak() - start) / 1e6
    for db in handles:
        await db.close()
    return {"mb": above, "records": records, "seconds": timer.seconds}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], [tuple(json.loads(text)) for text in sys.argv[2:]]))))
