"""Numbers: integers and floats compare exactly, also beyond 2^53."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus.testing.conformance._fixtures import find_ids, read_pages, store

# fmt: off
NUMBERS: tuple[int | float, ...] = (
    2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, -(2**53), -(2**53) - 1,
    2**63 - 1, 2**63 - 2, 2**62, -(2**63), -(2**63) + 1,
    2.0**63, 2.0**64, -(2.0**63) - 4096.0, 1e300, -1e300, 1e-320, 5e-324, 0, 0.5, 1, 1.0000000000000002, -1,
)
# fmt: on
BOUNDS: tuple[int | float, ...] = (
    *(2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63 - 2, -(2**63), 2.0**63, 2.0**53, 1e300, 1e308, -1e308),
    *(-(2.0**63), 0, 0.0, -0.0, 5e-324, 1e-320, 1, 1.0, 1.0000000000000002, 0.1),
)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.asyncio
async def test_numbers_compare_exactly(db: AsyncDatabase, bound: float) -> None:
    """Integers are not converted to floats: 2^53 + 1 is not 2^53 (§3)."""
    await store(db, {f"{n:03}": {"n": number} for n, number in enumerate(NUMBERS)})

    def ids_of(numbers: list[int | float]) -> set[str]:
        return {f"{NUMBERS.index(n):03}" for n in numbers}

    assert await find_ids(db, field("n") == bound) == ids_of([n for n in NUMBERS if n == bound])
    assert await find_ids(db, field("n") < bound) == ids_of([n for n in NUMBERS if n < bound])
    assert await find_ids(db, field("n") <= bound) == ids_of([n for n in NUMBERS if n <= bound])
    assert await find_ids(db, field("n") > bound) == ids_of([n for n in NUMBERS if n > bound])
    assert await find_ids(db, field("n") >= bound) == ids_of([n for n in NUMBERS if n >= bound])
    assert await find_ids(db, field("n").between(bound, 2**63 - 1)) == ids_of(
        [n for n in NUMBERS if bound <= n <= 2**63 - 1]
    )
    assert await find_ids(db, field("n").in_([bound, "1", True])) == ids_of(
        [n for n in NUMBERS if n == bound]
    )


@pytest.mark.asyncio
async def test_a_float_equals_the_64_bit_integer_of_its_value(db: AsyncDatabase) -> None:
    """Also the smallest integer as a float, whose shortest decimal form is a smaller number."""
    await store(db, {"least": {"n": -(2.0**63)}, "less": {"n": -(2.0**63) - 2048}, "large": {"n": 2.0**62}})

    assert await find_ids(db, field("n") == -(2**63)) == {"least"}
    assert await find_ids(db, field("n") < -(2**63)) == {"less"}
    assert await find_ids(db, field("n").in_([2**62, -(2**63)])) == {"least", "large"}


@pytest.mark.asyncio
async def test_numbers_sort_exactly(db: AsyncDatabase) -> None:
    """Integers and floats have one order, also across pages."""
    await store(db, {f"{n:03}": {"n": number} for n, number in enumerate(NUMBERS)})

    ascending = [r.data["n"] for r in await db.search(Query().sort("n"))]
    descending = [r.data["n"] for r in await db.search(Query().sort("n", "desc"))]

    assert ascending == sorted(NUMBERS)
    assert descending == sorted(NUMBERS, reverse=True)
    pages = await read_pages(db, Query().sort("n"), 3)
    assert [r.data["n"] for page in pages for r in page] == ascending


@pytest.mark.asyncio
async def test_equal_numbers_tie(db: AsyncDatabase) -> None:
    """1 and 1.0 are equal: the next sort key decides, then the id (§4)."""
    await store(
        db, {"a": {"n": 1.0, "m": 2}, "b": {"n": 1, "m": 1}, "c": {"n": 1.0, "m": 1}, "d": {"n": 0.5}}
    )

    assert [r.id for r in await db.search(Query().sort("n"))] == ["d", "a", "b", "c"]
    assert [r.id for r in await db.search(Query().sort("n").sort("m"))] == ["d", "b", "c", "a"]
    assert [r.id for r in await db.search(Query().sort("n", "desc").sort("m", "desc"))] == [
        "a",
        "b",
        "c",
        "d",
    ]
