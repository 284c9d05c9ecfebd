"""Declared indexes: used, exact beside misfits, and never a reason to refuse a record."""

from __future__ import annotations

import random
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus._core.executor import PageRequest
from isthmus.backends.postgres.sql.filter import Filter
from isthmus.backends.postgres.sql.statement import Parameters
from isthmus.backends.postgres.sql.table import IndexedPaths
from tests.postgres.databases import connected, opened
from tests.seeds import drawn

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

MISFITS = [
    {"age": "forty"},
    {"age": None},
    {},
    {"age": [99, 1]},
    {"age": []},
    {"age": [[98], ["x"]]},
    {"age": True},
    {"age": {"x": 1}},
    {"name": 7},
    {"name": ["user 3x", "b"]},
    {"tags": [["a"]]},
    {"address": [{"zip": "10005"}]},
    {"address": {"zip": ["10005", 5]}},
]

QUERIES = {
    "a range of numbers": field("age") >= 97,
    "equal numbers": field("age") == 42,
    "equal text": field("name") == "user 77",
    "a prefix": field("name").like("user 77%"),
    "starts_with": field("name").starts_with("user 1999"),
    "a range of texts": field("name") > "user 9990",
    "one of several types": field("age").in_([42, "forty", True]),
    "a bool": field("age") == True,  # noqa: E712
    "an object": field("age") == {"x": 1},
    "no value": field("age").is_null(),
    "a nested path": field("address.zip") == "10005",
    "an element of a list": (field("tags") == "t17"),
    "one of some elements": field("tags").in_(["t17", "t18"]),
    "an element or one of some": (field("tags") == "t17") | field("tags").in_(["t18", "t19"]),
    "a substring": field("email").contains("1999@"),
    "an end": field("email").ends_with("1999@x.org"),
}


async def _filled(db: AsyncDatabase, size: int = 20_000) -> None:
    await db.create_batch(
        [
            {
                "name": f"user {n}",
                "age": n % 100,
                "address": {"zip": f"{n}"},
                "tags": [f"t{n % 500}", f"t{n % 499}"],
                "email": f"u{n}@x.org",
            }
            for n in range(size)
        ]
    )
    await db.create_batch(MISFITS)
    async with connected() as outside:
        await outside.execute(f'ANALYZE "{db.collection_name}"')


async def _plan(db: AsyncDatabase, query: Query) -> str:
    request = PageRequest(query.where, query.order, query.count or 2**62)
    plan = await db._backend.explain(db.collection_name, request)
    return "\n".join(plan.details["plan"])


async def test_indexes_of_other_fields_add_nothing_to_a_condition_on_elements() -> None:
    """Only one that may find candidates does: of the list's field, or of every element."""
    leaf = field("items").any(field("sku") == "a")

    def compile_with(**indexed: Any) -> str:
        return Filter(Parameters(), IndexedPaths(**indexed)).condition(leaf)

    plain = compile_with()
    paths = {name: frozenset({field(name).path}) for name in ("other", "items.sku")}
    assert compile_with(elements=paths["other"]) == compile_with(numbers=paths["other"]) == plain
    assert plain.startswith("EXISTS (")
    assert compile_with(elements=paths["items.sku"]).startswith("(((t.data->'items'->'sku') @> ANY(")
    assert compile_with(every_element=True) != plain


async def test_filters_use_their_indexes_and_find_misfits_too() -> None:
    """With a few records of other types the answer is exact and there is no scan of the table."""
    async with (
        opened(
            indexes=["age", "name", "address.zip"],
            substring=["email"],
            gin=["tags"],
        ) as db,
        opened() as plain,
    ):
        await _filled(db)
        await _filled(plain)
        for name, where in QUERIES.items():
            found = [r.data for r in await db.search(where)]
            expected = [r.data for r in await plain.search(where)]
            assert len(found) == len(expected) > 0, name
            assert sorted(map(str, found)) == sorted(map(str, expected)), name
            plan = await _plan(db, Query(where=where))
            assert "Bitmap Heap Scan" in plan or "Index Scan using" in plan, f"{name}\n{plan}"
            assert "Seq Scan" not in plan, f"{name}\n{plan}"
            assert "_pkey" not in plan, f"{name}\n{plan}"


