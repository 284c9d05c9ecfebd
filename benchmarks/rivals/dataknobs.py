"""Rounds of dataknobs-data: reads a job as JSON from each line, writes its seconds as JSON.

Runs in `.venv-rival` (Python 3.12, dataknobs-data 0.11.0); imports nothing of isthmus.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
import uuid
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.data import document  # noqa: E402
from benchmarks.suites.web_mix import drive  # noqa: E402

FILLED: dict[tuple[str, int], tuple[Any, list[str]]] = {}


def config(backend: str, name: str) -> dict[str, Any]:
    """Return the rival's config for a fresh table, index or prefix on our test server."""
    if backend == "postgres":
        url = urlsplit(os.environ["ISTHMUS_TEST_POSTGRES_URL"])
        return {
            "host": url.hostname,
            "port": url.port,
            "database": url.path[1:],
            "user": url.username,
            "password": url.password or "",
            "table": name,
        }
    if backend == "elasticsearch":
        return {"hosts": [os.environ["ISTHMUS_TEST_ELASTICSEARCH_URL"]], "index": name}
    url = urlsplit(os.environ["ISTHMUS_TEST_S3_URL"])
    options = {key: values[0] for key, values in parse_qs(url.query).items()}
    return {
        "bucket": url.netloc,
        "prefix": name,
        "endpoint_url": options["endpoint_url"],
        "region_name": options["region"],
        "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
    }


async def open_database(backend: str) -> Any:
    """Return a connected database on a fresh table."""
    from dataknobs_data import AsyncDatabase

    db = await AsyncDatabase.from_backend(backend, config(backend, "dkb_" + uuid.uuid4().hex[:10]))
    await db.exists("warm-up")
    return db


async def fill_database(backend: str, count: int) -> tuple[Any, list[str]]:
    """Return a database with records, made once."""
    if (backend, count) not in FILLED:
        db = await open_database(backend)
        ids: list[str] = []
        for start in range(0, count, 5_000):
            ids += await db.create_batch(records(min(5_000, count - start), start))
        FILLED[backend, count] = (db, ids)
    return FILLED[backend, count]


def records(count: int, start: int = 0) -> list[Any]:
    """Return records of the rival's own class."""
    from dataknobs_data import Record

    return [Record(document(n)) for n in range(start, start + count)]


async def create_batch(backend: str, n: int) -> float:
    """Time one create_batch."""
    db, made = await open_database(backend), records(n)
    start = time.perf_counter()
    ids = await db.create_batch(made)
    seconds = time.perf_counter() - start
    assert len(set(ids)) == n
    await db.close()
    return seconds


async def upsert_batch(backend: str, n: int) -> float:
    """Time one upsert_batch over records that exist."""
    db = await open_database(backend)
    made = records(n)
    ids = await db.create_batch(made)
    again = records(n)
    for record, key in zip(again, ids, strict=True):
        record.storage_id = key
    start = time.perf_counter()
    await db.upsert_batch(again)
    return time.perf_counter() - start


async def update_batch(backend: str, n: int) -> float:
    """Time update_batch, in parts: more than 5,000 at once are too many arguments for its statement."""
    db = await open_database(backend)
    ids = await db.create_batch(records(n))
    pairs = list(zip(ids, records(n), strict=True))
    start = time.perf_counter()
    for at in range(0, n, 5_000):
        await db.update_batch(pairs[at : at + 5_000])
    return time.perf_counter() - start


async def delete_batch(backend: str, n: int) -> float:
    """Time one delete_batch."""
    db = await open_database(backend)
    ids = await db.create_batch(records(n))
    start = time.perf_counter()
    await db.delete_batch(ids)
    return time.perf_counter() - start


async def get(backend: str, n: int, tasks: int = 1, stored: int = 1000) -> float:
    """Time n reads by some tasks."""
    db, ids = await fill_database(backend, stored)
    source = iter([ids[i % len(ids)] for i in range(n)])

    async def work() -> None:
        for key in source:
            assert await db.read(key) is not None

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return time.perf_counter() - start


