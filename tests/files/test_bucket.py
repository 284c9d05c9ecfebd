"""Files under a prefix of a bucket: ranges, entity tags, patterns, copies."""

from __future__ import annotations

import asyncio
import gzip
import io
import secrets
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, ConfigError, Query, UnavailableError, field, native
from isthmus.transfer import copy
from tests.breadth import size
from tests.files.folder import all_records
from tests.stores import store_of

pytestmark = [pytest.mark.backend("files"), pytest.mark.asyncio]


class Bucket:
    """A fresh prefix of the test server's bucket."""

    def __init__(self, config: Any, client: Any) -> None:
        self.client = client
        self.name = config.bucket
        self.prefix = f"files-{secrets.token_hex(6)}"
        self.settings: dict[str, Any] = {
            "s3": {"endpoint_url": config.endpoint_url, "region": config.region or "us-east-1"},
        }

    async def put(self, files: dict[str, bytes | str]) -> None:
        """Write objects under the prefix."""
        for name, content in files.items():
            body = content if isinstance(content, bytes) else content.encode()
            await self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{name}", Body=body)

    async def remove(self, name: str, slots: asyncio.Semaphore) -> None:
        """Delete an object, when there is a slot."""
        async with slots:
            await self.client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{name}")

    async def open(self, pattern: str = "", **settings: Any) -> AsyncDatabase:
        """Open a handle on files under the prefix."""
        location = f"s3://{self.name}/{self.prefix}/{pattern}"
        return await AsyncDatabase.create("files", {**self.settings, "location": location, **settings})


@pytest_asyncio.fixture
async def bucket() -> AsyncIterator[Bucket]:
    """Yield a prefix of the test server."""
    store = store_of("s3-object")
    db = await store.open()
    bucket = Bucket(db._config, await native.s3(db))
    try:
        yield bucket
    finally:
        listed = await bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.prefix)
        for one in listed.get("Contents", ()):
            await bucket.client.delete_object(Bucket=bucket.name, Key=one["Key"])
        await db.close()


async def test_a_prefix_is_a_collection(bucket: Bucket) -> None:
    """Of objects of all formats, in the order of their names."""
    file = io.BytesIO()
    pq.write_table(pa.table({"n": range(20_000), "t": ["x" * 50] * 20_000}), file, row_group_size=5_000)
    await bucket.put(
        {
            "a.csv": "n,t\n1,x\n2,y\n",
            "b/c.jsonl.gz": gzip.compress(b'{"n": 3}\n'),
            "b/d.parquet": file.getvalue(),
            "e.json": '[{"n": -1}]',
            "notes.txt": "",
            ".hidden.csv": "n\n1\n",
            "b/.hidden.csv": "n\n1\n",
        }
    )

    db = await bucket.open()
    try:
        assert await db.count() == 20_004
        assert await db.count(field("n") == 3) == 2
        assert [r.id for r in await db.search(Query().sort("n", "desc").limit(1))] == [
            "b/d.parquet#000000019999"
        ]
        assert (await db.require("e.json#000000000000")).data == {"n": -1}
        version = (await db.require("a.csv#000000000001")).version
        assert version is not None
        assert version.startswith('"')
    finally:
        await db.close()
    for pattern, names in (
        ("*.csv", ["a.csv"]),
        ("**/*.csv", ["a.csv"]),
        (".*.csv", [".hidden.csv"]),
        ("b/*.gz", ["c.jsonl.gz"]),
        ("a.csv", ["a.csv"]),
        ("no/", []),
    ):
        db = await bucket.open(pattern)
        found = await all_records(db)
        assert sorted({(record.id or "").rpartition("#")[0] for record in found}) == names
        await db.close()


