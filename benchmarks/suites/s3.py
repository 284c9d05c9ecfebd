"""S3: ours in both layouts, obstore alone, aioboto3 alone, and the rival; with requests and AWS prices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aioboto3
import obstore
import orjson
from obstore.store import S3Store

from benchmarks.data import document, documents, name_of
from benchmarks.harness import Measured, Row, Side, Timer, measure
from benchmarks.rivals.client import Rival
from isthmus import AsyncDatabase, Query, Record

PUT, GET = 5e-6, 4e-7  # dollars a request, us-east-1; a LIST costs as a PUT
IN_FLIGHT = 64


def location() -> tuple[str, dict[str, str]]:
    """Return the test server's bucket and its options."""
    url = urlsplit(os.environ["ISTHMUS_TEST_S3_URL"])
    return url.netloc, {key: values[0] for key, values in parse_qs(url.query).items()}


async def handle(layout: str, prefix: str) -> AsyncDatabase:
    """Return our handle on an empty prefix."""
    bucket, options = location()
    config = {"bucket": bucket, "prefix": prefix, "layout": layout, **options}
    return await AsyncDatabase.create("s3", config)


def store() -> S3Store:
    """Return obstore's own store."""
    bucket, options = location()
    return S3Store(
        bucket,
        endpoint=options["endpoint_url"],
        region=options["region"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


async def run_bounded(work: Callable[[Any], Awaitable[Any]], items: Iterable[Any]) -> None:
    """Run the work over the items, IN_FLIGHT at a time."""
    source = iter(items)

    async def worker() -> None:
        for item in source:
            await work(item)

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


async def rows() -> AsyncIterator[Row]:
    """Run every S3 row."""
    rival, bare = Rival(), store()
    try:
        yield await _known()
        row = await _create_object(bare, rival)
        yield row
        yield await _create_log(bare, row.sides["rival"])
        for size in (1_000, 10_000):
            yield await _search_object(bare, rival, size)
        async for row in _search_log(bare):
            yield row
        yield await _get(bare, rival)
    finally:
        await rival.close()


async def _known() -> Row:
    made = [Record(data) for data in documents(100)]
    db = await handle("object", f"k-{uuid.uuid4().hex[:8]}")

    async def ours() -> float:
        await db.clear()
        with Timer() as timer:
            await db.create_batch(made)
        return timer.seconds

    row = await measure("s3 batch of 100, known as 0.98 s", {"ours": ours})
    await db.close()
    return row


async def _create_object(bare: S3Store, rival: Rival) -> Row:
    data = documents(1_000)
    made = [Record(d, id=name_of(n)) for n, d in enumerate(data)]
    db = await handle("object", f"b-{uuid.uuid4().hex[:8]}")

    async def ours() -> float:
        await db.clear()
        with Timer() as timer:
            await db.create_batch(made)
        return timer.seconds

    async def by_obstore() -> float:
        prefix = uuid.uuid4().hex
        with Timer() as timer:
            await run_bounded(
                lambda n: obstore.put_async(
                    bare, f"{prefix}/{name_of(n)}.json", orjson.dumps(data[n]), mode="create"
                ),
                range(1_000),
            )
        return timer.seconds

    async def by_aioboto3() -> float:
        bucket, options = location()
        prefix = uuid.uuid4().hex
        session = aioboto3.Session(region_name=options["region"])
        async with session.client("s3", endpoint_url=options["endpoint_url"]) as client:
            with Timer() as timer:
                await run_bounded(
                    lambda n: client.put_object(
                        Bucket=bucket, Key=f"{prefix}/{n}", Body=orjson.dumps(data[n])
                    ),
                    range(1_000),
                )
        return timer.seconds

    sides: dict[str, Side] = {"ours": ours, "bare": by_obstore, "aioboto3": by_aioboto3}
    sides["rival"] = rival.side("create_batch", backend="s3", n=1_000)
    notes = {"requests and price at AWS": f"1,000 PUT, ${1_000 * PUT:.4f}"}
    row = await measure("s3 create_batch 1,000, object layout", sides, notes=notes)
    await db.close()
    return row


async def _create_log(bare: S3Store, rival: Measured) -> Row:
    data = documents(1_000)
    db = await handle("log", f"l-{uuid.uuid4().hex[:8]}")
    turn = itertools.count()

    async def ours() -> float:
        now = next(turn)
        made = [Record(d, id=f"{now}-{n}") for n, d in enumerate(data)]
        with Timer() as timer:
            await db.create_batch(made)
        return timer.seconds

    async def one_put() -> float:
        with Timer() as timer:
            body = b"\n".join(map(orjson.dumps, data))
            await obstore.put_async(bare, f"one/{uuid.uuid4().hex}", body, mode="create")
        return timer.seconds

    sides: dict[str, Side] = {"ours": ours, "bare": one_put}
    notes = {"requests and price at AWS": f"1 PUT, ${PUT:.6f}"}
    # The rival has one layout only: its rounds are those of the row above, 43 s each.
    row = await measure("s3 create_batch 1,000, log layout", sides, notes=notes, known={"rival": rival})
    await db.close()
    return row


async def _search_object(bare: S3Store, rival: Rival, size: int) -> Row:
    prefix = f"q-{uuid.uuid4().hex[:8]}"
    db = await handle("object", prefix)
    await db.create_batch([Record(d, id=name_of(n)) for n, d in enumerate(documents(size))])
    plain = f"plain-{uuid.uuid4().hex[:8]}"
    await run_bounded(
        lambda n: obstore.put_async(bare, f"{plain}/{name_of(n)}.json", orjson.dumps(document(n))),
        range(size),
    )
    query = Query().filter("group", "=", 3)

    async def ours() -> float:
        with Timer() as timer:
            assert len(await db.search(query)) == size // 10
        return timer.seconds

    async def by_obstore() -> float:
        found: list[Any] = []

        async def one(key: str) -> None:
            answer = await obstore.get_async(bare, key)
            value = orjson.loads(bytes(await answer.bytes_async()))
            if value["group"] == 3:
                found.append(value)

        with Timer() as timer:
            keys = []
            async for part in obstore.list(bare, prefix=f"{plain}/"):
                keys += [entry["path"] for entry in part]
            await run_bounded(one, keys)
        assert len(found) == size // 10
        return timer.seconds

    sides: dict[str, Side] = {"ours": ours, "bare": by_obstore}
    if size == 1_000:
        sides["rival"] = rival.side("search", backend="s3", stored=size)
    pages = -(-size // 1_000)
    notes = {"requests and price at AWS": f"{pages} LIST, {size:,} GET, ${pages * PUT + size * GET:.5f}"}
    row = await measure(f"s3 search {size:,}, object, cold", sides, notes=notes)
    await db.close()
    return row


async def _fill_log(bare: S3Store, prefix: str) -> None:
    """Store ten batches of a thousand records on both sides."""
    writer = await handle("log", prefix)
    data = documents(10_000)
    for start in range(0, 10_000, 1_000):
        await writer.create_batch([Record(d, id=name_of(d["seq"])) for d in data[start : start + 1_000]])
        body = b"\n".join(map(orjson.dumps, data[start : start + 1_000]))
        await obstore.put_async(bare, f"plain-{prefix}/{start:05d}", body)
    await writer.close()


async def _search_log(bare: S3Store) -> AsyncIterator[Row]:
    prefix = f"w-{uuid.uuid4().hex[:8]}"
    await _fill_log(bare, prefix)
    query = Query().filter("group", "=", 3)
    held: list[dict[str, Any]] = []

    async def cold() -> float:
        db = await handle("log", prefix)
        with Timer() as timer:
            assert len(await db.search(query)) == 1_000
        await db.close()
        return timer.seconds

    async def bare_cold() -> float:
        found = []
        held.clear()
        cold = store()  # with connections to open, as a handle has that was just made
        with Timer() as timer:
            keys = [
                entry["path"]
                async for part in obstore.list(cold, prefix=f"plain-{prefix}/")
                for entry in part
            ]
            answers = await asyncio.gather(*(obstore.get_async(cold, key) for key in keys))
            for answer in answers:
                held.extend(map(orjson.loads, bytes(await answer.bytes_async()).split(b"\n")))
            found = [value for value in held if value["group"] == 3]
        assert len(found) == 1_000
        return timer.seconds

    notes = {"requests and price at AWS": f"1 LIST, 10 GET, ${PUT + 10 * GET:.6f}"}
    yield await measure("s3 search 10,000, log, cold", {"ours": cold, "bare": bare_cold}, notes=notes)

    reader = await handle("log", prefix)
    await reader.search(query)

    async def warm() -> float:
        with Timer() as timer:
            assert len(await reader.search(query)) == 1_000
        return timer.seconds

    async def bare_warm() -> float:
        with Timer() as timer:
            with contextlib.suppress(FileNotFoundError):  # the tail probe
                await obstore.get_async(bare, f"plain-{prefix}/99999")
            found = [value for value in held if value["group"] == 3]
        assert len(found) == 1_000
        return timer.seconds

    notes = {"requests and price at AWS": f"1 GET, ${GET:.7f}"}
    yield await measure("s3 search 10,000, log, warm", {"ours": warm, "bare": bare_warm}, notes=notes)
    await reader.close()


async def _get(bare: S3Store, rival: Rival) -> Row:
    prefix = f"g-{uuid.uuid4().hex[:8]}"
    db = await handle("object", prefix)
    count = 200
    await db.create_batch([Record(d, id=name_of(n)) for n, d in enumerate(documents(count))])
    for n in range(count):
        await obstore.put_async(bare, f"plain-{prefix}/{name_of(n)}", orjson.dumps(document(n)))

    async def ours() -> float:
        with Timer() as timer:
            for n in range(count):
                assert (await db.require(name_of(n)))["seq"] == n
        return timer.seconds

    async def by_obstore() -> float:
        with Timer() as timer:
            for n in range(count):
                answer = await obstore.get_async(bare, f"plain-{prefix}/{name_of(n)}")
                assert orjson.loads(bytes(await answer.bytes_async()))["seq"] == n
        return timer.seconds

    rivals = rival.side("get", backend="s3", n=count, stored=count)
    notes = {"requests and price at AWS": f"1 GET, ${GET:.7f} each"}
    row = await measure("s3 get, one task", {"ours": ours, "bare": by_obstore, "rival": rivals}, notes=notes)
    await db.close()
    return row