async def create(backend: str, n: int, tasks: int) -> float:
    """Time n creates by some tasks."""
    db = await open_database(backend)
    source = iter(records(n))

    async def work() -> None:
        for record in source:
            await db.create(record)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return time.perf_counter() - start


async def search(backend: str, stored: int, everything: bool = False) -> float:
    """Time a search for a tenth of what is stored, or for all of it."""
    from dataknobs_data import Query

    db, _ = await fill_database(backend, stored)
    start = time.perf_counter()
    found = await db.search(Query() if everything else Query().filter("group", "=", 3))
    seconds = time.perf_counter() - start
    assert len(found) == (stored if everything else stored // 10)
    return seconds


async def stream(backend: str, stored: int) -> float:
    """Time reading all by stream_read."""
    from dataknobs_data import Query

    db, _ = await fill_database(backend, stored)
    seen = 0
    start = time.perf_counter()
    async for _ in db.stream_read(Query()):
        seen += 1
    seconds = time.perf_counter() - start
    assert seen == stored
    return seconds


async def top(backend: str, stored: int) -> float:
    """Time a filter with sort and limit 20."""
    from dataknobs_data import Query, SortOrder

    db, _ = await fill_database(backend, stored)
    query = Query().filter("score", ">=", stored * 0.4).sort_by("score", SortOrder.DESC).limit(20)
    start = time.perf_counter()
    found = await db.search(query)
    seconds = time.perf_counter() - start
    assert len(found) == 20
    return seconds


class Web:
    """The four calls of the web mix."""

    def __init__(self, db: Any, ids: list[str]) -> None:
        self.db = db
        self.ids = ids

    async def get(self, n: int) -> None:
        """Read one record."""
        assert await self.db.read(self.ids[n]) is not None

    async def search(self, n: int) -> None:
        """Find twenty of a hundred, in order."""
        from dataknobs_data import Query

        query = Query().filter("seq", ">=", n).filter("seq", "<=", n + 99).sort_by("seq").limit(20)
        assert await self.db.search(query)

    async def update(self, n: int) -> None:
        """Write a record again: the rival's update takes the whole."""
        await self.db.update(self.ids[n], records(1, n)[0])

    async def create(self, n: int) -> None:
        """Create a record."""
        await self.db.create(records(1, n)[0])


async def web(backend: str, n: int, tasks: int, stored: int) -> dict[str, Any]:
    """Time the web mix."""
    db, ids = await fill_database(backend, stored)
    seconds, latencies = await drive(Web(db, ids), n, tasks, stored)
    return {"seconds": seconds, "latencies": latencies}


async def batch(backend: str, n: int, chunk: int) -> float:
    """Time the batch job; sums are made here, for there is no aggregate."""
    from dataknobs_data import Query

    db, made = await open_database(backend), records(n)
    start = time.perf_counter()
    for at in range(0, n, chunk):
        await db.create_batch(made[at : at + chunk])
    totals: dict[str, float] = {}
    for record in await db.search(Query()):
        totals[record["city"]] = totals.get(record["city"], 0) + record["score"]
    found = await db.search(Query().filter("group", "=", 3))
    for record in found:
        record.set_value("score", record["score"] * 2)
    await db.update_batch([(record.storage_id, record) for record in found])
    await db.delete_batch([record.storage_id for record in await db.search(Query().filter("group", "=", 7))])
    seen = 0
    async for _ in db.stream_read(Query()):
        seen += 1
    seconds = time.perf_counter() - start
    assert seen == n - n // 10, seen
    assert len(totals) == 5
    return seconds


JOBS = {
    job.__name__: job
    for job in (create_batch, upsert_batch, update_batch, delete_batch, get, create, search, stream, top)
}
JOBS |= {"web": web, "batch": batch}


async def main() -> None:
    """Answer each line."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        job = JOBS[request.pop("job")]
        try:
            answer = await asyncio.wait_for(job(**request), 300)
            if not isinstance(answer, dict):
                answer = {"seconds": answer}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
