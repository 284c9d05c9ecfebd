"""Vectors, passages and slices on a real node."""

from __future__ import annotations

import random
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, field, match, nearest
from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus.errors import ConfigError, QueryError, UnsupportedError
from tests.elasticsearch.conftest import Build
from tests.seeds import drawn
from tests.stores import discard

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


async def opened(url: str, index: str, **settings: Any) -> AsyncDatabase:
    """Return a handle."""
    return await AsyncDatabase.create(
        "elasticsearch", {"hosts": [url], "index": index, "replicas": 0, **settings}
    )


async def test_exact_search_finds_what_a_program_finds(url: str) -> None:
    """On three shards, for each similarity: the same k records, in the same order."""
    seed = drawn()
    rng = random.Random(seed)
    vectors = [[rng.uniform(-1, 1) for _ in range(8)] for _ in range(300)]
    asked = [rng.uniform(-1, 1) for _ in range(8)]
    fields = {"c": {"dims": 8}, "l": {"dims": 8, "similarity": "l2_norm"}}
    db = await opened(url, "test-exact-vectors", shards=3, vectors=fields)
    try:
        await db.create_batch([{"n": n, "c": v, "l": v} for n, v in enumerate(vectors)])

        cosine = await db.search(nearest("c", asked, 20) & (field("n") >= 100))
        distance = await db.search(Query().nearest("l", asked, 20).sort("_score", "desc"))
        count = await db.count(nearest("c", asked, 20) & (field("n") >= 100))
        (row,) = await db.aggregate(nearest("l", asked, 20), n="count", most=("max", "n"))

        def angle(n: int) -> float:
            v = vectors[n]
            dot = sum(a * b for a, b in zip(v, asked, strict=True))
            return -dot / sum(a * a for a in v) ** 0.5

        def far(n: int) -> float:
            return sum((a - b) ** 2 for a, b in zip(vectors[n], asked, strict=True))

        near = sorted(range(300), key=far)[:20]
        assert {r["n"] for r in cosine} == set(sorted(range(100, 300), key=angle)[:20])
        assert [r["n"] for r in distance] == near
        assert count == 20
        assert row == {"n": 20, "most": max(near)}
    finally:
        await discard(db)
        await db.close()


async def test_a_graph_of_vectors_is_searched_too(url: str) -> None:
    """`hnsw` is approximate; the vector itself is found all the same."""
    db = await opened(url, "test-hnsw", vectors={"v": {"dims": 2, "search": "hnsw"}})
    try:
        await db.create_batch([{"n": n, "v": [1, n]} for n in range(50)])

        (hit,) = await db.hits(nearest("v", [1, 7], 1))

        assert hit.record["n"] == 7
        assert "hnsw" in str(await (await db._backend.native()).indices.get_mapping(index="test-hnsw"))
    finally:
        await discard(db)
        await db.close()


async def test_vectors_are_declared_when_the_index_is_made(url: str) -> None:
    """An index without them, or with others, is refused; a handle that does not name them writes them too."""
    db = await opened(url, "test-declared-vectors", vectors={"v": 2})
    plain = await opened(url, "test-declared-vectors")
    try:
        await plain.create({"v": [1.0, 0.0]})
        await db.refresh()
        assert await db.count(nearest("v", [1, 0])) == 1
        assert await plain.count(nearest("v", [1, 0])) == 1
        for wrong in ({"w": 2}, {"v": 3}, {"v": {"dims": 2, "similarity": "l2_norm"}}):
            with pytest.raises(ConfigError):
                await opened(url, "test-declared-vectors", vectors=wrong)
        with pytest.raises(UnsupportedError) as refused:
            await db.search(nearest("w", [1, 0]))
        assert refused.value.capability == "vectors"
    finally:
        await discard(db)
        await db.close()
        await plain.close()


