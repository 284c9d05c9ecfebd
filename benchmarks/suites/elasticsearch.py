"""Elasticsearch: ours, bulk bytes with 2 in flight on a strict or dynamic mapping, async_bulk, the rival."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from elastic_transport import OrjsonSerializer
from elasticsearch.helpers import async_bulk

from benchmarks.data import document, documents, name_of
from benchmarks.harness import Row, Side, Timer, comparing, measure, own_name
from benchmarks.rivals.client import Rival
from elasticsearch import AsyncElasticsearch
from isthmus import AsyncDatabase, Query, Record

OUR_INDEX, BARE_INDEX = own_name("bench"), own_name("bare")
SIZE = 10_000
CHUNK = 1_000
KEYWORD, NUMBER = {"type": "keyword"}, {"type": "double"}
STRICT = {
    "dynamic": "strict",
    "properties": {
        **dict.fromkeys(("name", "city", "email", "tags", "note"), KEYWORD),
        **dict.fromkeys(("seq", "group", "score"), NUMBER),
        "active": {"type": "boolean"},
        "meta": {"properties": {"level": NUMBER, "source": KEYWORD}},
    },
}
SETTINGS = {"number_of_shards": 1, "number_of_replicas": 0}


def url() -> str:
    """Return the test server's URL."""
    return os.environ["ISTHMUS_TEST_ELASTICSEARCH_URL"]


async def rows() -> AsyncIterator[Row]:
    """Run every Elasticsearch row."""
    rival = Rival()
    client = AsyncElasticsearch(
        url(), serializers={"application/json": OrjsonSerializer()}, request_timeout=60
    )
    try:
        await _warm(client)
        yield await _known(client)
        yield await _create_batch(client, rival)
        async with _open_new_index(client) as db:
            async for row in _reads(db, client, rival):
                yield row
            yield await _create(db, client, rival)
    finally:
        await client.options(ignore_status=404).indices.delete(index=[OUR_INDEX, BARE_INDEX])
        await client.close()
        await rival.close()


async def _reset(client: AsyncElasticsearch, mappings: dict[str, Any] | None = STRICT) -> None:
    await client.options(ignore_status=404).indices.delete(index=BARE_INDEX)
    await client.indices.create(index=BARE_INDEX, settings=SETTINGS, mappings=mappings)


def _bodies(data: list[dict[str, Any]]) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK):
        lines = []
        for n, d in enumerate(data[start : start + CHUNK], start):
            lines += [b'{"create":{"_id":"%s"}}' % name_of(n).encode(), orjson.dumps(d)]
        yield b"\n".join(lines) + b"\n"


async def _bulk(client: AsyncElasticsearch, data: list[dict[str, Any]]) -> None:
    bodies = _bodies(data)

    async def send() -> None:
        for body in bodies:
            answer = await client.bulk(index=BARE_INDEX, operations=body, filter_path="errors")
            assert not answer["errors"]

    await asyncio.gather(send(), send())
    await client.indices.refresh(index=BARE_INDEX)