async def test_large_objects_are_read_by_ranges(bucket: Bucket) -> None:
    """In order with one request ahead, from a place on, and cancelled."""
    lines = b"".join(b'{"n": %d, "t": "%s"}\n' % (n, b"x" * 90) for n in range(100_000))
    await bucket.put({"a.jsonl": lines})

    db = await bucket.open()
    try:
        assert await db.count(field("n") >= 99_990) == 10
        assert (await db.require("a.jsonl#000000099999"))["n"] == 99_999
        task = asyncio.ensure_future(db.count(field("t").contains("y")))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [r["n"] for r in (await db.page(field("n") > 50_000, size=2)).records] == [50_001, 50_002]
    finally:
        await db.close()


async def test_an_object_that_changes_is_an_error(bucket: Bucket) -> None:
    """By its entity tag, never a mix."""
    await bucket.put({"a.jsonl": b'{"n": 1, "t": "%s"}\n' % (b"x" * 1_000) * 14_000})

    db = await bucket.open()
    try:
        with pytest.raises(UnavailableError, match="changed while it was read"):
            async for record in db.stream():
                if record.id == "a.jsonl#000000000000":
                    await bucket.put({"a.jsonl": b'{"n": 2, "t": "%s"}\n' % (b"x" * 1_000) * 14_000})
        assert await db.count(field("_id") < "a.jsonl#000000000010") == 10
    finally:
        await db.close()


async def test_a_copy_resumes_and_has_equal_digests(
    bucket: Bucket, tmp_path: Any, memory: AsyncDatabase
) -> None:
    """Files to a store, by ranges of ids."""
    await bucket.put({"a.csv": "n\n" + "".join(f"{n}\n" for n in range(3_000)), "b.jsonl": '{"n": "x"}\n'})

    db = await bucket.open()
    target = await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "t.db")})
    try:
        journal = tmp_path / "journal"
        receipt = await copy(db, target, journal=journal, page_size=1_000)
        again = await copy(db, target, journal=journal, resume=True, page_size=1_000)
        assert receipt.written == 3_001
        assert again.digest == receipt.digest
        assert await target.search() == await db.search()
    finally:
        await target.close()
        await db.close()


async def test_a_url_of_a_bucket(bucket: Bucket) -> None:
    """Options that files do not have are the bucket's; credentials come from the environment."""
    await bucket.put({"a.csv": "x;y\n1;2\n"})
    options = "&".join(f"{key}={quote(value)}" for key, value in bucket.settings["s3"].items())

    db = await AsyncDatabase.open(f"files+s3://{bucket.name}/{bucket.prefix}/*.csv?delimiter=;&{options}")
    assert [record.data for record in await db.search()] == [{"x": 1, "y": 2}]
    await db.close()
    with pytest.raises(ConfigError, match="credentials belong in"):
        await AsyncDatabase.open(f"files+s3://key:secret@{bucket.name}/")


async def test_a_missing_object_is_an_error_and_a_prefix_without_objects_is_empty(bucket: Bucket) -> None:
    """A bucket has no folders, so only a name of a file is known to be missing."""
    with pytest.raises(ConfigError, match=r"there is no object .*people\.csv\.gz"):
        await bucket.open("people.csv.gz")
    for place in ("incoming", "incoming/", "*.csv"):
        db = await bucket.open(place)
        assert await db.count() == 0
        await db.close()


async def test_many_keys_are_listed_in_bounded_memory(bucket: Bucket) -> None:
    """A page at a time: of keys that the pattern leaves out nothing is kept."""
    count = size(1_100, 20_000)
    slots = asyncio.Semaphore(32)

    async def put(number: int) -> None:
        async with slots:
            await bucket.put({f"2026/{number:06}.json": b'{"n": %d}' % number})

    await asyncio.gather(*map(put, range(count)))
    for pattern, kept in (("", count), (f"**/{count - 1:06}.json", 1)):
        tracemalloc.start()
        try:
            db = await bucket.open(pattern)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        try:
            assert peak < 4_000_000 + 600 * kept
            assert (await db.explain()).details["files"] == kept
            if kept == 1:
                assert [record["n"] for record in await db.search()] == [count - 1]
        finally:
            await db.close()
    await asyncio.gather(*(bucket.remove(f"2026/{number:06}.json", slots) for number in range(count)))
