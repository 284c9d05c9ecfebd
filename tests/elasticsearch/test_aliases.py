"""A name that is an alias of the user's, and indices that cannot be opened."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, field
from isthmus._core.executor import PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.errors import Applied, ConfigError, UnavailableError
from tests.elasticsearch.by_value import find, write
from tests.elasticsearch.conftest import Build

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


async def make_aliased(build: Build, *, filtered: bool = False) -> tuple[str, list[ElasticsearchBackend]]:
    """Return an alias of the first of two indices, in which `v` is a number and a text."""
    first, second = build(), build()
    await write(first, WriteKind.CREATE, n1={"v": 1})
    await write(second, WriteKind.CREATE, t1={"v": "1"})
    for backend in (first, second):
        await backend.refresh(backend.default_collection)
    alias = first.default_collection + "-alias"
    body = {"filter": {"exists": {"field": "data.v"}}} if filtered else {}
    native = await first.native()
    await native.indices.put_alias(index=first.default_collection, name=alias, **body)
    return alias, [first, second]


async def swap(alias: str, old: ElasticsearchBackend, new: ElasticsearchBackend) -> None:
    """Move an alias from one index to another, in one step."""
    actions: list[dict[str, Any]] = [
        {"remove": {"index": old.default_collection, "alias": alias}},
        {"add": {"index": new.default_collection, "alias": alias}},
    ]
    await (await old.native()).indices.update_aliases(actions=actions)


async def test_a_name_that_became_an_alias_is_followed(build: Build) -> None:
    """The usual way to reindex: the index is replaced by an alias of its successor."""
    backend, successor = build(), build()
    await write(backend, WriteKind.CREATE, a={"v": 1})
    await write(successor, WriteKind.CREATE, a={"v": "1"})
    native = await backend.native()
    index, target = backend.default_collection, successor.default_collection
    actions: list[dict[str, Any]] = [
        {"remove_index": {"index": index}},
        {"add": {"index": target, "alias": index}},
    ]
    await native.indices.update_aliases(actions=actions)

    assert await write(backend, WriteKind.CREATE, b={"v": 2}) == ["b"]

    assert await find(backend, field("v") == "1") == {"a"}
    assert await find(successor, field("v") == 2) == {"b"}


async def test_a_swapped_alias_is_followed_by_reads_and_writes(build: Build) -> None:
    """Also by a search that finds nothing, which names no index; what is acknowledged is in the new index."""
    alias, (numbers, texts) = await make_aliased(build)
    handle = build(index=alias)
    assert await find(handle, field("v") == 1) == {"n1"}

    await swap(alias, numbers, texts)

    assert await find(handle, field("v") == "1") == {"t1"}
    assert await find(handle, field("v") == 1) == set()
    await swap(alias, texts, numbers)
    assert await write(handle, WriteKind.CREATE, n2={"v": 2}, n3={"v": "x"}) == ["n2", "n3"]
    await swap(alias, numbers, texts)
    assert await write(handle, WriteKind.CREATE, t2={"v": 2}, t3={"v": "x"}) == ["t2", "t3"]
    assert await find(handle, field("v") == 2) == {"t2"}
    assert await handle.read(alias, ["n1"]) == [None]
    await numbers.refresh(numbers.default_collection)
    assert await find(numbers, field("v") == 2) == {"n2"}
    assert await find(numbers, field("v") == "x") == {"n3"}
    assert await find(texts, field("v") == "x") == {"t3"}


async def test_a_stream_stays_with_the_index_in_which_it_began(build: Build) -> None:
    """An alias that is swapped in between does not mix two indices, nor read one with the other's types."""
    alias, (numbers, texts) = await make_aliased(build)
    records = {f"r{number}": {"v": number} for number in range(20)}
    await write(numbers, WriteKind.UPSERT, **records)
    await numbers.refresh(numbers.default_collection)
    handle = build(index=alias)
    where = field("v") >= 0

    page = await handle.fetch(alias, PageRequest(where, None, 7))
    await swap(alias, numbers, texts)
    assert await find(handle, field("v") == "1") == {"t1"}
    found = [record.id for record in page.records]
    while page.after is not None:
        page = await handle.fetch(alias, PageRequest(where, None, 7, page.after))
        found += [record.id for record in page.records]

    assert sorted(map(str, found)) == sorted([*records, "n1"])


