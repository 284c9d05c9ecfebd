"""Writes apply as if one after another, keep created_at, and lose no update."""

from __future__ import annotations

import asyncio

import pytest

from isthmus._core.executor import CountResult, Mutation, Page, PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus._record import Record
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    UnsupportedError,
)
from tests.elasticsearch.conftest import Build

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


async def one(backend: ElasticsearchBackend, id: str) -> Record:
    """Return a record that is there."""
    (record,) = await backend.read(backend.default_collection, [id])
    assert record is not None
    return record


async def write(backend: ElasticsearchBackend, kind: WriteKind, *changes: Mutation) -> list[object]:
    """Write changes of one kind to the default collection."""
    return list(await backend.write(backend.default_collection, kind, changes, atomic=False))


async def test_a_repeated_id_in_one_batch_is_written_in_order(backend: ElasticsearchBackend) -> None:
    """The results are those of one write after another."""
    created = await write(
        backend, WriteKind.CREATE, Mutation("a", {"n": 1}), Mutation("b", {}), Mutation("a", {"n": 2})
    )
    updated = await write(backend, WriteKind.UPDATE, *(Mutation("a", {f"k{at}": at}) for at in range(5)))
    deleted = await write(backend, WriteKind.DELETE, Mutation("b"), Mutation("b"), Mutation("a"))

    assert created[:2] == ["a", "b"]
    assert isinstance(created[2], AlreadyExistsError)
    assert created[2].record_id == "a"
    assert len(set(map(str, updated))) == 5
    assert deleted == [True, False, True]


async def test_an_update_merges_top_level_keys_and_keeps_created_at(backend: ElasticsearchBackend) -> None:
    """Objects are replaced, not merged; null is stored; metadata merges too."""
    await write(backend, WriteKind.CREATE, Mutation("a", {"n": 1, "o": {"x": 1}}, {"s": 1}))
    before = await one(backend, "a")

    (version,) = await write(backend, WriteKind.UPDATE, Mutation("a", {"n": None, "o": {"y": 2}}, {"t": 2}))

    after = await one(backend, "a")
    assert after.data == {"n": None, "o": {"y": 2}}
    assert after.metadata == {"s": 1, "t": 2}
    assert after.version == version != before.version
    assert after.created_at == before.created_at
    assert after.updated_at is not None
    assert before.updated_at is not None
    assert after.updated_at > before.updated_at


@pytest.mark.parametrize("kind", [WriteKind.CREATE, WriteKind.UPSERT])
async def test_a_record_passed_on_as_text_keeps_its_metadata(
    backend: ElasticsearchBackend, kind: WriteKind
) -> None:
    """A copy from a store that kept our text hands over bytes alone: data and metadata are None."""
    change = Mutation("a")
    change.raw, change.raw_metadata = b'{"n":1}', b'{"source":"elsewhere"}'

    await write(backend, kind, change)

    record = await one(backend, "a")
    assert (record.data, record.metadata) == ({"n": 1}, {"source": "elsewhere"})


async def test_replace_and_upsert_set_everything_but_created_at(backend: ElasticsearchBackend) -> None:
    """What was there before is gone, metadata included."""
    await write(backend, WriteKind.CREATE, Mutation("a", {"n": 1}, {"s": 1}))
    created = (await one(backend, "a")).created_at

    replaced = await write(backend, WriteKind.REPLACE, Mutation("a", {"m": 1}), Mutation("none", {"m": 1}))
    upserted = await write(backend, WriteKind.UPSERT, Mutation("a", {"u": 1}), Mutation("new", {"u": 2}))

    assert isinstance(replaced[0], str)
    assert isinstance(replaced[1], NotFoundError)
    assert all(isinstance(version, str) for version in upserted)
    record = await one(backend, "a")
    assert (record.data, record.metadata, record.created_at) == ({"u": 1}, {}, created)
    assert (await one(backend, "new")).data == {"u": 2}


@pytest.mark.parametrize("version", ["0.9", "999.1", "x", "", "1", "-1.1", "01.1", "1.0", "9" * 40 + ".1"])
async def test_a_stale_or_made_up_version_changes_nothing(
    backend: ElasticsearchBackend, version: str
) -> None:
    """Each kind that takes if_version answers as the contract says."""
    await write(backend, WriteKind.CREATE, Mutation("a", {"n": 1}))

    for kind in (WriteKind.REPLACE, WriteKind.UPDATE, WriteKind.UPSERT, WriteKind.DELETE):
        there, missing = await write(
            backend,
            kind,
            Mutation("a", {"n": 2}, if_version=version),
            Mutation("none", {}, if_version=version),
        )
        assert isinstance(there, ConflictError), kind
        expected = NotFoundError if kind in (WriteKind.REPLACE, WriteKind.UPDATE) else ConflictError
        assert isinstance(missing, expected), kind

    assert (await one(backend, "a")).data == {"n": 1}


