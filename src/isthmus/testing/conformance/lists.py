"""Lists: a path passes through them at every depth; `=` with a list compares whole lists."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, field
from isthmus.testing.conformance._fixtures import find_ids, id_set, store, store_people

CONDITIONS: dict[str, tuple[Any, str]] = {
    "= is membership": (field("tags") == "red", "alice carol eve"),
    "every depth": (field("tags") == "deep", "eve"),
    "in": (field("tags").in_(["green", "deep"]), "dan eve"),
    "text operators": (field("tags").starts_with("gr"), "dan"),
    "regex": (field("tags").regex("^r.d$"), "alice carol eve"),
    "like": (field("tags").like("%lu%"), "alice eve"),
    "list of objects": (field("items.price") == 50, "alice"),
    "comparison": (field("items.price") > 10, "alice dan"),
    "any value is enough": (field("items.sku") == "a", "alice dan"),
    "two conditions may hold on two items": (
        (field("items.sku") == "a") & (field("items.price") == 50),
        "alice",
    ),
    "between needs one value inside": (field("items.price").between(10, 20), "dan"),
    "a pair of comparisons does not": (
        (field("items.price") >= 10) & (field("items.price") <= 20),
        "alice dan",
    ),
    "exists": (field("items.price").exists(), "alice dan"),
    "the object exists": (field("items").exists(), "alice dan"),
    "an object of the list": (field("items") == {"sku": "a", "price": 20}, "dan"),
    "whole list": (field("tags") == ["red", "blue"], "alice"),
    "whole list, in order": (field("tags") == ["blue", "red"], ""),
    "whole list, nested": (field("tags") == ["red", ["blue", ["deep"]]], "eve"),
    "whole list of objects": (field("items") == [{"price": 20, "sku": "a"}], "dan"),
    "part of a list is not the list": (field("tags") == ["red"], ""),
    "one of two whole lists": (
        (field("tags") == ["red", "blue"]) | (field("tags") == ["green"]),
        "alice dan",
    ),
    "a whole list or an element": ((field("tags") == ["green"]) | (field("tags") == "blue"), "alice dan eve"),
    "empty list": (field("items") == [], "bob"),
    "not the whole list": (field("tags") != ["red", "blue"], "bob carol dan eve"),
    "in with lists": (field("tags").in_([[], ["green"]]), "bob dan"),
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.asyncio
async def test_a_condition_on_a_list_finds_exactly_these(db: AsyncDatabase, name: str) -> None:
    """A condition holds if any value satisfies it (§3); its complement matches the others."""
    predicate, expected = CONDITIONS[name]
    await store_people(db)

    assert await find_ids(db, predicate) == id_set(expected)
    assert await find_ids(db, ~predicate) == id_set("alice bob carol dan eve") - id_set(expected)


@pytest.mark.asyncio
async def test_a_whole_list_is_found_through_objects_only(db: AsyncDatabase) -> None:
    """If the path passes through a list, it does not match; elements compare deeply and numbers by value."""
    await store(
        db,
        {
            "direct": {"a": {"b": [1, 2.0, {"x": [True]}]}},
            "listed": {"a": [{"b": [1, 2, {"x": [True]}]}]},
            "one": {"a": {"b": [1, 2, {"x": [1]}]}},
        },
    )

    assert await find_ids(db, field("a.b") == [1.0, 2, {"x": [True]}]) == id_set("direct")
    assert await find_ids(db, field("a.b") == 2) == id_set("direct listed one")


@pytest.mark.parametrize(("low", "high", "inside"), [(10, 20, 15), ("b", "d", "c")])
@pytest.mark.asyncio
async def test_between_needs_one_value_inside_at_every_depth(
    db: AsyncDatabase, low: Any, high: Any, inside: Any
) -> None:
    """A list with one value below and one above the bounds does not match, at any depth."""
    values: list[Any] = [1, 99] if inside == 15 else ["a", "z"]
    without, within = values, [*values, inside]
    records = {}
    for depth in range(1, 7):
        records[f"without {depth}"] = {"v": without, "o": [{"v": without}]}
        records[f"within {depth}"] = {"v": within, "o": [{"v": within}]}
        without, within = [without], [within]
    await store(db, records)

    for path in ("v", "o.v"):
        assert await find_ids(db, field(path).between(low, high)) == {f"within {d}" for d in range(1, 7)}
        assert await find_ids(db, field(path).not_between(low, high)) == {f"without {d}" for d in range(1, 7)}


@pytest.mark.asyncio
async def test_lists_of_every_depth_are_searched(db: AsyncDatabase) -> None:
    """Also lists in lists of objects that contain lists."""
    await store(
        db,
        {
            "x": {"a": [[[{"b": [[{"c": [[7]]}]]}]]]},
            "y": {"a": {"b": {"c": 7}}},
            "z": {"a": [{"b": 1}, {"b": {"d": 7}}]},
        },
    )

    assert await find_ids(db, field("a.b.c") == 7) == id_set("x y")
    assert await find_ids(db, field("a.b.c") >= 7) == id_set("x y")
    assert await find_ids(db, field("a.b").exists()) == id_set("x y z")
    assert await find_ids(db, field("a.b") == 1) == id_set("z")
