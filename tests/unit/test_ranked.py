"""Ranked conditions as values: built with care, written down and read back, refused where meaningless."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest

from isthmus import AsyncDatabase, Passage, Query, field, match, nearest
from isthmus._portability import portability
from isthmus._query.codec import from_json, to_json
from isthmus.errors import QueryError, UnsupportedError


@pytest.mark.parametrize("query", [Query().nearest("a.b", (1, 2.5), 3), Query().match(["a.b"], "x")])
def test_a_ranked_query_survives_json(query: Query) -> None:
    """What is written down is what is read back."""
    query = query.filter("n", ">", 1).sort("_score", "desc")

    assert from_json(json.loads(json.dumps(to_json(query)))) == query


class Float32:
    """A number as arrays have it: no float, but it becomes one."""

    def __float__(self) -> float:
        return 0.5


def test_a_vector_is_any_iterable_of_numbers() -> None:
    """An array's numbers become floats."""
    assert nearest("v", [Float32(), 1]) == nearest("v", (0.5, 1.0))  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("vector", "k"),
    [
        ("abc", 1),
        ([], 1),
        ([True], 1),
        (["1"], 1),
        ([float("nan")], 1),
        ([float("inf")], 1),
        ([1] * 4_097, 1),
        (5, 1),
        ([1], 0),
        ([1], True),
        ([1], 10_001),
        ([1], 1.5),
    ],
)
def test_what_is_no_vector_is_refused_when_the_query_is_built(vector: Any, k: Any) -> None:
    """Nothing is sent."""
    with pytest.raises(QueryError):
        nearest("v", vector, k)


@pytest.mark.parametrize("value", [None, [1], {"k": 1}, {"vector": [1], "x": 1}])
def test_a_bad_shape_of_nearest_names_its_place(value: Any) -> None:
    """The wire is not trusted."""
    with pytest.raises(QueryError, match="where"):
        from_json({"where": {"field": "v", "op": "nearest", "value": value}})


def test_portability_says_that_only_elasticsearch_ranks() -> None:
    """Elsewhere, and where no such field is declared, it is refused by name of the capability."""
    answers = portability(nearest("v", [1.0]))

    assert {name: answer.verdict for name, answer in answers.items() if name in ("memory", "sqlite")} == {
        "memory": "refused",
        "sqlite": "refused",
    }
    assert "vectors=" in str(answers["elasticsearch"])
    assert "nearest()" in str(answers["memory"])


@pytest.mark.asyncio
async def test_memory_refuses_what_ranks() -> None:
    """No store imitates what another means by near or relevant."""
    async with AsyncDatabase("memory", {}) as db:
        for query, capability in ((nearest("v", [1]), "vectors"), (match("t", "x"), "relevance")):
            for call in (db.search, db.count, db.hits):
                with pytest.raises(UnsupportedError) as refused:
                    await call(query)  # type: ignore[operator]
                assert refused.value.capability == capability
        with pytest.raises(QueryError):
            await db.hits(field("n") == 1)


def test_a_passage_is_marked_and_escaped() -> None:
    """Marks go around the words, the rest is escaped."""
    passage = Passage("a < storm & storm", ((4, 9), (12, 17)))

    assert passage.marked() == "a < <em>storm</em> & <em>storm</em>"
    assert passage.marked("[", "]", escape=html.escape) == "a &lt; [storm] &amp; [storm]"
    assert Passage("", ()).marked() == ""