async def test_the_version_read_is_the_version_that_a_write_takes(backend: ElasticsearchBackend) -> None:
    """Reads, searches and results name one token; deleting on it works once."""
    await write(backend, WriteKind.CREATE, Mutation("a", {"n": 1}))
    record = await one(backend, "a")
    page = await backend.fetch(backend.default_collection, PageRequest(TRUE, (), 10))
    assert page.records[0].version == record.version

    (version,) = await write(backend, WriteKind.REPLACE, Mutation("a", {"n": 2}, if_version=record.version))
    stale = await write(backend, WriteKind.DELETE, Mutation("a", if_version=record.version))
    deleted = await write(backend, WriteKind.DELETE, Mutation("a", if_version=str(version)))

    assert isinstance(stale[0], ConflictError)
    assert deleted == [True]


async def test_concurrent_updates_lose_none(build: Build) -> None:
    """Twenty writers on two handles each add a key of their own."""
    first = build()
    await first.open(first.default_collection)
    second = build(index=first.default_collection)
    await write(first, WriteKind.CREATE, Mutation("a", {}))

    results = await asyncio.gather(
        *(write((first, second)[at % 2], WriteKind.UPDATE, Mutation("a", {f"k{at}": at})) for at in range(20))
    )

    assert all(isinstance(result, str) for (result,) in results), results
    assert (await one(first, "a")).data == {f"k{at}": at for at in range(20)}


async def test_concurrent_creates_of_one_id_have_one_winner(backend: ElasticsearchBackend) -> None:
    """The store decides, not a look beforehand."""
    results = await asyncio.gather(
        *(write(backend, WriteKind.CREATE, Mutation("a", {"n": at})) for at in range(10))
    )

    assert sum(result == ["a"] for result in results) == 1
    assert sum(isinstance(result[0], AlreadyExistsError) for result in results) == 9


async def test_an_invalid_record_is_refused_and_the_others_are_written(backend: ElasticsearchBackend) -> None:
    """Elasticsearch has no atomic batch: each item has its own result."""
    results = await write(
        backend,
        WriteKind.CREATE,
        Mutation("a", {"n": float("nan")}),
        Mutation("b", {"n": 1}),
        Mutation("c", {1: 2}),
    )

    assert isinstance(results[0], InvalidRecordError)
    assert (results[0].record_id, results[0].path) == ("a", "data.n")
    assert results[1] == "b"
    assert isinstance(results[2], InvalidRecordError)


async def test_a_batch_of_many_chunks_keeps_its_order(build: Build) -> None:
    """Chunks are in flight side by side; results are those of the items."""
    backend = build(bulk={"size": 7})
    changes = [Mutation(f"r{at % 90}", {"n": at}) for at in range(100)]

    results = await write(backend, WriteKind.CREATE, *changes)

    assert [r if isinstance(r, str) else None for r in results] == [
        f"r{at}" if at < 90 else None for at in range(100)
    ]
    assert (await backend.count(backend.default_collection, TRUE)).count == 90


async def test_awkward_ids_are_taken_as_they_are(backend: ElasticsearchBackend) -> None:
    """Ids never become part of an address."""
    ids = [".", "..", "a/b", "a b", "%2F", '"', "\\", "\n", "_x", "😀", "é" * 256, "a,b", "?x=1", "#"]

    assert await write(backend, WriteKind.CREATE, *(Mutation(id, {"id": 1}) for id in ids)) == ids
    records = await backend.read(backend.default_collection, [*ids, "none", ids[0]])

    assert [r.id if r else None for r in records] == [*ids, None, ids[0]]
    page = await backend.fetch(backend.default_collection, PageRequest(TRUE, (), 100))
    assert [record.id for record in page.records] == sorted(ids)
    assert await write(backend, WriteKind.DELETE, *map(Mutation, ids)) == [True] * len(ids)


