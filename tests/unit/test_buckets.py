"""Buckets of times and numbers, percentiles and the cap of what is held client-side (meaning §7)."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from isthmus import AsyncDatabase, Policy, Query, field
from isthmus._path import Path
from isthmus._query.aggregate import nearest_rank
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import make_bucket
from isthmus._query.columns import measures
from isthmus.errors import QueryError, UnsupportedError
from isthmus.layers.plan import Plan

AT = field("at").path


@pytest.mark.parametrize(
    ("text", "unit", "zone", "expected"),
    [
        ("2024-02-29", "day", "UTC", "2024-02-29"),
        ("2024-02-29", "month", "Pacific/Auckland", "2024-02-01"),
        ("2024-02-29", "hour", "UTC", None),
        ("2023-02-29", "day", "UTC", None),
        ("2024-02-29T10:00:00Z", "day", "Pacific/Kiritimati", "2024-03-01"),
        ("2024-02-29t10:00:00z", "day", "UTC", "2024-02-29"),
        ("2024-02-29T10:00:00.123456789+05:30", "hour", "UTC", "2024-02-29T04:00:00.000000Z"),
        ("2024-02-29T10:00:00.1234567890Z", "day", "UTC", None),
        ("2024-02-29T10:00:00.Z", "day", "UTC", None),
        ("2024-02-29T10:00:00", "day", "UTC", None),
        ("2024-02-29T10:00Z", "day", "UTC", None),
        ("2024-02-29 10:00:00Z", "day", "UTC", None),
        ("2024-02-29T10:00:60Z", "day", "UTC", None),
        ("2024-02-29T24:00:00Z", "day", "UTC", None),
        ("2024-02-29T10:00:00+24:00", "day", "UTC", None),
        ("2024-02-29T10:00:00-00:00", "hour", "UTC", "2024-02-29T10:00:00.000000Z"),
        ("٢٠٢٤-02-29", "day", "UTC", None),
        ("2024-02-29\n", "day", "UTC", None),
        ("0000-01-01", "day", "UTC", None),
        ("0001-01-01T00:00:00+01:00", "day", "UTC", None),
        ("9999-12-31T23:59:59Z", "day", "Asia/Tokyo", None),
        ("0001-01-01", "week", "UTC", "0001-01-01"),
        ("1883-11-18T16:59:59Z", "hour", "America/New_York", "1883-11-18T16:56:02.000000Z"),
        ("2024-06-01T00:29:00Z", "hour", "Asia/Kolkata", "2024-05-31T23:30:00.000000Z"),
        ("2024-08-15T12:00:00Z", "quarter", "UTC", "2024-07-01"),
        ("2024-12-31T12:00:00Z", "year", "Asia/Tokyo", "2024-01-01"),
        ("2025-01-01T12:00:00Z", "week", "UTC", "2024-12-30"),
        (5, "day", "UTC", None),
        (True, "day", "UTC", None),
        ({}, "day", "UTC", None),
    ],
)
def test_the_period_of_a_text(text: Any, unit: str, zone: str, expected: str | None) -> None:
    """A date, or an RFC 3339 date-time with an offset; anything else has no bucket."""
    assert make_bucket(AT, unit, zone).of(text) == expected


def test_ranges_of_numbers_are_exact() -> None:
    """The greatest multiple of the width that is not above the number, by exact arithmetic."""
    rng = random.Random(7)
    for _ in range(2_000):
        number = rng.choice(
            (rng.uniform(-1e3, 1e3), rng.randint(-(2**63), 2**63 - 1), rng.uniform(-1e18, 1e18))
        )
        width = rng.choice((1, 2, 3, 10, 1_000, 2**40, 2**70))
        lower = make_bucket(AT, width, None).of(number)
        exact = Fraction(number) // width * width
        assert lower == (exact if -(2**63) <= exact < 2**63 else float(exact))
        assert isinstance(lower, int) is (-(2**63) <= exact < 2**63)


def test_the_percent_is_its_shortest_decimal_text() -> None:
    """⌈p·n/100⌉ with 0.1 as a tenth, not as the double next to it."""
    rng = random.Random(8)
    for _ in range(500):
        numbers = [rng.randint(-5, 5) for _ in range(rng.randint(1, 40))]
        percent = rng.choice((0.1, 7, 33.3, 50, 58, 99.9, 100, rng.uniform(0.0001, 100)))
        [measure] = measures({"p": ("percentile", "n", percent)})
        counts = {n: numbers.count(n) for n in numbers}
        rank = -(-Fraction(Decimal(repr(percent))) * len(numbers) // 100)

        assert nearest_rank(counts, measure.percent or (0, 1)) == sorted(numbers)[int(rank) - 1]


@pytest.mark.asyncio
async def test_what_is_held_client_side_is_bounded() -> None:
    """Beyond `sort_cap` values an aggregate is refused, and never ends in a full memory."""
    async with await AsyncDatabase.open("sqlite://") as db:
        await db.create_batch([{"n": n, "g": n % 2} for n in range(100)])
        plan = next(layer for layer in db._session.stack.layers if isinstance(layer, Plan))
        plan._sort_cap = 50

        assert await db.aggregate(d=("count_distinct", "n")) == [{"d": 100}], "the store groups"
        with pytest.raises(UnsupportedError, match="sort_cap=50"):
            await db.aggregate(p=("percentile", "n", 50))
        assert await db.aggregate(field("n") < 50, p=("percentile", "n", 50)) == [{"p": 24}]


@pytest.mark.asyncio
async def test_explain_says_where_an_aggregate_is_computed() -> None:
    """SQLite groups by buckets and counts distinct values; percentiles are computed client-side."""
    async with await AsyncDatabase.open("sqlite://") as db:
        native = await db.explain(by=field("at").by("day"), n="count")
        distinct = await db.explain(by="g", d=("count_distinct", "n"))
        client = await db.explain(by="g", p=("percentile", "n", 50), n="count")
        refused = db.options(policy=Policy(residual="refuse"))

        assert (native.aggregate, native.exact) == ("in the store", True)
        assert distinct.aggregate == "in the store"
        assert client.aggregate == "client-side: the store cannot compute p exactly"
        assert not client.exact
        assert "aggregate: client-side" in str(client)
        with pytest.raises(UnsupportedError):
            await refused.aggregate(p=("percentile", "n", 50))
        assert await refused.aggregate(d=("count_distinct", "n")) == [{"d": 0}]


def test_an_order_by_what_is_no_column_names_the_nearest() -> None:
    """The sort of an aggregate's query is by columns, not by fields."""
    from isthmus._query.columns import check_first

    with pytest.raises(QueryError, match=r"'coutn' is none.*count"):
        check_first(Query().sort("coutn"), ["count", "city"])
    assert Measure("n", Function.COUNT).percent is None
    assert isinstance(AT, Path)
