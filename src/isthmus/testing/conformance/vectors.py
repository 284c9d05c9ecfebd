"""Nearest neighbours, or a refusal if the store cannot find them."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, field, match, nearest
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import requires, store

NORTH, EAST = [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]


async def compass(db: AsyncDatabase) -> None:
    """Store vectors from north to east, and values that are not vectors."""
    records: dict[str, dict[str, Any]] = {
        "north": {"embedding": [0, 2, 0], "n": 1},
        "north-east": {"embedding": [1, 1, 0.0], "n": 2},
        "east": {"embedding": [3.0, 0.0, 0.0], "n": 3},
        "south": {"embedding": [0.0, -1.0, 0.0], "n": 4},
        "none": {"n": 5},
        "short": {"embedding": [1.0], "n": 6},
        "words": {"embedding": "north", "n": 7},
        "nowhere": {"embedding": [0, 0, 0], "n": 8},
        "mixed": {"embedding": [0, "1", True], "n": 9},
    }
    await store(db, records)


@requires("vectors")
@pytest.mark.asyncio
async def test_the_nearest_are_found_nearest_first(db: AsyncDatabase) -> None:
    """A value that is not a vector of the right length is stored unchanged and is near to nothing."""
    await compass(db)

    found = await db.search(Query().nearest("embedding", NORTH, 3).sort("_score", "desc"))

    assert [record.id for record in found] == ["north", "north-east", "east"]
    assert found[1].data == {"embedding": [1, 1, 0.0], "n": 2}
    assert (await db.require("mixed")).data == {"embedding": [0, "1", True], "n": 9}
    everything = await db.search(nearest("embedding", NORTH, 100))
    assert [record.id for record in everything] == ["east", "north", "north-east", "south"]
    assert await db.count(nearest("embedding", NORTH, 2)) == 2


@requires("vectors")
@pytest.mark.asyncio
async def test_other_conditions_apply_before_the_nearest_are_chosen(db: AsyncDatabase) -> None:
    """The k nearest are chosen among the records that match the other conditions."""
    await compass(db)

    few = await db.search(Query().nearest("embedding", NORTH, 2).filter("n", ">", 1).sort("_score", "desc"))
    sorted_ = await db.search(Query().nearest("embedding", NORTH, 3).sort("n", "desc").limit(2))

    assert [record.id for record in few] == ["north-east", "east"]
    assert [record.id for record in sorted_] == ["east", "north-east"]
    assert {record.id async for record in db.stream(nearest("embedding", EAST, 2))} == {"east", "north-east"}


@requires("vectors", "compare_and_set")
@pytest.mark.asyncio
async def test_a_vector_is_found_as_soon_as_it_is_written(db: AsyncDatabase) -> None:
    """Also after replace, update and delete."""
    await compass(db)

    await db.update("none", {"embedding": [0, 1, 0.1]})
    await db.update("north-east", {"m": 1})
    await db.replace("north", {"n": 1})
    await db.upsert("new", {"embedding": [0, 1, 0]})
    await db.delete("east")

    found = await db.search(Query().nearest("embedding", NORTH, 9).sort("_score", "desc"))
    assert [record.id for record in found] == ["new", "none", "north-east", "south"]


@requires("vectors")
@pytest.mark.asyncio
async def test_a_hit_has_its_score(db: AsyncDatabase) -> None:
    """A nearer vector has a higher score, also in another order."""
    await compass(db)

    best = await db.hits(nearest("embedding", NORTH, 3))
    other = await db.hits(Query().nearest("embedding", NORTH, 3).sort("n", "desc"))

    scores = [hit.score or 0 for hit in best]
    assert [hit.record.id for hit in best] == ["north", "north-east", "east"]
    assert scores[0] > scores[1] > scores[2]
    assert [hit.score for hit in other] == scores[::-1]


@requires("vectors")
@pytest.mark.asyncio
async def test_an_invalid_nearest_is_refused(db: AsyncDatabase) -> None:
    """Under `not` or `or`, twice, with match(), of another length, or a zero vector."""
    near = nearest("embedding", NORTH)
    for query in (
        ~near,
        near | (field("n") == 1),
        near & nearest("embedding", EAST),
        near & match("text", "storm"),
        nearest("embedding", [1.0, 2.0]),
        nearest("embedding", [0.0, 0.0, 0.0]),
    ):
        with pytest.raises(QueryError):
            await db.search(query)
    await db.search(near)