async def test_clearing_keeps_mapping_marker_and_versions(backend: ElasticsearchBackend) -> None:
    """Another process relies on the mapping, and an old version must not fit a new record."""
    index = backend.default_collection
    await write(
        backend, WriteKind.CREATE, *(Mutation(str(at), {"n": at, "long": "x" * 9_000}) for at in range(30))
    )
    old = (await one(backend, "1")).version

    assert await backend.remove(index, TRUE) == 30

    assert (await backend.count(index, TRUE)).count == 0
    await write(backend, WriteKind.CREATE, Mutation("1", {"n": 1}))
    assert isinstance(
        (await write(backend, WriteKind.DELETE, Mutation("1", if_version=old)))[0], ConflictError
    )
    mapping = await (await backend.native()).indices.get_mapping(index=index)
    assert mapping[index]["mappings"]["_meta"] == {"isthmus": {"format": 1}}
    assert "n" in mapping[index]["mappings"]["properties"]["data"]["properties"]


async def test_own_writes_are_seen_by_the_next_search_unless_told_otherwise(build: Build) -> None:
    """One refresh after a write and before a search; `eventual` has none until refresh()."""
    eager = build()
    lazy = build(consistency="eventual", refresh_interval="-1")
    for backend in (eager, lazy):
        await write(backend, WriteKind.CREATE, Mutation("a", {"n": 1}))

    assert (await eager.count(eager.default_collection, TRUE)).count == 1
    assert (await lazy.count(lazy.default_collection, TRUE)).count == 0
    await lazy.refresh(lazy.default_collection)
    assert (await lazy.count(lazy.default_collection, TRUE)).count == 1


async def test_what_elasticsearch_cannot_do_is_refused(backend: ElasticsearchBackend) -> None:
    """Nothing is imitated."""
    index = backend.default_collection

    with pytest.raises(UnsupportedError):
        await backend.write(index, WriteKind.CREATE, [Mutation("a", {})], atomic=True)
    with pytest.raises(UnsupportedError):
        await backend.read(index, ["a"], for_update=True)


async def test_an_index_deleted_under_us_is_empty_and_made_again(backend: ElasticsearchBackend) -> None:
    """Reads find and create nothing; the next write works on a proper index, not on an automatic one."""
    index = backend.default_collection
    await write(backend, WriteKind.CREATE, Mutation("a", {"n": 1}))
    await (await backend.native()).indices.delete(index=index)

    assert await backend.read(index, ["a"]) == [None]
    assert await backend.fetch(index, PageRequest(TRUE, (), 10)) == Page([], None)
    assert await backend.fetch(index, PageRequest(TRUE, None, 10)) == Page([], None)
    assert await backend.count(index, TRUE) == CountResult(0)
    assert await backend.remove(index, TRUE) == 0
    assert index not in await backend.collections()
    assert await write(backend, WriteKind.CREATE, Mutation("a", {"n": 1})) == ["a"]
    mapping = await (await backend.native()).indices.get_mapping(index=index)
    assert mapping[index]["mappings"]["_meta"] == {"isthmus": {"format": 1}}


@pytest.mark.parametrize("kind", [WriteKind.UPSERT, WriteKind.REPLACE, WriteKind.UPDATE, WriteKind.DELETE])
async def test_a_write_makes_an_index_that_another_handle_dropped(
    backend: ElasticsearchBackend, build: Build, kind: WriteKind
) -> None:
    """Without a read in between: the write itself finds that the index is gone, and makes a proper one."""
    index = backend.default_collection
    other = build(index=index)
    await write(other, WriteKind.CREATE, Mutation("a", {"n": 1}))
    await write(backend, WriteKind.UPDATE, Mutation("a", {"n": 2}))
    await other.drop(index)

    (result,) = await write(backend, kind, Mutation("a", {"n": 3}))

    match kind:
        case WriteKind.UPSERT:
            assert isinstance(result, str)
        case WriteKind.DELETE:
            assert result is False
        case _:
            assert isinstance(result, NotFoundError)
    assert await write(backend, WriteKind.CREATE, Mutation("b", {"n": 1})) == ["b"]
    mapping = await (await backend.native()).indices.get_mapping(index=index)
    assert mapping[index]["mappings"]["_meta"] == {"isthmus": {"format": 1}}
    found = {record.id for record in (await backend.fetch(index, PageRequest(TRUE, (), 10))).records}
    assert found == ({"a", "b"} if kind is WriteKind.UPSERT else {"b"})
