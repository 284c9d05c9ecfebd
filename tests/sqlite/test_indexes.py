"""Declared indexes: used for filters and sorts, shown by explain, usable by any other program."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from isthmus._core.executor import After, AggregateRequest, Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE, Function, Measure, Predicate, SortKey
from isthmus._query.field import field
from isthmus._value import replace
from isthmus.backends.sqlite import plugin
from isthmus.backends.sqlite.config import SQLiteConfig
from isthmus.errors import ConfigError
from tests.sqlite.conftest import Opener

pytestmark = pytest.mark.backend("sqlite")
R = "records"


def _sort(name: str, *, descending: bool = False) -> tuple[SortKey, ...]:
    return (SortKey(field(name).path, descending),)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "where",
    [
        field("age") == 5,
        field("age") == "x",
        field("age") >= 95,
        field("age").between(1, 2),
        field("age").in_([1, "a", True]),
        field("age").starts_with("ab"),
        field("age").like("ab%c"),
        field("age").is_null(),
        (field("age") == 5) & (field("name") != "x"),
        (field("age") == 5) | (field("city.name") == "Rome"),
    ],
    ids=str,
)
async def test_a_filter_on_an_indexed_field_searches_and_never_scans(
    opened: Opener, where: Predicate
) -> None:
    """Each arm of the query enters an index; explain names it."""
    backend = await opened(indexes=["age", "city.name"])

    plan = await backend.explain(R, PageRequest(where, (), 10_000))

    assert plan.index == "records.age"
    assert not [step for step in plan.details["plan"] if step.startswith("SCAN records")]


@pytest.mark.asyncio
async def test_a_stream_goes_on_by_id_without_an_index(opened: Opener) -> None:
    """With one, each page would scan and sort the whole range; its first page takes it."""
    backend = await opened(indexes=["age"])
    first = PageRequest(field("age") >= 5, None, 100)

    assert (await backend.explain(R, first)).index == "records.age"
    assert (await backend.explain(R, replace(first, after=After(("x",))))).index == "id"


@pytest.mark.asyncio
@pytest.mark.parametrize("descending", [False, True])
async def test_a_sort_on_an_indexed_field_reads_a_page_and_not_the_table(
    opened: Opener, descending: bool
) -> None:
    """Of 20,000 records with few distinct values each page touches some; all pages are in order."""
    backend = await opened(indexes=["age"])
    changes = [Mutation(f"{n:05}", {"age": n % 7_000 if n % 50 else [n]}) for n in range(20_000)]
    await backend.write(R, WriteKind.CREATE, changes, atomic=True)
    order = _sort("age", descending=descending)

    plan = await backend.explain(R, PageRequest(TRUE, order, 20))
    page = await backend.fetch(R, PageRequest(TRUE, order, 20))

    assert plan.index == "records.age"
    assert not [step for step in plan.details["plan"] if step.startswith("SCAN records")]
    ages = [record.data["age"] for record in page.records]
    plain = [age[0] if isinstance(age, list) else age for age in ages]
    assert plain == sorted(plain, reverse=descending)


@pytest.mark.asyncio
async def test_other_programs_write_to_a_table_with_indexes(opened: Opener, tmp_path: Path) -> None:
    """The expressions use built-in functions only, so a plain connection keeps the indexes right."""
    backend = await opened(indexes=["age", "_metadata.source"])
    other = sqlite3.connect(tmp_path / "d.db")
    other.execute("INSERT INTO records VALUES ('a', '{\"age\": 7}', '{\"source\": \"x\"}', 1, 1, 1)")
    other.commit()

    found = await backend.fetch(
        R, PageRequest((field("age") == 7) & (field("_metadata.source") == "x"), (), 5)
    )

    assert [record.id for record in found.records] == ["a"]
    assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()


@pytest.mark.asyncio
async def test_an_index_never_refuses_a_record(opened: Opener) -> None:
    """Long texts, lists and objects where a number was expected."""
    backend = await opened(indexes=["v"])
    values: list[Any] = ["漢" * 300_000, [1, [2]], {"a": 1}, None, True, 2**63 - 1, 1e300, ""]

    await backend.write(
        R, WriteKind.CREATE, [Mutation(f"{n}", {"v": v}) for n, v in enumerate(values)], atomic=True
    )

    for n, value in enumerate(values):
        if isinstance(value, str | int | float):
            found = await backend.fetch(R, PageRequest(field("v") == value, (), 5))
            assert f"{n}" in [record.id for record in found.records]


@pytest.mark.asyncio
async def test_an_index_that_is_declared_later_is_made_then(opened: Opener) -> None:
    """On the records that are there; a handle without the declaration uses it too."""
    backend = await opened()
    await backend.write(R, WriteKind.CREATE, [Mutation(f"{n}", {"age": n}) for n in range(100)], atomic=True)
    assert (await backend.explain(R, PageRequest(field("age") == 5, (), 9))).index != "records.age"

    await opened(indexes=["age"])

    assert (await backend.explain(R, PageRequest(field("age") == 5, (), 9))).index == "records.age"
    assert (await backend.count(R, field("age") < 5)).count == 5


def test_a_field_that_cannot_have_an_index_is_refused() -> None:
    """SQLite has no JSON path for a key with a quote; attributes are no JSON at all."""
    for name in ('a"b', "_version", "a..b", "_metadata"):
        with pytest.raises(ConfigError, match="index"):
            plugin.build(SQLiteConfig.load({"indexes": [name]}))


@pytest.mark.asyncio
async def test_sums_are_exact_beyond_64_bits_and_floats_do_not_cancel(opened: Opener) -> None:
    """SQLite's own sum() raises for the first and gives 0 for the second."""
    backend = await opened()
    big = 2**63 - 1
    numbers = [big, big, -3, 2**53 + 1, -(2**63)]
    floats = [1e16, 1.0, -1e16, 0.1]
    await backend.write(
        R, WriteKind.CREATE, [Mutation(f"i{n}", {"i": v}) for n, v in enumerate(numbers)], atomic=True
    )
    await backend.write(
        R, WriteKind.CREATE, [Mutation(f"f{n}", {"f": v}) for n, v in enumerate(floats)], atomic=True
    )
    measures = tuple(
        Measure(f"{function.value}-{name}", function, field(name).path)
        for name in "if"
        for function in (Function.SUM, Function.AVG)
    )

    answer = await backend.aggregate(R, AggregateRequest(TRUE, measures))

    ((key, row),) = answer.groups.rows(())
    assert key == ()
    assert row == [sum(numbers), sum(numbers) / 5, 1.1, 1.1 / 4]