async def test_an_alias_that_is_widened_or_filtered_is_one_clear_error(build: Build) -> None:
    """At opening and under an open handle: a read by id would find what a search does not."""
    alias, (numbers, texts) = await make_aliased(build)
    handle = build(index=alias)
    await handle.open(alias)
    native = await handle.native()

    async def expect(message: str) -> None:
        for refused in (handle, build(index=alias), build(index=alias, layout="native")):
            with pytest.raises(ConfigError, match=message):
                await refused.open(alias)
        with pytest.raises(ConfigError, match=message):
            await handle.read(alias, ["n1"])
        with pytest.raises(ConfigError, match=message):
            await handle.count(alias, TRUE)
        for kind in WriteKind:
            with pytest.raises(ConfigError, match=message) as caught:
                await write(handle, kind, new={"v": 1})
            assert caught.value.applied is Applied.NO

    await native.indices.put_alias(index=texts.default_collection, name=alias)
    await expect("alias of 2 indices")
    await native.indices.delete_alias(index=texts.default_collection, name=alias)
    assert await find(handle, TRUE) == {"n1"}
    body = {"filter": {"exists": {"field": "data.v"}}}
    await native.indices.put_alias(index=numbers.default_collection, name=alias, **body)
    await expect("alias of a part")
    filtered, _ = await make_aliased(build, filtered=True)
    alias, handle = filtered, build(index=filtered)
    await expect("alias of a part")


_NOT_KEPT = "does not keep its documents"


@pytest.mark.parametrize(
    ("template", "settings", "message"),
    [
        ({"mappings": {"_source": {"enabled": False}}}, {}, _NOT_KEPT),
        ({"mappings": {"_source": {"excludes": ["data.secret"]}}}, {}, "in part only"),
        ({"mappings": {"_source": {"includes": ["data.*"]}}}, {}, "in part only"),
        ({"settings": {"index.mapping.source.mode": "synthetic"}}, {}, _NOT_KEPT),
        ({"settings": {"index.mapping.source.mode": "disabled"}}, {}, _NOT_KEPT),
        ({"settings": {"index.mode": "logsdb"}}, {}, _NOT_KEPT),
        (None, {"index.mapping.source.mode": "synthetic"}, _NOT_KEPT),
        (None, {"index.mode": "logsdb"}, _NOT_KEPT),
    ],
)
async def test_an_index_that_does_not_keep_its_documents_is_refused(
    build: Build, template: dict[str, Any] | None, settings: dict[str, Any], message: str
) -> None:
    """By a template or by `settings`: records would come back cut, in another order, or not at all."""
    backend = build(settings=settings)
    native = await backend.native()
    index = backend.default_collection
    if template is not None:
        await native.indices.put_index_template(
            name=index, index_patterns=[index], template=template, priority=500
        )
    try:
        with pytest.raises(ConfigError, match=message):
            await backend.open(index)
        with pytest.raises(ConfigError, match=message):
            await write(backend, WriteKind.CREATE, a={"v": 1})
    finally:
        if template is not None:
            await native.indices.delete_index_template(name=index)


async def test_an_index_of_others_that_was_remade_is_read_with_its_own_types(build: Build, url: str) -> None:
    """Layout native makes no alias: the index is looked up after each read.

    A query that was planned for the types before is refused, as one that may be repeated.
    """
    made = build()
    native, index = await made.native(), made.default_collection
    await native.indices.create(index=index, mappings={"properties": {"v": {"type": "long"}}})
    settings = {"hosts": [url], "index": index, "layout": "native"}
    async with await AsyncDatabase.create("elasticsearch", settings) as db:
        for round in range(4):
            await native.indices.delete(index=index)
            properties = {"v": {"type": "keyword" if round % 2 else "long"}}
            await native.indices.create(index=index, mappings={"properties": properties})
            value: Any = "7" if round % 2 else 7
            await native.index(index=index, id="a", document={"v": value}, refresh=True)

            for wanted in (value, 7, "7"):
                try:
                    found = await db.search(field("v") == wanted)
                except UnavailableError:  # the mapping has just changed
                    found = await db.search(field("v") == wanted)
                assert [record.data for record in found] == ([{"v": value}] if wanted == value else [])
            assert (await db.require("a")).data == {"v": value}
        await native.indices.delete(index=index)
        with pytest.raises(UnavailableError, match="deleted"):
            await db.count()
