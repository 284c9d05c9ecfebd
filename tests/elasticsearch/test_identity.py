"""An index that is deleted, remade or swapped under an open handle: nothing is lost, and nothing is missed.

Every record that was acknowledged is found by its value, whatever types the index has now.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from elasticsearch import AsyncElasticsearch
from isthmus import field
from isthmus._core.executor import AggregateRequest, PageRequest, WriteKind
from isthmus._path import parse_path
from isthmus._query.ast import TRUE, Function, Measure
from isthmus._query.evaluate import matches
from isthmus.backends.elasticsearch import plugin
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.errors import AlreadyExistsError, Applied, ConfigError, NotFoundError
from tests.elasticsearch.by_value import find, write, write_patiently
from tests.elasticsearch.conftest import Build
from tests.servers.elasticsearch import ElasticsearchServer

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]

KINDS = [WriteKind.CREATE, WriteKind.UPSERT]


async def remake(native: AsyncElasticsearch, other: ElasticsearchBackend, **records: Any) -> None:
    """Delete an index and let another handle create it again, with these records."""
    await native.indices.delete(index=other.default_collection)
    assert await write(other, WriteKind.CREATE, **records) == list(records)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_index_that_was_deleted_is_created_by_the_next_write(build: Build, kind: WriteKind) -> None:
    """The server would create one with a mapping of its own, in which nothing is found as it is."""
    backend = build()
    await write(backend, WriteKind.CREATE, a={"v": 1})
    native = await backend.native()
    await native.indices.delete(index=backend.default_collection)

    (result,) = await write(backend, kind, b={"v": "x", "w": {"x": 1}})

    assert isinstance(result, str)
    mapping = await native.indices.get_mapping(index=backend.default_collection)
    assert mapping[backend.default_collection]["mappings"]["dynamic"] == "false"
    assert await find(backend, field("v") == "x") == {"b"}
    assert await find(backend, TRUE) == {"b"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_write_to_an_index_that_was_remade_is_found_by_its_value(
    build: Build, kind: WriteKind
) -> None:
    """`v` was a number when the handle opened the index, and is a text in the one that stands there now."""
    stale = build()
    await write(stale, WriteKind.CREATE, old={"v": 1})
    other = build(index=stale.default_collection)
    await remake(await stale.native(), other, text={"v": "x", "w": 1})

    results = await write(stale, kind, number={"v": 5, "w": "y"}, more={"v": "z", "w": 2})

    assert len(results) == 2
    assert all(isinstance(result, str) for result in results)
    fresh = build(index=stale.default_collection)
    for handle in (stale, other, fresh):
        await handle.refresh(handle.default_collection)
        assert await find(handle, field("v") == 5) == {"number"}
        assert await find(handle, field("v") >= "x") == {"text", "more"}
        assert await find(handle, field("w") == "y") == {"number"}
        assert await find(handle, field("w").exists()) == {"text", "number", "more"}


async def test_a_read_of_an_index_that_was_remade_finds_what_is_there_now(build: Build) -> None:
    """Each kind of read through a handle that knows other types, as the first one after the change."""
    stale = build()
    index = stale.default_collection
    for reading in range(5):
        await write(stale, WriteKind.UPSERT, a={"v": reading})
        other = build(index=index)
        await remake(await stale.native(), other, a={"v": "x"}, b={"v": "y"})
        await other.refresh(index)
        where = field("v") == "x"
        match reading:
            case 0:
                page = await stale.fetch(index, PageRequest(where, (), 10))
                assert [record.id for record in page.records] == ["a"]
            case 1:
                assert (await stale.count(index, where)).count == 1
            case 2:
                page = await stale.fetch(index, PageRequest(where, None, 10))
                assert [record.id for record in page.records] == ["a"]
            case 3:
                record, none = await stale.read(index, ["a", "c"])
                assert record is not None
                assert record.data == {"v": "x"}
                assert none is None
            case 4:
                measures = (Measure("most", Function.MAX, parse_path("v")),)
                result = await stale.aggregate(index, AggregateRequest(where, measures))
                assert [record for record in result.recheck if matches(where, record)] == []
                assert result.groups.rows([]) == [((), ["x"])]
        assert await find(stale, field("v") >= "x") == {"a", "b"}
        assert await stale.remove(index, TRUE) == 2


@pytest.mark.parametrize("kind", [WriteKind.REPLACE, WriteKind.UPDATE, WriteKind.DELETE])
async def test_a_change_of_a_record_in_an_index_that_was_remade(build: Build, kind: WriteKind) -> None:
    """It applies to the record that is there now; a missing one is missing."""
    stale = build()
    await write(stale, WriteKind.CREATE, a={"v": 1})
    other = build(index=stale.default_collection)
    await remake(await stale.native(), other, b={"v": "x"})

    there, gone = await write(stale, kind, b={"v": 7}, a={"v": 8})

    if kind is WriteKind.DELETE:
        assert (there, gone) == (True, False)
    else:
        assert isinstance(there, str)
        assert isinstance(gone, NotFoundError)
    expected: set[str] = set() if kind is WriteKind.DELETE else {"b"}
    assert await find(stale, field("v") == 7) == expected
    assert await find(stale, field("v") == "x") == set()


async def test_what_is_acknowledged_while_an_index_is_remade_again_and_again_is_found(build: Build) -> None:
    """Twenty writers on a handle, an index that is dropped five times and whose types change each time."""
    stale, other = build(), None
    index = stale.default_collection
    await stale.open(index)
    epoch, rounds, numbers = 0, 5, itertools.count()
    acknowledged: dict[str, Any] = {}

    async def run_writer(number: int) -> None:
        count = 0
        while epoch < rounds or count < 3:
            count = count + 1 if epoch == rounds else 0
            started, id = epoch, f"{number}-{next(numbers)}"
            value: Any = number if count % 2 else str(number)
            (result,) = await write_patiently(stale, WriteKind.CREATE, **{id: {"v": value}})
            assert result == id or isinstance(result, AlreadyExistsError)
            if started == rounds:
                acknowledged[id] = value

    writers = [asyncio.create_task(run_writer(number)) for number in range(20)]
    for number in range(rounds):
        await asyncio.sleep(0.1)
        other = build(index=index)
        await other.drop(index)
        await write_patiently(other, WriteKind.UPSERT, seed={"v": "x" if number % 2 else 1})
        epoch += 1
    await asyncio.gather(*writers)

    assert len(acknowledged) == 60
    fresh = build(index=index)
    for handle in (stale, fresh):
        await handle.refresh(index)
        for value in {str(value): value for value in acknowledged.values()}.values():
            found = {id for id in await find(handle, field("v") == value) if id in acknowledged}
            assert found == {id for id, written in acknowledged.items() if written == value}


async def test_a_batch_whose_index_goes_away_meanwhile_ends_in_the_new_one(build: Build) -> None:
    """What was acknowledged before is gone with the old index; the rest is in the new one, found by value."""
    backend = build(bulk={"size": 20})
    await write(backend, WriteKind.CREATE, seed={"v": "x"})
    other = build(index=backend.default_collection)
    await other.open(other.default_collection)
    records = {f"r{number:04}": {"v": number, f"k{number // 500}": "x"} for number in range(3_000)}

    before = backend.stats().acquired
    batch = asyncio.create_task(write(backend, WriteKind.CREATE, **records))
    while backend.stats().acquired < before + 10:
        await asyncio.sleep(0.001)
    await other.drop(other.default_collection)
    results = await batch

    assert results == list(records)
    there = await backend.read(backend.default_collection, list(records))
    stored = {str(record.id) for record in there if record is not None}
    assert "r2999" in stored
    assert "r0000" not in stored
    assert await find(backend, field("v") >= 0) == stored
    assert await find(backend, field("k5") == "x") == {id for id in stored if id >= "r2500"}


async def test_a_foreign_index_in_the_place_of_ours_is_refused_and_left_as_it_is(build: Build) -> None:
    """Another program has created it by writing to the name: reads and writes say so, nothing is applied."""
    backend = build()
    index = backend.default_collection
    await write(backend, WriteKind.CREATE, a={"v": 1})
    native = await backend.native()
    await native.indices.delete(index=index)
    await native.index(index=index, id="theirs", document={"v": "x"}, refresh=True)

    for kind in WriteKind:
        with pytest.raises(ConfigError, match="not made by isthmus") as caught:
            await write(backend, kind, b={"v": 2})
        assert caught.value.applied is Applied.NO
    with pytest.raises(ConfigError, match="not made by isthmus"):
        await backend.read(index, ["theirs"])
    with pytest.raises(ConfigError, match="not made by isthmus"):
        await backend.count(index, TRUE)
    await native.indices.refresh(index=index)
    assert (await native.count(index=index))["count"] == 1


async def test_an_index_of_version_0_1_0_gets_its_alias_and_keeps_its_format(build: Build) -> None:
    """It has no alias; the version that made it can still read and write it."""
    backend = build()
    index = backend.default_collection
    await write(backend, WriteKind.CREATE, a={"v": 1})
    native = await backend.native()
    await native.indices.delete_alias(index=index, name="*")

    openers = [build(index=index) for _ in range(5)]
    await asyncio.gather(*(opener.open(index) for opener in openers))

    aliases = (await native.indices.get_alias(index=index))[index]["aliases"]
    assert list(aliases.values()) == [{"is_hidden": True}]
    mapping = await native.indices.get_mapping(index=index)
    assert mapping[index]["mappings"]["_meta"] == {"isthmus": {"format": 1}}
    await openers[0].refresh(index)
    assert await find(openers[0], field("v") == 1) == {"a"}
    # The handle whose alias was taken away finds the index again, and its own writes in it.
    assert await write(backend, WriteKind.CREATE, b={"v": 2}) == ["b"]
    assert await find(backend, field("v") >= 1) == {"a", "b"}


async def test_an_index_with_a_long_name_has_an_alias_too(build: Build) -> None:
    """An alias has no more bytes than an index; the name's digest stands for it."""
    backend = build(index="é" * 127)

    assert await write(backend, WriteKind.CREATE, a={"v": 1}) == ["a"]

    assert await find(backend, field("v") == 1) == {"a"}