@pytest.mark.asyncio
async def test_a_sum_takes_every_row_with_a_list(opened: Opener) -> None:
    """They are read in batches: as many as fill two, and one more."""
    backend = await opened()
    request = AggregateRequest(TRUE, (Measure("sum", Function.SUM, field("n").path),))
    rows = [Mutation(f"{n:05}", {"n": [n]}) for n in range(2_001)]
    for some, total in ((rows[:2_000], 1_999_000), (rows[2_000:], 2_001_000)):
        await backend.write(R, WriteKind.CREATE, some, atomic=True)
        ((_, row),) = (await backend.aggregate(R, request)).groups.rows(())
        assert row == [total]


def test_urls_and_other_names_lead_to_the_same_config() -> None:
    """Relative with three slashes, absolute with four, memory with none."""

    def path(given: dict[str, Any]) -> str:
        return SQLiteConfig.load(given, environ={}).path

    assert path({"url": "sqlite:///a%20b.db"}) == "a b.db"
    assert path({"url": "sqlite:////tmp/a.db"}) == "/tmp/a.db"
    assert path({"url": "sqlite://"}) == path({"url": "sqlite:///:memory:"}) == path({}) == ":memory:"
    assert path({"database": "x"}) == path({"file": Path("x")}) == path({"path": "x"}) == "x"
    config = SQLiteConfig.load(
        {"url": "sqlite:///x?pool.readers=2&busy_timeout=1.5&synchronous=NORMAL&indexes=age"}, environ={}
    )
    assert (config.pool.readers, config.busy_timeout, config.synchronous) == (2, 1.5, "normal")
    assert config.indexes_of("records") == ("age",)
    for bad in ({"url": "sqlite://host/x"}, {"pool": {"readers": 0}}, {"synchronous": "no"}, {"pth": 1}):
        with pytest.raises(ConfigError):
            SQLiteConfig.load(bad, environ={})


@pytest.mark.asyncio
async def test_a_dropped_collection_leaves_nothing_and_can_be_made_anew(
    opened: Opener, tmp_path: Path
) -> None:
    """Its table, its indexes and its entry are gone; a table that is not ours stays."""
    backend = await opened(indexes=["age"])
    await backend.write(R, WriteKind.CREATE, [Mutation("a", {"age": 1})], atomic=True)
    outside = sqlite3.connect(tmp_path / "d.db")
    outside.execute("CREATE TABLE theirs (n)")
    outside.commit()

    for name in (R, R, "theirs"):
        await backend.drop(name)

    assert await backend.collections() == []
    assert {name for (name,) in outside.execute("SELECT tbl_name FROM sqlite_master")} == {
        "isthmus_collections",
        "theirs",
    }
    outside.close()
    assert (await backend.fetch(R, PageRequest(TRUE, (), 10))).records == []
    await backend.write(R, WriteKind.CREATE, [Mutation("b", {"age": 1})], atomic=True)
    assert (await backend.explain(R, PageRequest(field("age") == 5, (), 10))).index == "records.age"
