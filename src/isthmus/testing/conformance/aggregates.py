"""Aggregates: over all values, duplicates included; exact for integers; groups in order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from isthmus import AsyncDatabase, field
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import put, store, store_people


@pytest.mark.asyncio
async def test_each_function_over_all_records(db: AsyncDatabase) -> None:
    """count, sum, avg, min and max; the count of a path is the number of its values (§7)."""
    await store_people(db)

    [row] = await db.aggregate(
        n="count",
        ages=("count", "age"),
        total=("sum", "age"),
        mean=("avg", "age"),
        least=("min", "age"),
        most=("max", "age"),
        tags=("count", "tags"),
        prices=("sum", "items.price"),
    )

    assert row == {
        "n": 5,
        "ages": 4,
        "total": 145,
        "mean": 36.25,
        "least": 5,
        "most": 100,
        "tags": 7,
        "prices": 75,
    }


@pytest.mark.asyncio
async def test_groups_come_in_order_with_the_null_group_last(db: AsyncDatabase) -> None:
    """A record without a value is in the group None, one with a list in the group of each value (§7)."""
    await store_people(db)

    by_active = await db.aggregate(by="active", n="count", oldest=("max", "age"))
    by_tag = await db.aggregate(by="tags", n="count")

    assert by_active == [
        {"active": False, "n": 1, "oldest": 5},
        {"active": True, "n": 3, "oldest": 100},
        {"active": None, "n": 1, "oldest": None},
    ]
    assert by_tag == [
        {"tags": "blue", "n": 2},
        {"tags": "deep", "n": 1},
        {"tags": "green", "n": 1},
        {"tags": "red", "n": 3},
        {"tags": None, "n": 1},
    ]


@pytest.mark.asyncio
async def test_a_list_is_counted_with_the_scalars_of_other_records(db: AsyncDatabase) -> None:
    """Each of a list's distinct values is a group with the records that hold it alone (§7)."""
    await put(
        db,
        [
            {"k": "a", "v": 1, "p": {"q": 10}},
            {"k": ["a", "b", "a"], "v": [2, [3, "x"]], "p": [{"q": 1}, {"q": [2, 0.5]}]},
            {"k": {"o": 1}, "v": True, "p": {"q": "t"}},
            {"k": [], "v": "7", "p": [[{"q": {"o": 1}}]]},
            {"k": 1.0, "v": 2.5},
            {"k": [1], "v": {"o": 1}},
        ],
    )

    by_key = await db.aggregate(by="k", n="count", s=("sum", "v"), low=("min", "v"), high=("max", "v"))
    [nested] = await db.aggregate(
        n="count", found=("count", "p.q"), s=("sum", "p.q"), low=("min", "p.q"), high=("max", "p.q")
    )

    assert by_key == [
        {"k": 1, "n": 2, "s": 2.5, "low": 2.5, "high": {}},
        {"k": "a", "n": 2, "s": 6, "low": 1, "high": "x"},
        {"k": "b", "n": 1, "s": 5, "low": 2, "high": "x"},
        {"k": None, "n": 2, "s": None, "low": True, "high": "7"},
    ]
    assert nested == {"n": 6, "found": 6, "s": 13.5, "low": 0.5, "high": {}}


@pytest.mark.asyncio
async def test_only_matching_records_count(db: AsyncDatabase) -> None:
    """Filters apply; empty groups are omitted; without grouping there is always one row."""
    await store_people(db)

    assert await db.aggregate(field("age") > 9, by="city", n="count") == [
        {"city": "Berlin", "n": 1},
        {"city": "Paris", "n": 1},
        {"city": None, "n": 1},
    ]
    assert await db.aggregate(field("age") > 1_000, by="city", n="count") == []
    assert await db.aggregate(field("age") > 1_000, n="count", s=("sum", "age"), m=("min", "age")) == [
        {"n": 0, "s": None, "m": None}
    ]
    assert await db.aggregate(field("name").regex("^[AB]"), s=("sum", "age")) == [{"s": 35}]


@pytest.mark.asyncio
async def test_sums_take_numbers_only_and_integers_add_exactly(db: AsyncDatabase) -> None:
    """Booleans and texts are not numbers; a sum of integers may exceed 2^63 (§7)."""
    values: dict[str, Any] = {
        "a": 2**63 - 1,
        "b": 2**63 - 1,
        "c": 2,
        "d": True,
        "e": "5",
        "f": None,
        "g": {"x": 1},
    }
    await store(db, {id: {"v": value} for id, value in values.items()})

    [row] = await db.aggregate(s=("sum", "v"), n=("count", "v"), a=("avg", "v"))

    assert row["s"] == 2**64
    assert row["n"] == 6
    assert math.isclose(row["a"], 2**64 / 3, rel_tol=1e-12)


@pytest.mark.asyncio
async def test_a_value_found_twice_counts_twice(db: AsyncDatabase) -> None:
    """Equal values in a list are counted separately (§3, §7)."""
    await store(
        db,
        {
            "several": {"k": 1, "t": ["x", "x", "y"], "n": [7, 7], "b": [True, True]},
            "one": {"k": 2, "t": "x", "n": 1, "b": False},
        },
    )

    assert await db.aggregate(t=("count", "t")) == [{"t": 4}]
    assert await db.aggregate(n=("count", "n"), sum=("sum", "n")) == [{"n": 3, "sum": 15}]
    assert await db.aggregate(b=("count", "b")) == [{"b": 3}]
    assert await db.aggregate(t=("count", "t"), by="k") == [{"k": 1, "t": 3}, {"k": 2, "t": 1}]
    assert await db.aggregate(records="count", by="t") == [
        {"t": "x", "records": 2},
        {"t": "y", "records": 1},
    ]


