"""Distinct counts, percentiles, buckets of times and numbers, and the first groups (§7)."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus._columns import declare_columns
from isthmus._core.columns import columns_of
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import put, requires, store

VISITS: dict[str, dict[str, Any]] = {
    "a": {"at": "2024-03-30T23:30:00.000000Z", "city": "Oslo", "ms": 1},
    "b": {"at": "2024-03-31T00:30:00.000000Z", "city": "Oslo", "ms": 2.0},
    "c": {"at": "2024-03-31T03:00:00+02:00", "city": "Rome", "ms": 3},
    "d": {"at": "2024-03-31", "city": "Rome", "ms": 10},
    "e": {
        "at": ["2024-03-31T12:00:00Z", "2024-03-31T12:59:59.999999999Z", "2024-12-31T23:30:00Z"],
        "ms": [4, 4],
    },
    "f": {"at": "2024-02-30", "city": ["Oslo", "Bari"], "ms": "4"},
    "g": {"at": 5, "ms": -0.5},
    "h": {},
}


async def count_by(db: AsyncDatabase, key: Any) -> dict[Any, int]:
    """Return how many records are in each group."""
    return {row["key"]: row["n"] for row in await db.aggregate(by={"key": key}, n="count")}


@pytest.mark.asyncio
async def test_periods_of_time_are_those_of_the_zone(db: AsyncDatabase) -> None:
    """A day begins at the zone's midnight; a date is that day in every zone and in no hour (§7)."""
    await store(db, VISITS)
    at, kolkata = field("at"), "Asia/Kolkata"

    assert await count_by(db, at.by("day")) == {"2024-03-30": 1, "2024-03-31": 4, "2024-12-31": 1, None: 3}
    oslo = await count_by(db, at.by("day", zone="Europe/Oslo"))
    assert oslo == {"2024-03-31": 5, "2025-01-01": 1, None: 3}
    assert await count_by(db, at.by("hour", zone="Europe/Oslo")) == {
        "2024-03-30T23:00:00.000000Z": 1,
        "2024-03-31T00:00:00.000000Z": 1,
        "2024-03-31T01:00:00.000000Z": 1,
        "2024-03-31T12:00:00.000000Z": 1,
        "2024-12-31T23:00:00.000000Z": 1,
        None: 4,
    }
    assert await count_by(db, at.by("week")) == {"2024-03-25": 5, "2024-12-30": 1, None: 3}
    assert await count_by(db, at.by("month", zone=kolkata)) == {
        "2024-03-01": 5,
        "2025-01-01": 1,
        None: 3,
    }
    assert await count_by(db, at.by("quarter")) == {"2024-01-01": 5, "2024-10-01": 1, None: 3}
    assert await count_by(db, at.by("year", zone=kolkata)) == {
        "2024-01-01": 5,
        "2025-01-01": 1,
        None: 3,
    }


@pytest.mark.asyncio
async def test_an_hour_that_comes_twice_is_two(db: AsyncDatabase) -> None:
    """When clocks go back, two hours have the same name and begin at different instants (§7)."""
    await put(db, [{"at": "2024-10-27T00:30:00Z"}, {"at": "2024-10-27T01:30:00Z"}])

    assert await count_by(db, field("at").by("hour", zone="Europe/Oslo")) == {
        "2024-10-27T00:00:00.000000Z": 1,
        "2024-10-27T01:00:00.000000Z": 1,
    }


