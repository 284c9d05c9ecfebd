"""Comparisons: exact within a type, false across types."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import find_ids, id_set, store, store_people

FILTERS: dict[str, tuple[Any, str]] = {
    "text = text": (field("name") == "Alice", "alice"),
    "number = integer": (field("age") == 30, "alice"),
    "integer = float": (field("score") == 2, "bob carol"),
    "float = integer": (field("score") == 2.0, "bob carol"),
    "bool = bool": (field("active") == True, "alice carol dan"),  # noqa: E712
    "number = text matches nothing": (field("age") == "30", ""),
    "bool = number matches nothing": (field("active") == 1, ""),
    "number > text matches nothing": (field("age") > "9", ""),
    "text < number matches nothing": (field("name") < 5, ""),
    "age > 9": (field("age") > 9, "alice carol dan"),
    "age >= 10": (field("age") >= 10, "alice carol dan"),
    "age < 10": (field("age") < 10, "bob"),
    "age <= 10": (field("age") <= 10, "bob dan"),
    "age between": (field("age").between(5, 30), "alice bob dan"),
    "age between, nothing inside": (field("age").between(31, 99), ""),
    "age between, reversed bounds": (field("age").between(30, 5), ""),
    "score > 1.5": (field("score") > 1.5, "bob carol"),
    "score < 0": (field("score") < 0, "dan"),
    "text > text": (field("name") > "Bob", "carol dan eve"),
    "text between": (field("name").between("A", "D"), "alice bob carol"),
    "bool order": (field("active") < True, "bob"),
    "in": (field("age").in_([5, 10, 11]), "bob dan"),
    "in, mixed types": (field("age").in_([5, "10", True, 100.0]), "bob carol"),
    "in nothing": (field("age").in_([]), ""),
    "in with None": (field("age").in_([5, None]), "bob eve"),
    "in with a list": (field("tags").in_([["red", "blue"], "green"]), "alice dan"),
    "and": ((field("age") > 9) & (field("active") == True), "alice carol dan"),  # noqa: E712
    "or": ((field("age") == 5) | (field("name") == "dan"), "bob dan"),
    "not": (~(field("age") > 9), "bob eve"),
    "nested": (
        ~((field("age") > 9) & ~(field("name").starts_with("C"))) & field("age").exists(),
        "bob carol",
    ),
    "two filters on one field": ((field("age") > 2) & (field("age") == 5), "bob"),
    "object": (field("address") == {"city": "Nice"}, "bob"),
    "object, keys in another order": (field("address") == {"zip": "75001", "city": "Paris"}, "alice"),
    "part of an object is not the object": (field("address") == {"city": "Paris"}, ""),
    "path": (field("address.city") == "Paris", "alice"),
    "path through a scalar": (field("name.city") == "Paris", ""),
    "unknown field": (field("nothing") == 1, ""),
    "id": (field("_id") == "dan", "dan"),
    "id range": (field("_id") > "bob", "carol dan eve"),
    "id prefix": (field("_id").starts_with("a"), "alice"),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.asyncio
async def test_a_filter_finds_exactly_these(db: AsyncDatabase, name: str) -> None:
    """search, count, stream and exists agree (§3)."""
    predicate, expected = FILTERS[name]
    await store_people(db)

    assert await find_ids(db, predicate) == id_set(expected)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.asyncio
async def test_a_negated_filter_finds_exactly_the_others(db: AsyncDatabase, name: str) -> None:
    """`not` is the exact complement, also for values that are null, missing or of another type (§3)."""
    predicate, expected = FILTERS[name]
    await store_people(db)

    assert await find_ids(db, ~predicate) == id_set("alice bob carol dan eve") - id_set(expected)


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("=", 30, "alice"),
        ("!=", 30, "bob carol dan eve"),
        ("<", 10, "bob"),
        ("<=", 10, "bob dan"),
        (">", 10, "alice carol"),
        (">=", 10, "alice carol dan"),
        ("in", [5, 30], "alice bob"),
        ("not_in", [5, 30], "carol dan eve"),
        ("in", [], ""),
        ("not_in", [], "alice bob carol dan eve"),
        ("between", [5, 10], "bob dan"),
        ("not_between", [5, 10], "alice carol eve"),
        ("exists", None, "alice bob carol dan"),
        ("not_exists", None, "eve"),
        ("is_null", None, "eve"),
        ("like", "3%", ""),
        ("regex", "3", ""),
    ],
)
@pytest.mark.asyncio
async def test_each_operator_by_name(db: AsyncDatabase, op: str, value: Any, expected: str) -> None:
    """`Query().filter(field, operator, value)` is equivalent to the expression."""
    await store_people(db)

    assert {r.id for r in await db.search(Query().filter("age", op, value))} == id_set(expected)


@pytest.mark.parametrize(
    ("op", "value"),
    [
        ("<>", 1),
        ("equals", 1),
        ("", 1),
        ("<", None),
        (">=", [1]),
        ("<", {"a": 1}),
        ("between", [1]),
        ("between", [1, "a"]),
        ("between", 5),
        ("between", [None, 1]),
        ("like", 1),
        ("regex", "("),
        ("regex", None),
        ("starts_with", 1),
        ("in", "text"),
        ("in", 5),
        ("=", float("nan")),
        ("=", 2**63),
        ("exists", 1),
    ],
)
@pytest.mark.asyncio
async def test_an_invalid_comparison_is_refused_when_built(db: AsyncDatabase, op: str, value: Any) -> None:
    """It raises QueryError before any I/O, on every backend."""
    with pytest.raises(QueryError):
        await db.search(Query().filter("age", op, value))


@pytest.mark.asyncio
async def test_a_field_of_mixed_types_can_be_compared(db: AsyncDatabase) -> None:
    """Each operand matches the values of its own type; no comparison fails."""
    values = {"i": 1, "j": 5, "t": "text", "b": True, "f": 5.0, "n": None, "o": {"x": 1}, "l": [5, "text"]}
    await store(db, {id: {"v": value} for id, value in values.items()})

    assert await find_ids(db, field("v") == 5) == id_set("j f l")
    assert await find_ids(db, field("v") > 1) == id_set("j f l")
    assert await find_ids(db, field("v") == 1) == id_set("i")
    assert await find_ids(db, field("v") == True) == id_set("b")  # noqa: E712
    assert await find_ids(db, field("v").in_([1, "text"])) == id_set("i t l")
    assert await find_ids(db, field("v") < "z") == id_set("t l")
    assert await find_ids(db, field("v").exists()) == id_set("i j t b f o l")


@pytest.mark.asyncio
async def test_all_of_nothing_is_true_and_any_of_nothing_is_false(db: AsyncDatabase) -> None:
    """`and` without terms matches everything, `or` without terms matches nothing (§3)."""
    await store_people(db)

    assert len(await db.search(Query())) == 5
    assert await db.search(Query().any_of()) == []
    assert len(await db.search(Query().not_(Query().any_of()))) == 5


@pytest.mark.asyncio
async def test_wide_and_deep_predicates_are_evaluated(db: AsyncDatabase) -> None:
    """A predicate may have 500 terms, or 60 levels of nesting."""
    await store_people(db)
    wide = Query().any_of(*(field("age") == n for n in range(500)))
    deep = field("age") == 5
    for n in range(30):
        deep = ~(deep | ((field("age") == -n) & (field("name") == "x")))

    assert {r.id for r in await db.search(wide)} == id_set("alice bob carol dan")
    assert await find_ids(db, deep) == id_set("bob")

    both = field("age") == 5
    for n in range(30):
        both = (both | (field("age") == -n)) & (field("name") != str(n))
    assert await find_ids(db, both) == id_set("bob")


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE records; --",
        '"',
        "\\",
        "%s",
        "$1",
        "${jndi}",
        "{{x}}",
        "?",
        "') OR 1=1 --",
        "*:*",
        "<!--",
    ],
)
@pytest.mark.asyncio
async def test_text_that_looks_like_a_statement_is_not_executed(db: AsyncDatabase, text: str) -> None:
    """In values, field names, sort keys and ids."""
    await store(db, {text: {text: text, "n": 1}, "other": {"n": 2}})

    assert await find_ids(db, field([text]) == text) == {text}
    assert await find_ids(db, field([text]).contains(text)) == {text}
    assert await find_ids(db, field([text]).exists()) == {text}
    assert [r.id for r in await db.search(Query().sort([text]))] == [text, "other"]
    assert (await db.require(text)).data == {text: text, "n": 1}
