"""Parquet and Arrow files, as pyarrow, pandas, Polars and DuckDB write them."""

from __future__ import annotations

import datetime as dt
import decimal
import random
import re
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus import AsyncDatabase, InvalidRecordError, Query, field
from isthmus.backends.files.formats import arrow_file
from tests.files.folder import all_records, opened, rows, write

pytestmark = [pytest.mark.backend("files"), pytest.mark.asyncio]

AT = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, dt.UTC)
TEXT = "2026-01-02T03:04:05.678901Z"

COLUMNS: dict[str, tuple[pa.Array, list[Any]]] = {
    "int8": (pa.array([1, None, -5], pa.int8()), [1, None, -5]),
    "int64": (pa.array([2**63 - 1, 2**53 + 1, -(2**63)]), [2**63 - 1, 2**53 + 1, -(2**63)]),
    "uint64": (pa.array([2**63 - 1, 1, None], pa.uint64()), [2**63 - 1, 1, None]),
    "float": (pa.array([1.5, -0.0, 1e300]), [1.5, 0.0, 1e300]),
    "wide float": (pa.array([2.0**53, None, 1.0]), [2**53, None, 1.0]),
    "float32": (pa.array([0.5, 1.0, 2.0], pa.float32()), [0.5, 1.0, 2.0]),
    "bool": (pa.array([True, False, None]), [True, False, None]),
    "string": (pa.array(["a", None, "é"]), ["a", None, "é"]),
    "large": (pa.array(["a", None, "é"], pa.large_string()), ["a", None, "é"]),
    "dictionary": (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
    "binary": (pa.array([b"\0\xff", None, b""]), ["AP8=", None, ""]),
    "date": (pa.array([dt.date(2026, 1, 2), None, dt.date(1, 1, 1)]), ["2026-01-02", None, "0001-01-01"]),
    "time": (pa.array([dt.time(1, 2, 3), None, dt.time(0)], pa.time64("us")), ["01:02:03", None, "00:00:00"]),
    "at us": (pa.array([AT, None, AT], pa.timestamp("us", "UTC")), [TEXT, None, TEXT]),
    "at zone": (pa.array([AT, None, AT], pa.timestamp("us", "Europe/Oslo")), [TEXT, None, TEXT]),
    "at ns": (pa.array([AT, None, AT], pa.timestamp("ns", "UTC")), [TEXT, None, TEXT]),
    "at s": (pa.array([0, None, -1], pa.timestamp("s", "UTC")),
             ["1970-01-01T00:00:00.000000Z", None, "1969-12-31T23:59:59.000000Z"]),
    "decimal": (pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("7.00")]), [1.1, None, 7]),
    "null": (pa.nulls(3), [None, None, None]),
    "list": (pa.array([[1, None], [], None]), [[1, None], [], None]),
    "fixed": (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)), [[1, 2], None, [3, 4]]),
    "struct": (pa.array([{"a": 1, "b": {"c": ["x"]}}, None, {"a": None, "b": None}]),
               [{"a": 1, "b": {"c": ["x"]}}, None, {"a": None, "b": None}]),
    "map": (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())), [{"k": 1}, None, {}]),
    "list of structs": (pa.array([[{"at": AT}], [], None]), [[{"at": TEXT}], [], None]),
}  # fmt: skip


@pytest.mark.parametrize("format", ["parquet", "arrow", "stream"])
async def test_values_have_one_canonical_form(tmp_path: Path, format: str) -> None:
    """Of every type that has one; nulls are null."""
    table = pa.table({name: column for name, (column, _) in COLUMNS.items()})
    if format == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        opening = pa.ipc.new_file if format == "arrow" else pa.ipc.new_stream
        with opening(str(tmp_path / "a.arrow"), table.schema) as writer:
            writer.write_table(table)

    found = await rows(tmp_path)
    for name, (_, expected) in COLUMNS.items():
        values = [row[name] for row in found]
        assert values == expected, name
        assert [type(value) for value in values] == [type(value) for value in expected], name


