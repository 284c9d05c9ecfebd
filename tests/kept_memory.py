"""Memory that stored records take: `python -m tests.kept_memory [URL] [N]`, memory:// and 100,000 by default.

Prints the growth of this process for each record of 94 bytes, after writes of each way and after a search.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import orjson

from isthmus import AsyncDatabase, field

BATCH = 1_000


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def record(number: int) -> dict[str, object]:
    """Return a record of 94 bytes."""
    return {"name": "x" * 59, "number": 100_000 + number, "k": "y"}


async def measure(url: str, count: int) -> dict[str, float]:
    """Return the bytes for each record, after each step."""
    assert len(orjson.dumps(record(0))) == 94
    results = {}
    for way in ("create_batch", "upsert_batch"):
        db = await AsyncDatabase.open(url)
        await db.create_batch([record(number) for number in range(10)])
        before = resident()
        for start in range(0, count, BATCH):
            data = [record(number) for number in range(start, start + BATCH)]
            if way == "create_batch":
                await db.create_batch(data)
            else:
                await db.upsert_batch([(f"{way}-{start + at}", item) for at, item in enumerate(data)])
        results[way] = (resident() - before) / count
        assert await db.count(field("name") == "z") == 0
        results[f"{way}, then a search"] = (resident() - before) / count
        await db.clear()
        await db.close()
    return results


def main() -> None:
    """Print a line for each step."""
    url = sys.argv[1] if len(sys.argv) > 1 else "memory://"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    for step, size in asyncio.run(measure(url, count)).items():
        print(f"{size:8.0f} bytes for each record after {step}")


if __name__ == "__main__":
    main()