@pytest.mark.asyncio
async def test_sums_of_floats_agree_within_rounding(db: AsyncDatabase) -> None:
    """Within a relative error of 1e-12 (§7)."""
    await put(db, [{"v": n * 0.1, "w": n} for n in range(100)])

    [row] = await db.aggregate(s=("sum", "v"), a=("avg", "v"), w=("sum", "w"))

    assert math.isclose(row["s"], 495.0, rel_tol=1e-12)
    assert math.isclose(row["a"], 4.95, rel_tol=1e-12)
    assert row["w"] == 4_950


@pytest.mark.asyncio
async def test_sums_near_the_greatest_float(db: AsyncDatabase) -> None:
    """It is rounded once, at the end; beyond the floats it is an error, and an average is exact (§7)."""
    values = {"back": [1e308, 1e308, -1e308], "over": [1e308, 1e308], "under": [-1e308, -1e308]}
    averages = {"back": 1e308 / 3, "over": 1e308, "under": -1e308}
    await put(db, [{"g": group, "v": value} for group, several in values.items() for value in several])

    for row in await db.aggregate(by="g", a=("avg", "v")):
        # Also alone: among other groups a store may already use exact arithmetic.
        [alone] = await db.aggregate(field("g") == row["g"], a=("avg", "v"))
        assert (row["a"], alone["a"]) == pytest.approx((averages[row["g"]],) * 2, rel=1e-12)
    assert await db.aggregate(field("g") == "back", s=("sum", "v")) == [{"s": pytest.approx(1e308)}]
    for where, by in ((field("g") == "over", ()), (field("g") == "under", ()), (None, "g")):
        with pytest.raises(QueryError, match="total"):
            await db.aggregate(where, by=by, total=("sum", "v"))


@pytest.mark.asyncio
async def test_equal_numbers_look_alike(db: AsyncDatabase) -> None:
    """An integral number within 64 bits is an int, however it is stored and whatever was read first (§7)."""
    await put(db, [{"v": value} for value in (0.0, 2.0, 2, 2.5, 1e300, -(2.0**63))])

    rows = await db.aggregate(by="v", low=("min", "v"), high=("max", "v"), sum=("sum", "v"), avg=("avg", "v"))

    numbers = [-(2**63), 0, 2, 2.5, 1e300]
    assert [row["v"] for row in rows] == numbers
    for row, number in zip(rows, numbers, strict=True):
        found = (row["v"], row["low"], row["high"], row["avg"])
        assert [type(value) for value in found] == [type(number)] * 4
    assert [type(row["sum"]) for row in rows] == [int, int, int, float, float]


@pytest.mark.asyncio
async def test_min_and_max_follow_the_order_across_types(db: AsyncDatabase) -> None:
    """bool < number < text < object; lists count by their values (§4, §7)."""
    await store(db, {"a": {"v": "text"}, "b": {"v": [3, False]}, "c": {"v": 2**53 + 1}, "d": {"v": None}})

    assert await db.aggregate(low=("min", "v"), high=("max", "v")) == [{"low": False, "high": "text"}]
    assert await db.aggregate(field("_id") != "b", low=("min", "v")) == [{"low": 2**53 + 1}]


@pytest.mark.asyncio
async def test_groups_by_values_of_mixed_types(db: AsyncDatabase) -> None:
    """True is not 1, 1 equals 1.0, "1" is a text, and an object is not a group key (§7)."""
    values: list[Any] = [True, 1, 1.0, "1", None, {"x": 1}, [1, 1, "1"], []]
    await put(db, [{"v": value} for value in values])

    rows = await db.aggregate(by="v", n="count")

    assert [(type(row["v"]) is bool, row["v"], row["n"]) for row in rows] == [
        (True, True, 1),
        (False, 1, 3),
        (False, "1", 2),
        (False, None, 3),
    ]


@pytest.mark.asyncio
async def test_groups_by_two_fields(db: AsyncDatabase) -> None:
    """One group for each combination that occurs; a list yields several."""
    await store(db, {"a": {"x": 1, "y": ["p", "q"]}, "b": {"x": 1, "y": "p"}, "c": {"y": "q"}})

    assert await db.aggregate(by=["x", "y"], n="count") == [
        {"x": 1, "y": "p", "n": 2},
        {"x": 1, "y": "q", "n": 1},
        {"x": None, "y": "q", "n": 1},
    ]


@pytest.mark.asyncio
async def test_an_invalid_aggregate_is_refused(db: AsyncDatabase) -> None:
    """An unknown function, a sum without a field, no columns, a duplicate name, an offset."""
    from isthmus import Query

    for bad in ({"x": "median"}, {"x": ("total", "age")}, {"x": "sum"}, {}):
        with pytest.raises(QueryError):
            await db.aggregate(**bad)
    with pytest.raises(QueryError):
        await db.aggregate(by="n", n="count")
    with pytest.raises(QueryError):
        await db.aggregate(Query().offset(1), n="count")


@pytest.mark.asyncio
async def test_distinct_values_of_what_is_grouped_by(db: AsyncDatabase) -> None:
    """Each group has one of them, or each of the record's list."""
    await store(db, {"a": {"x": {"g": 1}}, "b": {"x": {"g": [1, 2]}}, "c": {"x": {"g": 2}}, "d": {}})

    rows = await db.aggregate(by=["kind", "x.g"], n=("count_distinct", "x.g"))

    assert rows == [
        {"kind": None, "x.g": 1, "n": 2},
        {"kind": None, "x.g": 2, "n": 2},
        {"kind": None, "x.g": None, "n": 0},
    ]