REFUSED: dict[str, tuple[pa.Array, str]] = {
    "nan": (pa.array([1.0, float("nan")]), "nan is not a finite number"),
    "uint64": (pa.array([1, 2**63], pa.uint64()), "an integer beyond 64 bits"),
    "naive": (pa.array([None, AT.replace(tzinfo=None)]), "a time without a zone; set zone="),
    "ns": (pa.array([0, 1], pa.timestamp("ns", "UTC")), "a fraction below a microsecond; round=True"),
    "late": (pa.array([0, 2**60], pa.timestamp("ms", "UTC")), "outside the years 1 to 9999"),
    "zero": (pa.array(["a", "b\0"]), r"U\+0000"),
    "decimal": (
        pa.array([decimal.Decimal("0.1"), decimal.Decimal("0.1234567890123456789")]),
        "no exact JSON",
    ),
    "duration": (pa.array([None, 1], pa.duration("s")), "has no JSON form"),
    "map": (pa.array([[], [(1, 1)]], pa.map_(pa.int64(), pa.int64())), "keys are not text"),
    "nested": (pa.array([[{"x": 1.0}], [{"x": float("inf")}]]), "inf is not a finite number"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_value_without_one_refuses_its_row(tmp_path: Path, name: str) -> None:
    """The row and column are named; conditions take it as no value."""
    column, message = REFUSED[name]
    pq.write_table(pa.table({"v": column, "n": [1, 2]}), tmp_path / "a.parquet")

    async with opened(tmp_path) as db:
        with pytest.raises(InvalidRecordError, match=rf"a\.parquet, row 2: column 'v': .*{message}"):
            await db.search()
        assert await db.count(~field("v").exists() & (field("n") == 2)) == 1
        assert len(await db.search(field("n") == 1)) == 1
    assert len(await rows(tmp_path, on_invalid="skip")) == 1


async def test_options_read_what_is_refused_otherwise(tmp_path: Path) -> None:
    """A zone for times without one, cut fractions, columns as text."""
    local = dt.datetime(2026, 7, 1, 12)
    table = pa.table(
        {
            "at": pa.array([local, dt.datetime(2026, 3, 29, 2, 30)], pa.timestamp("us")),
            "ns": pa.array([1_999, -1], pa.timestamp("ns", "UTC")),
            "d": [decimal.Decimal("0.1234567890123456789"), None],
            "n": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=False)

    settings: dict[str, Any] = {"round": True, "types": {"d": "text", "n": "text"}, "on_invalid": "skip"}
    assert await rows(tmp_path, zone="Europe/Oslo", **settings) == [
        {
            "at": "2026-07-01T10:00:00.000000Z",
            "ns": "1970-01-01T00:00:00.000001Z",
            "d": "0.1234567890123456789",
            "n": "1",
        }
    ]
    found = await rows(tmp_path, Query().filter("n", "=", "2").select("ns", "at"), zone="UTC", **settings)
    assert found == [{"at": "2026-03-29T02:30:00.000000Z", "ns": "1969-12-31T23:59:59.999999Z"}]


async def test_a_local_time_that_is_two_instants_is_refused(tmp_path: Path) -> None:
    """The message names both; the times around it are read, and conditions take it as no value."""
    hours = [dt.datetime(2025, 10, 26, 1, 59, 59), dt.datetime(2025, 10, 26, 2), dt.datetime(2025, 10, 26, 3)]
    late = [
        dt.datetime(2025, 10, 26, 2, 59, 59, 999_000),
        dt.datetime(9999, 12, 31, 23),
        dt.datetime(1, 1, 1, 12),
    ]
    table = pa.table({"at": pa.array(hours + late, pa.timestamp("ms")), "n": range(6)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    settings = {"zone": "Europe/Oslo", "on_invalid": "skip"}

    kept = {
        0: "2025-10-25T23:59:59.000000Z",
        2: "2025-10-26T02:00:00.000000Z",
        4: "9999-12-31T22:00:00.000000Z",
        5: "0001-01-01T11:17:00.000000Z",
    }
    assert {row["n"]: row["at"] for row in await rows(tmp_path, **settings)} == kept
    message = (
        "a.parquet, row 2: column 'at': 2025-10-26 02:00:00 is two instants in Europe/Oslo,"
        " 2025-10-26T00:00:00.000000Z and 2025-10-26T01:00:00.000000Z: clocks were put back"
    )
    async with opened(tmp_path, zone="Europe/Oslo") as db:
        with pytest.raises(InvalidRecordError, match=re.escape(message)):
            await db.search()
        assert await db.count(~field("at").exists()) == 2
        first = dt.datetime(2025, 10, 26, tzinfo=dt.UTC)
        assert await db.count((field("at") >= first) & (field("at") < first + dt.timedelta(hours=2))) == 0


async def test_files_that_other_programs_wrote(tmp_path: Path) -> None:
    """pandas, Polars and DuckDB; int96 too."""
    frame = pandas.DataFrame({"n": [1, 2], "t": ["a", None], "at": pandas.to_datetime([AT, AT])})
    frame.to_parquet(tmp_path / "a.parquet")
    polars.DataFrame({"n": [3], "t": ["b"], "tags": [["x", "y"]]}).write_parquet(tmp_path / "b.parquet")
    polars.DataFrame({"n": [4], "t": ["c"]}).write_ipc(tmp_path / "c.arrow")
    file = tmp_path / "d.parquet"
    duckdb.sql("SELECT 5::BIGINT n, {'a': 1} s, MAP {'k': 2} m, uuid() u, 1.5::DECIMAL(9,2) d").write_parquet(
        str(file)
    )
    pq.write_table(
        pa.table({"n": [6], "at": [AT]}), tmp_path / "e.parquet", use_deprecated_int96_timestamps=True
    )
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "f.parquet")

    async with opened(tmp_path, zone="UTC") as db:
        found = await all_records(db)
        assert [record["n"] for record in found] == [1, 2, 3, 4, 5, 6]
        assert found[0]["at"] == found[5]["at"] == TEXT
        assert found[1]["t"] is None
        assert found[2]["tags"] == ["x", "y"]
        assert found[4]["s"] == {"a": 1}
        assert found[4]["m"] == {"k": 2}
        assert uuid.UUID(found[4]["u"])
        assert found[4]["d"] == 1.5
        assert await db.count() == 6
        assert await db.count(field("tags") == "y") == 1
        assert await db.count(field("s.a") == 1) == 1
        assert await db.aggregate(by="t", n=("sum", "n")) == [
            {"t": "a", "n": 1}, {"t": "b", "n": 3}, {"t": "c", "n": 4}, {"t": None, "n": 13},
        ]  # fmt: skip


async def test_categories_and_views_that_polars_writes(tmp_path: Path) -> None:
    """Arrow cannot take rows of views; the matching ones are read nevertheless."""
    frame = polars.DataFrame(
        {
            "c": polars.Series(["x", "y", "x"], dtype=polars.Categorical),
            "s": ["a", "a text of more than twelve bytes", None],
            "l": [["q"], ["a text of more than twelve bytes", None], None],
        }
    )
    frame.write_ipc(tmp_path / "a.arrow")

    async with opened(tmp_path) as db:
        assert [record["l"] for record in await db.search(field("c") == "x")] == [["q"], None]
        assert [record["c"] for record in await db.search(field("s").starts_with("a"))] == ["x", "y"]
        assert await db.aggregate(by="c", n="count", last=("max", "s")) == [
            {"c": "x", "n": 2, "last": "a"},
            {"c": "y", "n": 1, "last": "a text of more than twelve bytes"},
        ]


async def test_row_groups_that_cannot_match_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their statistics; and a page continues in its row group."""
    table = pa.table({"n": list(range(10_000)), "t": [f"k{n:05}" for n in range(10_000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1_000)
    read: list[int] = []
    original = arrow_file._may_match

    def record_groups(group: Any, *arguments: Any) -> bool:
        result = original(group, *arguments)
        if result:
            read.append(group.num_rows)
        return result

    monkeypatch.setattr(arrow_file, "_may_match", record_groups)
    async with opened(tmp_path) as db:
        for condition, groups in (
            (field("n") == 4_321, 1),
            (field("n").between(999, 2_000), 3),
            (field("t") >= "k08999", 2),
            (field("t").in_(["k00001", "k09999"]), 2),
            ((field("n") > 10_000), 0),
            ((field("n") == "4321"), 0),
            (field("n") < 0.5, 1),
        ):
            read.clear()
            await db.count(condition)
            assert len(read) == groups, condition
        read.clear()
        assert (await db.require("a.parquet#000000009999"))["n"] == 9_999
        assert len(read) == 1


@pytest.mark.parametrize("damage", ["footer", "middle", "empty", "text"])
async def test_a_broken_file_is_one_error(tmp_path: Path, damage: str) -> None:
    """It names the file; skipped, the others are read."""
    pq.write_table(pa.table({"n": list(range(1_000)), "t": ["x" * 20] * 1_000}), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    if damage == "footer":
        content[-6] ^= 0xFF
    elif damage == "middle":
        content[10:200] = b"\xff" * 190
    write(
        tmp_path,
        {"a.parquet": {"empty": b"", "text": b"n,t\n1,2\n"}.get(damage, bytes(content)), "b.json": "{}"},
    )

    async with opened(tmp_path) as db:
        with pytest.raises(InvalidRecordError, match=r"a\.parquet, row \d+: it cannot be read"):
            await db.search()
    assert (await rows(tmp_path, on_invalid="skip"))[-1] == {}


async def test_equal_names_of_columns_refuse_the_file(tmp_path: Path) -> None:
    """They name themselves."""
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "a.parquet")

    with pytest.raises(InvalidRecordError, match="several columns have the name 'a'"):
        await rows(tmp_path)


async def test_conditions_on_columns_are_those_of_the_evaluator(
    tmp_path: Path, memory: AsyncDatabase
) -> None:
    """Masks of Arrow and memory agree on random flat columns and operands."""
    rng = random.Random(5)
    pools: dict[str, list[Any]] = {
        "i": [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), None],
        "f": [0.0, 0.5, -1.25, 2.0**53, 1e300, 1.0, None],
        "t": ["", "a", "A", "ab", "é", "z%", None],
        "b": [True, False, None],
    }
    data = [{name: rng.choice(pool) for name, pool in pools.items()} for _ in range(60)]
    schema = pa.schema([("i", pa.int64()), ("f", pa.float64()), ("t", pa.string()), ("b", pa.bool_())])
    pq.write_table(pa.Table.from_pylist(data, schema), tmp_path / "a.parquet", row_group_size=7)
    operands: list[Any] = [0, 1, 1.0, 0.5, -0.5, 2**53 + 1, 2.0**53, 2**63 - 1, 1e300, -1e300, 1e18]
    operands += ["", "a", "ab", "é", "zz", True, False]
    async with opened(tmp_path) as db:
        stored = await db.search()
        await memory.create_batch(stored)
        for _ in range(400):
            query = None
            for _ in range(rng.randint(1, 3)):
                one, other = rng.choice(operands), rng.choice(operands)
                name = field(rng.choice(["i", "f", "t", "b", "none"]))
                leaf = rng.choice(
                    [name == one, name != one, name.in_([one, other]), name.exists(), name.is_null()]
                    + [name.starts_with(str(one)), name.contains(str(one)), name.ends_with(str(one))]
                    + [test(one) for test in (name.__lt__, name.__le__, name.__gt__, name.__ge__)]
                    + ([name.between(one, other)] if type(one) is type(other) else [])
                )
                leaf = ~leaf if rng.random() < 0.3 else leaf
                query = leaf if query is None else (query & leaf if rng.random() < 0.5 else query | leaf)
            expected = [record.id for record in await memory.search(query)]
            assert [record.id for record in await db.search(query)] == expected, query
            assert await db.count(query) == len(expected), query