@pytest.mark.asyncio
async def test_ranges_of_numbers_have_their_lower_bound_as_key(db: AsyncDatabase) -> None:
    """The key is the multiple of the width below; exact up to 64 bits, beyond it is a float (§7)."""
    await store(db, VISITS)
    await store(
        db, {"big": {"n": 2**63 - 1}, "least": {"n": -(2**63)}, "huge": {"n": 1e300}, "true": {"n": True}}
    )

    assert await count_by(db, field("ms").by(2)) == {-2: 1, 0: 1, 2: 2, 4: 1, 10: 1, None: 6}
    assert await count_by(db, field("ms").by(1)) == {-1: 1, 1: 1, 2: 1, 3: 1, 4: 1, 10: 1, None: 6}
    by_ten = await db.aggregate(by=field("n").by(10), n="count")
    assert [row["n:10"] for row in by_ten] == [
        float(-(2**63) - 2),
        (2**63 - 1) // 10 * 10,
        float(int(1e300) // 10 * 10),
        None,
    ]


RANGED: list[int | float] = [
    *(0, 1, -1, 0.5, -0.5, 2.5, -2.5, -10, 5e-324, -5e-324, 1e-10, -1e-10, -123456789.123, 1e17, -1e17),
    *(2**53 - 1, 1 - 2**53, 2**53, -(2**53), 2**63 - 1, -(2**63), 1e22, -1e22, 3e23, -3e23, 1e300, -1e300),
    *(sys.float_info.max, -sys.float_info.max),
]
WIDTHS = (
    *(1, 2, 3, 7, 1_000, 10**15, 2**53 - 1, 2**53, 2**53 + 1, 10**18 + 7, 2**62, 2**63 - 1, 2**63, 10**19),
    *(10**22, 10**23, 3 * 10**23, 10**23 + 7, 10**30 + 7, 10**39, 10**300, int(sys.float_info.max)),
)


async def check_ranges(db: AsyncDatabase) -> None:
    """Compare the groups of each width with those of the evaluator."""
    await put(db, [{"n": number} for number in RANGED])
    for width in WIDTHS:
        key = field("n").by(width)
        assert await count_by(db, key) == Counter(key.of(number) for number in RANGED), width


@pytest.mark.asyncio
async def test_ranges_of_any_width_are_those_of_the_evaluator(db: AsyncDatabase) -> None:
    """Narrow and wide, of tiny and huge numbers of both signs (§7)."""
    await check_ranges(db)


@requires("columns")
@pytest.mark.asyncio
async def test_ranges_on_declared_columns_are_those_of_the_evaluator(db: AsyncDatabase) -> None:
    """The same where the server groups by a column (§7)."""
    await declare_columns(db, columns_of({"n": "number"}))

    await check_ranges(db)


@pytest.mark.asyncio
async def test_columns_of_buckets_are_named_after_them(db: AsyncDatabase) -> None:
    """`at:day` and `price:10`, unless named; with other keys and measures (§7)."""
    await store(db, VISITS)

    rows = await db.aggregate(
        field("ms") >= 3,
        by=["city", field("at").by("day"), field("ms").by(10)],
        n="count",
        total=("sum", "ms"),
    )

    assert rows == [
        {"city": "Rome", "at:day": "2024-03-31", "ms:10": 0, "n": 1, "total": 3},
        {"city": "Rome", "at:day": "2024-03-31", "ms:10": 10, "n": 1, "total": 10},
        {"city": None, "at:day": "2024-03-31", "ms:10": 0, "n": 1, "total": 8},
        {"city": None, "at:day": "2024-12-31", "ms:10": 0, "n": 1, "total": 8},
    ]


@pytest.mark.asyncio
async def test_count_distinct_counts_values_by_equality(db: AsyncDatabase) -> None:
    """1 equals 1.0 and is neither true nor "1"; objects are not counted (§7)."""
    values: list[Any] = [1, 1.0, True, "1", None, {"x": 1}, [2, [1, "a"]], []]
    await put(db, [{"v": value, "odd": n % 2 == 1} for n, value in enumerate(values)])

    assert await db.aggregate(d=("count_distinct", "v")) == [{"d": 5}]
    assert await db.aggregate(d=("count_distinct", "v"), n=("count", "v"), by="odd") == [
        {"odd": False, "d": 4, "n": 5},
        {"odd": True, "d": 2, "n": 3},
    ]
    assert await db.aggregate(field("v") == "none", d=("count_distinct", "v")) == [{"d": 0}]
    assert await db.aggregate(d=("count_distinct", "odd"), by="v.x") == [
        {"v.x": 1, "d": 1},
        {"v.x": None, "d": 2},
    ]


@pytest.mark.asyncio
async def test_percentiles_are_the_nearest_rank(db: AsyncDatabase) -> None:
    """The ⌈p·n/100⌉-th of the numbers found, each as often as it was found; None of nothing (§7)."""
    await store(db, VISITS)
    columns: dict[str, Any] = {
        f"p{p}": ("percentile", "ms", p) for p in (0.1, 14.2, 14.3, 50, 85.7, 99.9, 100)
    }

    [row] = await db.aggregate(**columns)

    assert row == {"p0.1": -0.5, "p14.2": -0.5, "p14.3": 1, "p50": 3, "p85.7": 4, "p99.9": 10, "p100": 10}
    by_city = await db.aggregate(by="city", median=("percentile", "ms", 50))
    assert by_city == [
        {"city": "Bari", "median": None},
        {"city": "Oslo", "median": 1},
        {"city": "Rome", "median": 3},
        {"city": None, "median": 4},
    ]


@pytest.mark.asyncio
async def test_sort_and_limit_choose_the_first_groups(db: AsyncDatabase) -> None:
    """By any column, ties by key; a group without a value comes last in both directions (§7)."""
    await store(db, VISITS)
    found = {
        order: [row["city"] for row in await db.aggregate(query, by="city", n="count", top=("max", "ms"))]
        for order, query in {
            "n desc": Query().sort("n", "desc"),
            "n": Query().sort("n"),
            "top desc": Query().sort("top", "desc").limit(2),
            "city desc": Query().sort("city", "desc"),
            "nulls first": Query().sort("city", "desc", nulls="first").limit(2),
            "n desc, city desc": Query().sort("n", "desc").sort("city", "desc").limit(3),
            "limit": Query().limit(2),
            "none": Query().limit(0),
        }.items()
    }

    assert found == {
        "n desc": ["Oslo", None, "Rome", "Bari"],
        "n": ["Bari", "Rome", "Oslo", None],
        "top desc": ["Bari", "Oslo"],
        "city desc": ["Rome", "Oslo", "Bari", None],
        "nulls first": [None, "Rome"],
        "n desc, city desc": ["Oslo", None, "Rome"],
        "limit": ["Bari", "Oslo"],
        "none": [],
    }


@pytest.mark.asyncio
async def test_times_of_records_are_grouped_like_others(db: AsyncDatabase) -> None:
    """`_created_at` is a canonical time; metadata has buckets as well (§7)."""
    await put(db, [Record({}, id="x", metadata={"n": 7}), Record({}, id="y", metadata={"n": [11, 12]})])
    [record, _] = await db.search()
    assert record.created_at is not None

    assert sum((await count_by(db, field("_created_at").by("year"))).values()) == 2
    assert await count_by(db, field("_metadata.n").by(10)) == {0: 1, 10: 1}


@pytest.mark.asyncio
async def test_what_is_no_bucket_or_percentile_is_refused(db: AsyncDatabase) -> None:
    """Unknown units and zones, widths below 1, percents not above 0 and up to 100, unknown columns (§7)."""
    at = field("at")
    for size, zone in (
        ("days", None),
        ("", None),
        (0, None),
        (-1, None),
        (1.5, None),
        (10**309, None),
        (10**5000, None),
        (True, None),
        (1, "UTC"),
    ):
        with pytest.raises(QueryError):
            at.by(size, zone=zone)  # type: ignore[arg-type]
    for zone in ("Europe/Atlantis", "../Oslo", "", "/etc/localtime"):
        with pytest.raises(QueryError, match="time zone"):
            at.by("day", zone=zone)
    percents: list[Any] = [0, -1, 100.1, float("nan"), True, "95"]
    columns: list[Any] = [("percentile", "n", percent) for percent in percents]
    for column in [*columns, ("percentile", "n"), ("count_distinct",), ("sum", "n", 3), ("median", "n")]:
        with pytest.raises(QueryError):
            await db.aggregate(p=column)
    for query in (Query().sort("other"), Query().sort("n").offset(1), Query().select("n")):
        with pytest.raises(QueryError):
            await db.aggregate(query, by="city", n="count")
    with pytest.raises(QueryError):
        await db.aggregate(by={"n": "city"}, n="count")