async def _warm(client: AsyncElasticsearch) -> None:
    """Let the server's JIT compile the measured paths: they take twice as long in its first minute."""
    data = documents(SIZE)
    made = [Record(d, id=name_of(n)) for n, d in enumerate(data)]
    for _ in range(7 if comparing() else 15):  # two processes warm the same server
        async with _open_new_index(client) as db:
            await db.create_batch(made)
            await db.search(Query().filter("group", "=", 3))
        await _reset(client)
        await _bulk(client, data)
        await client.search(index=BARE_INDEX, query={"term": {"group": 3}}, size=SIZE // 10, sort=["name"])


@asynccontextmanager
async def _open_new_index(client: AsyncElasticsearch) -> AsyncIterator[AsyncDatabase]:
    """Open a handle on a new index whose mapping has the fields, as the bare driver's has."""
    await client.options(ignore_status=404).indices.delete(index=OUR_INDEX)
    db = await AsyncDatabase.create("elasticsearch", {"hosts": [url()], "index": OUR_INDEX})
    try:
        await db.create(Record(document(0), id="first"))
        await db.delete("first")
        await db.refresh()
        yield db
    finally:
        await db.close()


async def _known(client: AsyncElasticsearch) -> Row:
    made = [Record(data) for data in documents(1_000)]

    async def ours() -> float:
        async with _open_new_index(client) as db:
            with Timer() as timer:
                await db.create_batch(made)
                await db.refresh()
            return timer.seconds

    return await measure("es bulk 1,000, known as 2.65 s", {"ours": ours})


async def _create_batch(client: AsyncElasticsearch, rival: Rival) -> Row:
    data = documents(SIZE)
    made = [Record(d, id=name_of(n)) for n, d in enumerate(data)]

    async def ours() -> float:
        async with _open_new_index(client) as db:
            with Timer() as timer:
                await db.create_batch(made)
                await db.refresh()
            return timer.seconds

    def bare(mappings: dict[str, Any] | None) -> Side:
        async def side() -> float:
            await _reset(client, mappings)
            with Timer() as timer:
                await _bulk(client, data)
            return timer.seconds

        return side

    async def convenient() -> float:
        await _reset(client)
        actions = ({"_index": BARE_INDEX, "_id": name_of(n), "_source": d} for n, d in enumerate(data))
        with Timer() as timer:
            await async_bulk(client, actions)
            await client.indices.refresh(index=BARE_INDEX)
        return timer.seconds

    sides: dict[str, Side] = {"ours": ours, "bare": bare(STRICT), "dynamic mapping": bare(None)}
    sides |= {"async_bulk": convenient, "rival": rival.side("create_batch", backend="elasticsearch", n=SIZE)}
    return await measure("es create_batch 10,000", sides)


async def _reads(db: AsyncDatabase, client: AsyncElasticsearch, rival: Rival) -> AsyncIterator[Row]:
    await db.create_batch([Record(d, id=name_of(n)) for n, d in enumerate(documents(SIZE))])
    await db.refresh()
    await _reset(client)
    await _bulk(client, documents(SIZE))
    query = Query().filter("group", "=", 3)

    async def ours() -> float:
        with Timer() as timer:
            assert sum(1 for record in await db.search(query) if record.data) == SIZE // 10
        return timer.seconds

    async def bare() -> float:
        with Timer() as timer:
            term = {"term": {"group": 3}}
            answer = await client.search(index=BARE_INDEX, query=term, size=SIZE // 10, sort=["name"])
            assert len([(hit["_id"], hit["_source"]) for hit in answer["hits"]["hits"]]) == SIZE // 10
        return timer.seconds

    sides = {"ours": ours, "bare": bare, "rival": rival.side("search", backend="elasticsearch", stored=SIZE)}
    yield await measure("es search 1,000", sides)

    async def our_stream() -> float:
        seen = 0
        with Timer() as timer:
            async for record in db.stream(page_size=5_000):
                seen += len(record.data) > 0
        assert seen == SIZE
        return timer.seconds

    async def bare_stream() -> float:
        seen, after = 0, None
        with Timer() as timer:
            pit = (await client.open_point_in_time(index=BARE_INDEX, keep_alive="1m"))["id"]
            while True:
                extra = {} if after is None else {"search_after": after}
                held = {"id": pit, "keep_alive": "1m"}
                answer = await client.search(
                    pit=held, size=5_000, sort=["_shard_doc"], track_total_hits=False, **extra
                )
                hits = answer["hits"]["hits"]
                seen += sum(len(hit["_source"]) > 0 for hit in hits)
                if len(hits) < 5_000:
                    break
                after = hits[-1]["sort"]
            await client.close_point_in_time(id=pit)
        assert seen == SIZE
        return timer.seconds

    sides = {
        "ours": our_stream,
        "bare": bare_stream,
        "rival": rival.side("stream", backend="elasticsearch", stored=SIZE),
    }
    yield await measure("es stream 10,000", sides)


async def _create(db: AsyncDatabase, client: AsyncElasticsearch, rival: Rival) -> Row:
    fresh = itertools.count(10 * SIZE)
    count = 1_000
    single = AsyncElasticsearch(url(), connections_per_node=50)

    async def our_create() -> None:
        n = next(fresh)
        await db.create(Record(document(n), id=name_of(n)))

    async def bare_create() -> None:
        n = next(fresh)
        await single.index(index=BARE_INDEX, id=name_of(n), op_type="create", document=document(n))

    sides = {
        "ours": lambda: by_tasks(our_create, count, 50),
        "bare": lambda: by_tasks(bare_create, count, 50),
    }
    # The rival refreshes the index after each create: with more of them its client times out, and the
    # work that is left to the server slows the other sides.
    fifth = rival.side("create", backend="elasticsearch", n=count // 5, tasks=50)

    async def rivals() -> float:
        return 5 * await fifth()

    notes = {"rival": f"{count // 5} creates, times 5: with {count:,} its requests time out"}
    row = await measure("es create, 50 tasks", {**sides, "rival": rivals}, notes=notes)
    await single.close()
    return row


async def by_tasks(work: Callable[[], Awaitable[None]], count: int, tasks: int) -> float:
    """Return the seconds that `tasks` tasks take for `count` calls."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await work()

    with Timer() as timer:
        await asyncio.gather(*(worker() for _ in range(tasks)))
    return timer.seconds
