"""Versions of records: one that was read in an index fits no record of another index of that name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from isthmus import field
from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.errors import ConflictError
from tests.elasticsearch.by_value import write
from tests.elasticsearch.conftest import Build

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]

CONDITIONAL = [WriteKind.REPLACE, WriteKind.UPDATE, WriteKind.UPSERT, WriteKind.DELETE]
Remake = Callable[[Build, ElasticsearchBackend], Awaitable[None]]


async def drop_and_create(build: Build, backend: ElasticsearchBackend) -> None:
    """Drop the collection by its own handle."""
    await backend.drop(backend.default_collection)
    await write(backend, WriteKind.CREATE, x={"owner": "bob"})


async def delete_and_create_elsewhere(build: Build, backend: ElasticsearchBackend) -> None:
    """Delete the index by the server's API, and let another handle create it."""
    native = await backend.native()
    await native.indices.delete(index=backend.default_collection)
    other = build(index=backend.default_collection)
    await write(other, WriteKind.CREATE, x={"owner": "bob"})


async def replace_by_alias(build: Build, backend: ElasticsearchBackend) -> None:
    """Put an alias of another index in the place of the index."""
    other = build()
    await write(other, WriteKind.CREATE, x={"owner": "bob"})
    native, index = await backend.native(), backend.default_collection
    actions: list[dict[str, Any]] = [
        {"remove_index": {"index": index}},
        {"add": {"index": other.default_collection, "alias": index}},
    ]
    await native.indices.update_aliases(actions=actions)


async def version_of_x(backend: ElasticsearchBackend) -> str:
    """Return the version of the record `x`."""
    (record,) = await backend.read(backend.default_collection, ["x"])
    assert record is not None
    assert record.version is not None
    return record.version


@pytest.mark.parametrize("remake", [drop_and_create, delete_and_create_elsewhere, replace_by_alias])
@pytest.mark.parametrize("kind", CONDITIONAL)
async def test_a_version_of_an_index_that_was_remade_is_stale(
    build: Build, remake: Remake, kind: WriteKind
) -> None:
    """The server numbers the writes of each index from 0, so the record there has the same numbers."""
    backend = build()
    await write(backend, WriteKind.CREATE, x={"owner": "ann"})
    stale = await version_of_x(backend)
    await remake(build, backend)

    index, mutation = backend.default_collection, Mutation("x", {"owner": "eve"}, if_version=stale)
    (result,) = await backend.write(index, kind, [mutation], atomic=False)

    assert isinstance(result, ConflictError)
    (record,) = await backend.read(index, ["x"])
    assert record is not None
    assert record.data == {"owner": "bob"}
    assert record.version is not None
    assert record.version.split(".")[:2] == stale.split(".")[:2]
    fresh = Mutation("x", {"owner": "eve"}, if_version=record.version)
    (result,) = await backend.write(index, kind, [fresh], atomic=False)
    assert result is True if kind is WriteKind.DELETE else isinstance(result, str)


@pytest.mark.parametrize("kind", CONDITIONAL)
async def test_a_token_of_the_former_form_is_stale(build: Build, kind: WriteKind) -> None:
    """It named no index, so it cannot be known which record it was of."""
    backend = build()
    await write(backend, WriteKind.CREATE, x={"owner": "ann"})
    number, term, _ = (await version_of_x(backend)).split(".")

    mutation = Mutation("x", {"owner": "eve"}, if_version=f"{number}.{term}")
    (result,) = await backend.write(backend.default_collection, kind, [mutation], atomic=False)

    assert isinstance(result, ConflictError)


async def test_a_swapped_alias_has_versions_of_its_index(build: Build) -> None:
    """A handle that follows an alias compares with the index that the alias stands for now."""
    first, second = build(), build()
    for backend, owner in ((first, "ann"), (second, "bob")):
        await write(backend, WriteKind.CREATE, x={"owner": owner})
    native, alias = await first.native(), first.default_collection + "-alias"
    await native.indices.put_alias(index=first.default_collection, name=alias)
    handle = build(index=alias)
    stale = await version_of_x(handle)
    assert stale == await version_of_x(first)

    actions: list[dict[str, Any]] = [
        {"remove": {"index": first.default_collection, "alias": alias}},
        {"add": {"index": second.default_collection, "alias": alias}},
    ]
    await native.indices.update_aliases(actions=actions)

    assert await version_of_x(handle) == await version_of_x(second) != stale
    for kind in CONDITIONAL:
        (result,) = await handle.write(alias, kind, [Mutation("x", {}, if_version=stale)], atomic=False)
        assert isinstance(result, ConflictError)
    (result,) = await first.write(
        first.default_collection, WriteKind.DELETE, [Mutation("x", if_version=stale)], atomic=False
    )
    assert result is True


@pytest.mark.parametrize("layout", ["mapped", "native"])
async def test_each_read_of_either_layout_returns_the_version_of_the_write(build: Build, layout: str) -> None:
    """By id, by a page, by a stream; with a client-side condition; and another one after a remake."""
    writer = build()
    index = writer.default_collection
    seen = []
    for _ in range(2):
        (version,) = await write(writer, WriteKind.UPSERT, x={"n": 1})
        await writer.refresh(index)
        reader = build(index=index, layout=layout)
        assert await version_of_x(reader) == version
        for request in (PageRequest(TRUE, (), 5), PageRequest(TRUE, (), None), PageRequest(TRUE, None, 5)):
            if layout == "native" and request.size is None:
                continue
            page = await reader.fetch(index, request)
            assert [record.version for record in page.records] == [version]
        seen.append(version)
        await writer.drop(index)

    assert seen[0] != seen[1]


async def test_a_candidate_for_client_side_evaluation_has_the_same_version(build: Build) -> None:
    """A record whose text is too long to be indexed is found by another request."""
    backend = build()
    index = backend.default_collection
    (version,) = await write(backend, WriteKind.UPSERT, x={"v": "y" * 9_000})

    for request in (PageRequest(field("v") > "x", (), 5), PageRequest(field("v") > "x", None, 5)):
        page = await backend.fetch(index, request)
        assert [record.version for record in page.recheck] == [version]