async def test_an_opening_takes_one_request_more_and_nothing_else_does(build: Build) -> None:
    """Requests of a handle, the connection's first one included."""
    first = build()
    index = first.default_collection

    async def cost(handle: ElasticsearchBackend, call: Any) -> int:
        before = first.stats().acquired  # the handles of a loop share their connections
        await call
        return handle.stats().acquired - before

    assert await cost(first, first.open(index)) == 1 + 4
    second = build(index=index)
    assert await cost(second, second.open(index)) == 2
    assert await cost(first, write(first, WriteKind.CREATE, a={"v": 1})) == 2  # and the mapping of `v`
    assert await cost(first, write(first, WriteKind.CREATE, b={"v": 2})) == 1
    assert await cost(first, first.refresh(index)) == 1
    assert await cost(first, first.read(index, ["a"])) == 1
    assert await cost(first, first.count(index, field("v") == 1)) == 1
    assert await cost(first, first.fetch(index, PageRequest(field("v") == 1, (), 5))) == 1


async def test_without_the_right_to_aliases_the_index_is_checked_before_each_call() -> None:
    """Rights to the name alone do not reach its hidden alias, neither to add nor to use it."""
    secret = "canary-41d7"
    with ElasticsearchServer(password=secret, api_keys=True) as node:
        settings: dict[str, Any] = {"hosts": [node.url], "index": "records", "replicas": 0}

        def build(**more: Any) -> ElasticsearchBackend:
            made = plugin.build(ElasticsearchConfig.load({**settings, **more}, environ={}))
            assert isinstance(made, ElasticsearchBackend)
            return made

        admin = build(user="elastic", password=secret)
        native = await admin.native()

        async def build_with(*privileges: str) -> ElasticsearchBackend:
            indices = [{"names": ["records"], "privileges": list(privileges)}]
            key = await native.security.create_api_key(name="k", role_descriptors={"k": {"indices": indices}})
            return build(api_key=key["encoded"])

        owner = await build_with("manage", "read", "write")
        reader = await build_with("read", "view_index_metadata", "maintenance")

        assert await write(owner, WriteKind.CREATE, a={"v": 1}) == ["a"]  # creates the index
        assert await find(owner, field("v") == 1) == {"a"}
        assert await find(reader, field("v") == 1) == {"a"}
        await remake(native, admin, b={"v": "x"})
        assert await write(owner, WriteKind.CREATE, c={"v": 5}, d={"v": "y"}) == ["c", "d"]
        await owner.refresh("records")
        for handle in (owner, reader, admin):
            assert await find(handle, field("v") == 5) == {"c"}
            assert await find(handle, field("v") >= "x") == {"b", "d"}
        await native.indices.delete(index="records")
        assert await find(reader, TRUE) == set()
        assert await write(owner, WriteKind.UPSERT, e={"v": True}) != []
        assert await find(owner, field("v").exists()) == {"e"}
        for handle in (owner, reader, admin):
            await handle.close()