async def test_any_and_equality_use_an_index_of_elements() -> None:
    """Also on fields of objects in lists, where the index finds the candidates."""
    async with opened(gin=["items.sku", "tags"]) as db:
        await db.create_batch(
            [{"tags": [f"t{n}"], "items": [{"sku": f"s{n}", "n": 1}, {"sku": "x"}]} for n in range(3_000)]
        )
        async with connected() as outside:
            await outside.execute(f"ANALYZE {db.collection_name}")
        for where in (
            field("tags") == "t7",
            field("items").any((field("sku") == "s7") & (field("n") == 1)),
            field("items").any(field("sku").in_(["s7", "none"])),
        ):
            assert (await db.explain(where)).index is not None, where
            assert await db.count(where) == 1, where


async def test_equality_is_containment_where_no_index_serves() -> None:
    """That takes half of the time that extracting the value does; objects have to be equal, not contained."""
    async with opened() as db:
        for value in ("t", 1, True):
            assert "(t.data @> $1::jsonb OR" in str((await db.explain(field("x") == value)).native)
        assert "(t.data @> $1::jsonb OR" not in str((await db.explain(field("x") == {"x": 1})).native)


async def test_one_gin_index_serves_equality_on_every_field() -> None:
    """`gin=True` needs no names of fields."""
    async with opened(gin=True) as db:
        await _filled(db)
        for where in (
            field("age") == 42,
            field("tags") == "t17",
            field("address.zip") == "10005",
            field("name").in_(["user 3x", "user 4"]),
        ):
            plan = await _plan(db, Query(where=where))
            assert "_gin_" in plan, plan
            assert "Seq Scan" not in plan, plan
        assert await db.count(field("address.zip") == "10005") == 3


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_sort_and_limit_read_a_few_rows_of_each_type(direction: str) -> None:
    """The order is exact with misfits, and no plan sorts the table."""
    async with opened(indexes=["age", "name"]) as db, opened() as plain:
        await _filled(db)
        await _filled(plain)
        for name in ("age", "name"):
            query = Query().sort(name, direction).limit(20)
            plan = await _plan(db, query)
            assert "Seq Scan" not in plan, plan
            assert "_pkey" not in plan, plan
            sorted_here = [r.data for r in await plain.search(query)]
            assert [r.data for r in await db.search(query)] == sorted_here


async def test_four_thousand_random_characters_in_an_indexed_field_are_stored_and_found() -> None:
    """No index refuses a record, whatever is in the field; text beyond what it holds is compared in full."""
    seed = drawn()
    rng = random.Random(seed)

    def text(length: int) -> str:
        return "".join(
            chr(rng.choice((rng.randint(1, 0xD7FF), rng.randint(0xE000, 0x10FFFF)))) for _ in range(length)
        )

    async with opened(indexes=["v"], substring=["v"], gin=["v", "w"], prefix=["w"]) as db:
        start = text(4_000)
        texts = [start, start + "a", start + "b", text(4_000), text(9_000), "漢" * 9_000]
        await db.create_batch([{"v": t, "w": [t, 10**18, 1e300]} for t in texts])
        await db.create_batch([{"v": [t]} for t in texts])
        await db.create_batch([{"v": {t: t}} for t in texts])

        for t in texts:
            assert await db.count(field("v") == t) == 2
            assert await db.count(field("w") == t) == 1
            assert await db.count(field("v").in_([t, "nobody"])) == 2
        assert await db.count(field("v") > start) == 2 * sum(t > start for t in texts)
        assert await db.count(field("v").starts_with(start)) == 6
        assert await db.count(field("v").contains(start[1_000:1_010])) >= 6
        found = [r.data["v"] for r in await db.search(Query().sort("v").limit(6))]
        ordered = sorted(texts + texts)
        assert [v if isinstance(v, str) else v[0] for v in found] == ordered[:6]