async def test_nearest_refuses_where_odd_records_may_be_nearer(url: str) -> None:
    """A text where the field is a number would have to be evaluated client-side, after the k were chosen."""
    db = await opened(url, "test-odd-vectors", vectors={"v": 2})
    try:
        await db.create_batch([{"n": n, "v": [1, n]} for n in range(5)])
        await db.create({"n": "3", "v": [1, 3]})

        assert await db.count(nearest("v", [1, 3], 2)) == 2
        with pytest.raises(UnsupportedError, match="evaluated client-side"):
            await db.search(nearest("v", [1, 3], 2) & (field("n") != 3))
        with pytest.raises(UnsupportedError, match="evaluated client-side"):
            [r async for r in db.stream(nearest("v", [1, 3], 2) & ~(field("n") > 0))]
        with pytest.raises(UnsupportedError, match="must evaluate all conditions"):
            await db.search(nearest("v", [1, 3], 2) & field("t").regex(r"\bx"))
        # Comparisons at the field itself are evaluated client-side, and right.
        assert await db.count(field("v") == 4) == 1
        assert await db.count(field("v").exists()) == 6
        assert len(await db.search(Query().sort("v", "desc"))) == 6
    finally:
        await discard(db)
        await db.close()


async def test_a_record_that_is_stored_whole_keeps_its_vector_in_its_data(url: str) -> None:
    """An empty top-level key makes it unindexable: it comes back as it was, and is near to nothing."""
    db = await opened(url, "test-whole-vectors", vectors={"v": 2})
    try:
        ids = await db.create_batch([{"v": [1, 2], "": 1}, {"v": [1, 2]}])
        await db.update(ids[0], {"m": 1})

        assert (await db.require(ids[0])).data == {"v": [1, 2], "": 1, "m": 1}
        assert await db.count(nearest("v", [1, 2])) == 1
    finally:
        await discard(db)
        await db.close()


async def test_passages_are_of_declared_fields_and_leave_the_text_alone(url: str) -> None:
    """Private-use characters, tags and several fields; a field without full text is refused."""
    db = await opened(url, "test-passages", fulltext=["title", "a.text"])
    try:
        text = "\ue000 <em>storm</em> \ue001 & storm"
        await db.create({"title": "storm", "a": {"text": text}})

        (hit,) = await db.hits(match("a.text", "storm"), passages=["a.text", "title"])

        (passage,) = hit.passages["a.text"]
        assert passage.text == text
        assert [passage.text[a:b] for a, b in passage.marks] == ["storm", "storm"]
        assert hit.passages.keys() == {"a.text"}  # only what matched
        with pytest.raises(UnsupportedError, match="fulltext"):
            await db.hits(match("title", "storm"), passages=["other"])
        with pytest.raises(QueryError, match="limit"):
            await db.hits(Query().match("title", "storm").offset(200_000))
    finally:
        await discard(db)
        await db.close()


@pytest.mark.parametrize("slices", [1, 2, 5])
async def test_a_stream_in_slices_gives_each_record_once(build: Build, slices: int) -> None:
    """Whatever the page size, and whether a slice ends early; the snapshot is given back in the end."""
    backend = build(slices=slices, shards=2)
    index = backend.default_collection
    await backend.write(
        index, WriteKind.CREATE, [Mutation(f"r{at}", {"n": at}) for at in range(103)], atomic=False
    )

    for size in (1, 7, 50, 1_000):
        seen: list[str | None] = []
        after, pages = None, 0
        while True:
            page = await backend.fetch(index, PageRequest(TRUE, None, size, after))
            seen += [record.id for record in page.records]
            after, pages = page.after, pages + 1
            if after is None:
                break
        assert sorted(map(str, seen)) == sorted(f"r{at}" for at in range(103))
        assert pages <= 103 // size + slices + 1
    native = await backend.native()
    stats = await native.indices.stats(index=index, metric="search")
    assert stats["_all"]["primaries"]["search"]["open_contexts"] == 0
