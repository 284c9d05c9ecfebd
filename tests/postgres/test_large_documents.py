"""Many conditions, sort keys or measures on a large document, whose copies live until the row is done."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, QueryError, Record, field
from isthmus._path import Path
from isthmus._query.ast import And, Not, Predicate
from isthmus._value import replace
from tests.hostile.probe import highest_memory
from tests.postgres.databases import connected, fresh_name, opened, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

_NAME = "large documents"
_SIZE = 2_000_000
# MB of one process, of which shared buffers are up to 64. One unpacked document and one copy of a value
# are 10; unpacked for each condition, sort key or measure it was above 600.
_MOST = 160


def _deep(make: Callable[[int], Predicate]) -> Predicate:
    tree = make(0)
    for number in range(1, 40):
        tree = ~(tree & make(number))
    return tree


_TREES = {
    "paths": _deep(lambda n: field(f"f{n}") > n),
    "one text": _deep(lambda n: field("text").like(f"%q{n}z%")),
    "one object": _deep(lambda n: field(f"object.f{n}") == "x"),
    "wide": Query().any_of(*(field(f"f{n}") != n for n in range(1_000))).where & (field("n") == 1),
    "any": field("list").any(_deep(lambda n: field("text").like(f"%q{n}z%"))),
}


@contextlib.asynccontextmanager
async def _large() -> AsyncIterator[AsyncDatabase]:
    """Open a handle on a document of three times the size, and a short one."""
    # Half of it compresses, so that it is stored outside of the row and has to be put together.
    text = "".join(f"{number * number:09} abc" for number in range(_SIZE // 13))
    async with opened(max_size=1, application_name=_NAME) as db:
        data = {"n": 1, "text": text, "object": {"text": text}, "list": [{"text": text}, {"text": "x"}]}
        await db.create_batch([Record(data, id="a"), Record({"n": 1, "text": "x"}, id="b")])
        yield db


async def _peak(db: AsyncDatabase, ask: Callable[[], Any]) -> tuple[Any, float]:
    """Return an answer, and how much memory a process of the server had at most for it, in MB."""
    async with connected(url()) as admin:
        await db.close()
        await db.connect()
        answer = await ask()
        pid = await admin.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = $1", _NAME)
        return answer, highest_memory(pid)


@pytest.mark.parametrize("tree", _TREES)
async def test_conditions(tree: str) -> None:
    """A document is unpacked once for all conditions of a query."""
    async with _large() as db:
        found, memory = await _peak(db, lambda: db.count(_TREES[tree]))

    assert found == {"paths": 2, "one text": 2, "one object": 2, "wide": 2, "any": 1}[tree]
    assert memory < _MOST


@pytest.mark.parametrize("tree", ["paths", "one text", "one object"])
async def test_conditions_on_a_column_of_json(tree: str) -> None:
    """A column of a native table is unpacked once too, and other columns are compared as before."""
    table = fresh_name()
    text = "".join(f"{number * number:09} abc" for number in range(_SIZE // 13))
    async with connected(url()) as owner:
        await owner.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, doc jsonb, tags text[])")
        await owner.execute(
            f"INSERT INTO {table} VALUES (1, jsonb_build_object('text', $1::text, 'object',"
            " jsonb_build_object('text', $1::text)), ARRAY['x']), (2, '{}', NULL)",
            text,
        )
        try:
            settings = {"table": table, "layout": "native", "max_size": 1, "application_name": _NAME}
            async with await AsyncDatabase.create("postgres", {"url": url(), **settings}) as db:
                query = (field("id") >= 1) & _below(_TREES[tree], "doc") & (field("tags") != "y")
                found, memory = await _peak(db, lambda: db.count(query))
        finally:
            await owner.execute(f"DROP TABLE {table}")

    assert found == {"paths": 2, "one text": 2, "one object": 2}[tree]
    assert memory < _MOST


def _below(predicate: Predicate, column: str) -> Predicate:
    """Return the predicate on a record that is the value of a column."""
    match predicate:
        case And(terms):
            return And(tuple(_below(term, column) for term in terms))
        case Not(term):
            return Not(_below(term, column))
        case leaf:
            return replace(leaf, path=Path(leaf.path.root, (column, *leaf.path.keys)))


_LISTS = {
    "between": [~field("xs").between(-2 - n, -1 - n) for n in range(50)],
    "text": [~field("xs").starts_with(f"q{n}") for n in range(50)],
    "equal": [~Query().any_of(*(field("xs") == -1 - n for n in range(50))).where],
}


@pytest.mark.parametrize("conditions", _LISTS)
async def test_conditions_on_a_long_list(conditions: str) -> None:
    """The values of a list are read once for all conditions on them, and freed one by one."""
    async with opened(max_size=1, application_name=_NAME) as db:
        await db.create({"xs": [number / 7 for number in range(60_000)]})
        found, memory = await _peak(db, lambda: db.count(And(tuple(_LISTS[conditions]))))

    assert found == 1
    assert memory < _MOST


async def test_sort_keys() -> None:
    """A document is unpacked once for all sort keys."""
    query = Query().limit(1)
    for number in range(40):
        query = query.sort(f"f{number}" if number % 2 else f"object.f{number}")

    async with _large() as db:
        found, memory = await _peak(db, lambda: db.search(query.sort("n").select("n")))

    assert [record.id for record in found] == ["a"]
    assert memory < _MOST


async def test_measures() -> None:
    """A document is unpacked once for all measures, in a row with a list on one of the paths too."""
    columns = {f"m{number}": ("max", f"f{number}") for number in range(40)} | {"l": ("count", "list")}

    async with _large() as db:
        rows, memory = await _peak(db, lambda: db.aggregate(by=["n", "g"], **columns))

    assert [(row["n"], row["l"], row["m7"]) for row in rows] == [(1, 2, None)]
    assert memory < _MOST


async def test_numbers_of_sort_keys_and_columns() -> None:
    """What no result of the server has room for is refused before any I/O."""
    query = Query()
    for number in range(100):
        query = query.sort(f"f{number}")
    with pytest.raises(QueryError, match="at most 100 sort keys"):
        query.sort("one more")
    async with opened() as db:
        assert await db.search(query) == []
        columns = {f"m{number}": ("max", f"f{number}") for number in range(60)}
        groups = [f"g{number}" for number in range(40)]
        assert await db.aggregate(by=groups, **columns) == []
        with pytest.raises(QueryError, match="at most 100 columns"):
            await db.aggregate(by=groups, n="count", **columns)
