"""A copy from PostgreSQL to Elasticsearch against each side alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from benchmarks.data import document, name_of
from benchmarks.harness import Row, Timer, measure, own_name
from isthmus import AsyncDatabase, Record
from isthmus.transfer import copy

SIZE = 100_000


async def rows() -> AsyncIterator[Row]:
    """Run the copy; the slower side alone is the larger of reading all and writing all."""
    source = await AsyncDatabase.create(
        "postgres", {"url": os.environ["ISTHMUS_TEST_POSTGRES_URL"], "table": "copy_source"}
    )
    hosts = [os.environ["ISTHMUS_TEST_ELASTICSEARCH_URL"]]
    target = await AsyncDatabase.create("elasticsearch", {"hosts": hosts, "index": own_name("copy-target")})
    await source.clear()
    for start in range(0, SIZE, 10_000):
        made = [Record(document(n), id=name_of(n)) for n in range(start, start + 10_000)]
        await source.create_batch(made)

    async def ours() -> float:
        await target.clear()
        with Timer() as timer:
            await copy(source, target)
        return timer.seconds

    async def read() -> float:
        seen = 0
        with Timer() as timer:
            async for record in source.stream():
                seen += record.id is not None
        assert seen == SIZE
        return timer.seconds

    async def write() -> float:
        await target.clear()
        written = 0
        with Timer() as timer:
            for start in range(0, SIZE, 5_000):
                made = [Record(document(n), id=name_of(n)) for n in range(start, start + 5_000)]
                written += len(await target.upsert_batch(made))
        assert written == SIZE
        return timer.seconds

    async def slower() -> float:
        return max(await read(), await write())

    yield await measure(
        "copy postgres to elasticsearch, 100,000", {"ours": ours, "slower side": slower}, rounds=3
    )
    await source.close()
    await target.close()
