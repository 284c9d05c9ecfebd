"""Declared columns: they make queries fast and change no answer, whatever records hold (§2, §3, §4, §7)."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus._columns import declare_columns, drop_columns, find_odd
from isthmus._core.columns import columns_of
from isthmus._path import parse_path
from isthmus._query.aggregate import Groups
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.columns import measures
from isthmus._query.evaluate import matches
from isthmus._query.order import sort_records
from isthmus.errors import ConfigError
from isthmus.testing.conformance._fixtures import requires, store

_COLUMNS = columns_of({"n": "number", "t": "text", "b": "bool", "a.x": "number", "a.t": "text"})
_RECORDS: dict[str, dict[str, Any]] = {
    "00": {"n": 1, "t": "x", "b": True, "a": {"x": 1, "t": "x"}},
    "01": {"n": 1.0, "t": "X", "b": False, "a": {"x": 2.5}},
    "02": {"n": 2**53 + 1, "t": "x" * 5_000, "a": {}},
    "03": {"n": 2**53, "t": "x" * 4_999 + "y", "a": 3},
    "04": {"n": -(2**63), "t": "", "b": None, "a": None},
    "05": {"n": 2**63 - 1, "t": "\u00e9", "a": {"x": None}},
    "06": {"n": 1e300, "t": "e\u0301"},
    "07": {"n": 1e-300, "t": "\U0001d11e"},
    "08": {"n": 0.1, "t": "\uff5e", "b": True},
    "09": {},
    "10": {"n": None, "t": None, "b": None},
    # From here on, something else than the columns can hold.
    "11": {"n": "1", "t": 1, "b": 1},
    "12": {"n": "007", "t": True, "b": "true"},
    "13": {"n": True, "t": {"x": 1}, "b": {}},
    "14": {"n": [1, 7, "x"], "t": ["x", 2], "b": [True, False]},
    "15": {"n": [], "t": [[["x"]]], "b": [None]},
    "16": {"a": [{"x": 1, "t": "x"}, {"x": [5]}]},
    "17": {"a": {"x": [[2]], "t": {}}},
    "18": {"n": 5, "t": "z", "a": {"x": "1"}},
}
_CONDITIONS: tuple[Predicate, ...] = (
    *(field(name) == value for name in ("n", "t", "b", "a.x") for value in (1, "x", True, "1", {}, {"x": 1})),
    *(field("n") == value for value in (2**53, 2**53 + 1, 2**63 - 1, -(2**63), 1e300, 0.1, [], [1, 7, "x"])),
    *(field(name) != value for name, value in (("n", 1), ("t", "x"), ("b", False), ("a.x", 2.5))),
    *(field(name) < value for name, value in (("n", 2), ("t", "x"), ("b", True), ("a.x", 2), ("n", "1"))),
    *(field(name) >= value for name, value in (("n", 2**53), ("t", "\u00e9"), ("b", True), ("a.x", 2))),
    field("n").between(1, 5),
    field("n").not_between(1, 5),
    field("t").between("X", "x"),
    field("n").in_([1, "x", 2**53, None]),
    field("t").in_(["x", "z", 1, {"x": 1}]),
    field("b").not_in([True, "x"]),
    *(field(name).exists() for name in ("n", "t", "b", "a.x", "a.t", "a")),
    *(field(name).is_null() for name in ("n", "t", "b", "a.x")),
    field("t").like("x%"),
    field("t").not_like("%x%"),
    field("t").ilike("X%"),
    field("t").regex("^x"),
    field("t").starts_with("x" * 200),
    field("t").ends_with("y"),
    field("t").contains("\u0301"),
    field("n").like("%"),
    field("a").any(field("x") == 1),
    ~field("t").any(field("x") == 1),
    (field("n") >= 1) & (field("t") == "x") & (field("b") == True),  # noqa: E712
    (field("n") == 1) | (field("t") == "z") | ~(field("a.x") > 1),
    ~((field("n") > 0) | field("other").exists()),
)


async def _fill(db: AsyncDatabase) -> list[Record]:
    """Declare columns on the empty collection, store the records, and return them as they were read back."""
    await declare_columns(db, _COLUMNS)
    await store(db, _RECORDS)
    records = await db.search()
    assert {record.id: record.data for record in records} == _RECORDS
    return records


@pytest.mark.asyncio
@requires("columns")
async def test_columns_change_no_condition(db: AsyncDatabase) -> None:
    """Each operator finds what it finds without columns, in rows that fit them and in those that do not."""
    records = await _fill(db)

    for condition in _CONDITIONS:
        wanted = [record.id for record in records if matches(condition, record)]
        assert [record.id for record in await db.search(condition)] == wanted, condition
        assert await db.count(condition) == len(wanted), condition


def _has_text(record: Record) -> bool:
    return matches(field("t").exists(), record)


@pytest.mark.asyncio
@requires("columns")
async def test_columns_change_no_order(db: AsyncDatabase) -> None:
    """Orders and pages by columns, in both directions, with and without conditions."""
    records = await _fill(db)

    for name in ("n", "t", "b", "a.x"):
        for direction in ("asc", "desc"):
            for nulls in ("first", "last"):
                for more in ((), ("t",), ("_id",)):
                    query = Query().sort(name, direction, nulls=nulls)
                    for key in more:
                        query = query.sort(key, "desc")
                    wanted = [record.id for record in sort_records(records, query.order)]
                    assert [r.id for r in await db.search(query.limit(100))] == wanted, query
                    page, seen = await db.page(query, size=3), []
                    while True:
                        seen += [record.id for record in page.records]
                        if page.cursor is None:
                            break
                        page = await db.page(query, size=3, cursor=page.cursor)
                    assert seen == wanted, query
                    some = Query(field("t").exists(), query.order).limit(5).offset(1)
                    texts = [record.id for record in sort_records(records, query.order) if _has_text(record)]
                    assert [record.id for record in await db.search(some)] == texts[1:6], some


@pytest.mark.asyncio
@requires("columns")
async def test_columns_change_no_aggregate(db: AsyncDatabase) -> None:
    """Counts, sums and extremes, in all and by groups of columns, other fields among them."""
    records = await _fill(db)
    asked: dict[str, Any] = {"rows": "count"}
    for name in ("n", "t", "b"):
        asked |= {f"{function}_{name}": (function, name) for function in ("count", "min", "max")}
    asked |= {"sum_x": ("sum", "a.x"), "sum_t": ("sum", "t"), "avg_n": ("avg", "n")}
    groups_of = ((), ("t",), ("b",), ("n", "b"), ("a.x",), ("b", "a"))

    # With count_distinct, a store may do nothing of it on columns.
    for by, measured in product(groups_of, (asked, {**asked, "distinct": ("count_distinct", "n")})):
        for condition in (TRUE, field("n") >= 1, field("t").exists(), field("n") > 1e301):
            groups = Groups(measures(measured))
            paths = tuple(map(parse_path, by))
            for record in records:
                if matches(condition, record):
                    groups.add_record(record, paths)
            wanted = [[*key, *row] for key, row in groups.rows(paths)]
            found = await db.aggregate(condition, by=by, **measured)
            assert [list(row.values()) for row in found] == wanted, (by, condition)


@pytest.mark.asyncio
@requires("columns")
async def test_columns_follow_each_write(db: AsyncDatabase) -> None:
    """A record that begins or ceases to fit is found by what it holds now, whichever method wrote it."""
    await declare_columns(db, _COLUMNS)
    a = await db.create({"n": 1})
    is_one, is_seven = field("n") == 1, field("n") == 7
    assert [await db.count(is_one), await db.count(is_seven)] == [1, 0]

    await db.update(a, {"n": [1, 7]})
    assert [await db.count(is_one), await db.count(is_seven)] == [1, 1]
    await db.replace(a, {"n": 7})
    assert [await db.count(is_one), await db.count(is_seven)] == [0, 1]
    await db.modify(a, field("n").inc(-6))
    assert [await db.count(is_one), await db.count(is_seven)] == [1, 0]
    await db.upsert(a, {"n": "7"})
    assert [await db.count(is_one), await db.count(is_seven)] == [0, 0]
    await db.create_batch([{"n": number % 10, "t": str(number)} for number in range(300)])
    assert [await db.count(is_one), await db.count(is_seven)] == [30, 30]
    assert await db.update_where(is_seven, field("n").set("seven")) == 30
    assert await db.delete_where((field("n") == "seven") & (field("t") >= "2")) == 19
    assert [await db.count(is_one), await db.count(field("n") == "seven")] == [30, 11]


@pytest.mark.asyncio
@requires("columns")
async def test_columns_are_added_and_dropped_with_records_there(db: AsyncDatabase) -> None:
    """The answers stay; the records that do not fit are counted; another kind is refused."""
    number, text = columns_of({"n": "number"}), columns_of({"n": "text"})
    with pytest.raises(ConfigError):
        await declare_columns(db, number)
        await declare_columns(db, text)
    await drop_columns(db, [parse_path("n")])
    await store(db, _RECORDS)

    found = await find_odd(db, _COLUMNS)
    assert found.records == len(_RECORDS)
    assert found.odd == {"n=number": 5, "t=text": 5, "b=bool": 5, "a.x=number": 3, "a.t=text": 2}
    for columns in (number, _COLUMNS[:2], _COLUMNS):
        await declare_columns(db, columns)
        await declare_columns(db, columns)
        assert await db.count(field("n") >= 1) == 8
        assert [r.id for r in await db.search(Query().sort("n").limit(2))] == ["13", "04"]
    await drop_columns(db, [column.path for column in _COLUMNS[:3]])
    assert await db.count(field("n") >= 1) == 8
    await drop_columns(db, [column.path for column in _COLUMNS])
    assert {record.id: record.data for record in await db.search()} == _RECORDS
