"""Conditions on whole columns are those of the evaluator, for every type and every odd value."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import random
from typing import Any

import pyarrow as pa
import pytest

from isthmus import field
from isthmus._query.aggregate import Groups
from isthmus._query.ast import TRUE, Function, Measure, Predicate, leaves
from isthmus._query.bucket import Bucket, GroupKey, path_of
from isthmus._query.field import as_path
from isthmus._query.normalize import normalize
from isthmus._record import json_text_of
from isthmus._values import encode
from isthmus.backends.files.catalog import File
from isthmus.backends.files.formats import arrow_chunk
from isthmus.backends.files.formats.arrow_columns import NotCompiledError
from isthmus.backends.files.formats.arrow_values import Reading
from isthmus.backends.files.formats.csv_blocks import CellDecoding
from isthmus.backends.files.records import RecordMaker
from isthmus.errors import InvalidRecordError
from tests.breadth import size

pytestmark = pytest.mark.backend("files")

DAY = 86_400
POOLS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i8": (pa.int8(), [0, 1, -128, 127, None]),
    "i64": (pa.int64(), [0, 1, 2**53 + 1, 2**63 - 1, -(2**63), None]),
    "u64": (pa.uint64(), [0, 1, 2**63 - 1, 2**63, 2**64 - 1, None]),
    "f64": (
        pa.float64(),
        [0.0, -0.0, 0.5, 2.0**53, 2.0**63, 1e300, float("nan"), float("inf"), -float("inf"), None],
    ),
    "f32": (pa.float32(), [0.0, 0.1, 0.5, 16777216.0, float("nan"), None]),
    "dec": (
        pa.decimal128(9, 2),
        [decimal.Decimal(n) / 100 for n in (0, 10, 150, -150, 999_999_999)] + [None],
    ),
    "big": (pa.decimal128(38, 20), [decimal.Decimal("0.1"), decimal.Decimal("0.12345678901234567891"), None]),
    "text": (pa.string(), ["", "a", "A", "ab", "é", "z%", "2026-01-02", None]),
    "view": (pa.string_view(), ["", "a", "a long text of more than twelve bytes", None]),
    "bool": (pa.bool_(), [True, False, None]),
    "date": (pa.date32(), [0, -719_162, -719_163, 2_932_896, 2_932_897, 20_455, None]),
    "s": (pa.timestamp("s", "UTC"), [0, -1, 20_455 * DAY, 253_402_300_799, 253_402_300_800, None]),
    "ms": (pa.timestamp("ms", "UTC"), [0, -1, 1_500, 20_455 * DAY * 1000, None]),
    "us": (pa.timestamp("us", "Europe/Oslo"), [0, -1, 20_455 * DAY * 10**6, 2**62, None]),
    "ns": (pa.timestamp("ns", "UTC"), [0, 1, -1, 1_000, 20_455 * DAY * 10**9, -(2**63) + 1, 2**63 - 1, None]),
    "local": (pa.timestamp("us"), [0, 20_455 * DAY * 10**6, None]),
    "null": (pa.null(), [None]),
    "views": (pa.list_(pa.string_view()), [["a", "b"], [], None]),
    "list": (pa.list_(pa.int64()), [[1, 2], [], None]),
}
TIMES = [
    "1970-01-01T00:00:00.000000Z",
    "1969-12-31T23:59:59.999999Z",
    "2026-01-02T00:00:00.000000Z",
    "1970-01-01",
]
OPERANDS: list[Any] = [
    *(0, 1, 1.0, 0.5, 0.1, 1.5, -1.5, 2**53 + 1, 2.0**53, 2**63 - 1, 2.0**63, 1e300, 9999999.99),
    *("", "a", "ab", "é", "zz", "2026-01-02", "2026-01-02T00", "1970", "0001-01-01", "9999-12-31", "1"),
    *(*TIMES, dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.UTC), True, False),
]


def random_batch(rng: random.Random, rows: int) -> pa.RecordBatch:
    """Return a batch of every type, some columns of it as dictionaries."""
    arrays = {}
    for name, (type_, pool) in POOLS.items():
        values = [rng.choice(pool) for _ in range(rows)]
        array = pa.array(values, pa.int64()).cast(pa.int64()) if pa.types.is_timestamp(type_) else None
        if array is not None:
            arrays[name] = array.view(type_)
        elif pa.types.is_date32(type_):
            arrays[name] = pa.array(values, pa.int32()).view(type_)
        else:
            arrays[name] = pa.array(values, type_)
        if not pa.types.is_nested(type_) and name != "null":
            arrays[f"d_{name}"] = arrays[name].dictionary_encode()
    return pa.record_batch(arrays)


def random_condition(rng: random.Random, names: list[str]) -> Any:
    """Return a condition of one to three leaves."""
    condition: Any = None
    for _ in range(rng.randint(1, 3)):
        name = field(rng.choice([*names, "none"]))
        one, other = rng.choice(OPERANDS), rng.choice(OPERANDS)
        text = str(one)
        leaf = rng.choice(
            [
                name == one,
                name != one,
                name.in_([one, other, rng.choice(OPERANDS)]),
                name.exists(),
                name.is_null(),
            ]
            + [name.starts_with(text), name.contains(text), name.ends_with(text)]
            + [name.like(f"{text[:3]}%"), name.ilike("%A_"), name.regex("^[0-9a]+")]
            + [test(one) for test in (name.__lt__, name.__le__, name.__gt__, name.__ge__)]
            + ([name.between(one, other)] if type(one) is type(other) else [])
        )
        leaf = ~leaf if rng.random() < 0.3 else leaf
        condition = (
            leaf if condition is None else (condition & leaf if rng.random() < 0.5 else condition | leaf)
        )
    return condition


def fail(error: InvalidRecordError) -> None:
    """Raise the error of a refused row."""
    raise error


@pytest.mark.parametrize("reading", [Reading(), Reading("UTC", round=True), Reading("Europe/Oslo")])
def test_masks_and_the_evaluator_find_the_same_rows(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random batches, parts of batches and conditions; values without a canonical form are none."""
    rng = random.Random(11)
    make = RecordMaker(File("a", 1, "1"), None, records=False)
    compiled = 0

    def refuse(where: Predicate, columns: Any) -> Any:
        raise NotCompiledError

    for _ in range(size(3, 60)):
        batch = random_batch(rng, 40)
        chunk = arrow_chunk.ArrowChunk(
            0, batch, frozenset(batch.schema.names), arrow_chunk.TypedDecoding(reading, frozenset())
        )
        chunk = chunk.cut(rng.randint(0, 5), rng.choice([None, 30]))
        for _ in range(40):
            where = normalize(random_condition(rng, batch.schema.names))
            mask, _ = chunk._split(where)
            compiled += mask is not None
            found = [*itertools.chain(*chunk.find_rows(where, make, fail))]
            count = chunk.count(where, make, fail)
            with monkeypatch.context() as patch:
                patch.setattr(arrow_chunk, "compile_mask", refuse)
                expected = [*itertools.chain(*chunk.find_rows(where, make, fail))]
            assert found == expected, where
            assert count == len(expected), where
    assert compiled > 50


def test_true_is_not_one_whatever_was_asked_before() -> None:
    """Ranges are kept by condition, and Python takes True for equal to 1."""
    batch = pa.record_batch({"d": pa.array([decimal.Decimal("1.00"), decimal.Decimal("2.50")])})
    chunk = arrow_chunk.ArrowChunk(
        0, batch, frozenset(["d"]), arrow_chunk.TypedDecoding(Reading(), frozenset())
    )
    make = RecordMaker(File("a", 1, "1"), None, records=False)

    for operand, count in ((1, 1), (True, 0), (1.0, 1), (2.5, 1)):
        assert chunk.count(normalize(field("d") == operand), make, fail) == count
        assert chunk.count(normalize(field("d").in_([operand, "x"])), make, fail) == count
        assert chunk.count(normalize(field("d") <= operand), make, fail) == (2 if operand == 2.5 else count)


def test_a_negative_zero_is_zero_in_a_list_of_values() -> None:
    """As it is for the comparisons."""
    batch = pa.record_batch({"x": [-0.0, 0.0, 1.0]})
    chunk = arrow_chunk.ArrowChunk(
        0, batch, frozenset(["x"]), arrow_chunk.TypedDecoding(Reading(), frozenset())
    )
    make = RecordMaker(File("a", 1, "1"), None, records=False)

    assert chunk.count(normalize(field("x").in_([0, 5])), make, fail) == 2


@pytest.mark.parametrize("reading", [Reading(), Reading("UTC", round=True)])
def test_records_over_texts_are_those_of_values(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Arrow writes as JSON reads back as the values, and is to the letter what a store writes."""
    rng = random.Random(13)
    make = RecordMaker(File("a", 1, "1"), None, records=False)
    over_texts = 0
    for _ in range(size(40, 1_000)):
        whole = random_batch(rng, rng.randint(1, 12))
        batch = whole.select(rng.sample(whole.schema.names, rng.randint(1, 3)))
        decoding = arrow_chunk.TypedDecoding(reading, frozenset())
        chunk = arrow_chunk.ArrowChunk(0, batch, frozenset(batch.schema.names), decoding)
        with monkeypatch.context() as patch:
            patch.setattr(arrow_chunk, "encode_batch", lambda batch, reading: None)
            expected = list(chunk.select(TRUE, make, lambda error: None))
        found = list(chunk.select(TRUE, make, lambda error: None))
        for record, same in zip(found, expected, strict=True):
            text = record.raw[0]
            over_texts += json_text_of(record) is not None
            assert text is None or text == encode(same.data)
            assert repr(record) == repr(same)
    assert over_texts > 50


def same_groups(one: Groups, other: Groups, by: list[GroupKey]) -> bool:
    """Return whether groups have the same keys and results, of the same types."""
    return repr(one.rows(by)) == repr(other.rows(by))


@pytest.mark.parametrize("kind", ["typed", "cells"])
def test_groups_of_columns_are_those_of_records(kind: str) -> None:
    """Counts, sums, ends, distinct values and percentiles, by columns and buckets, of parts of rows."""
    rng = random.Random(12)
    make = RecordMaker(File("a", 1, "1"), None, records=False)
    computed = 0
    for _ in range(size(3, 80)):
        batch = random_batch(rng, 30).drop_columns([n for n in POOLS if rng.random() < 0.2])
        decoding: Any = arrow_chunk.TypedDecoding(Reading("UTC", round=True), frozenset())
        if kind == "cells":
            cells = {
                "n": [rng.choice(["1", "2", "-3", "9007199254740993", ""]) for _ in range(30)],
                "x": [rng.choice(["1", "0.5", "-2.25", "", "1.0"]) for _ in range(30)],
                "t": [rng.choice(["a", "b", ""]) for _ in range(30)],
                "b": [rng.choice(["true", "false", ""]) for _ in range(30)],
            }
            batch = pa.record_batch({name: pa.array(values, pa.string()) for name, values in cells.items()})
            kinds: Any = {"n": "number", "x": "number", "t": "text", "b": "bool"}
            decoding = CellDecoding(kinds, {}, frozenset(rng.choice([["a"], []])))
        names = batch.schema.names
        chunk = arrow_chunk.ArrowChunk(0, batch, frozenset(names), decoding)
        for _ in range(40):
            measures = [
                Measure("m", function, as_path(rng.choice([*names, "none"])), (1, 2) if percent else None)
                for function in Function
                if not (percent := function is Function.PERCENTILE) or rng.random() < 0.5
            ] + [Measure("all", Function.COUNT)]
            keys = [as_path(rng.choice([*names, "none"])) for _ in range(rng.randint(0, 2))]
            by: list[GroupKey] = [
                rng.choice([key, Bucket(key, unit="month"), Bucket(key, width=2)]) for key in keys
            ]
            where = normalize(random_condition(rng, names)) if rng.random() < 0.5 else TRUE
            found, expected = Groups(measures), Groups(measures)
            if not chunk.aggregate(where, make, measures, by, found):
                assert found.rows([as_path("x")]) == []
                continue
            computed += 1
            columns = {path_of(key).keys[0] for key in by} | {m.path.keys[0] for m in measures if m.path}
            needed = {*columns, *(leaf.path.keys[0] for leaf in leaves(where))}
            part = batch.select([name for name in names if name in needed])
            rows = arrow_chunk.ArrowChunk(0, part, frozenset(names), decoding)
            for record in rows.select(where, make, fail, frozenset(columns)):
                expected.add_record(record, by)
            assert same_groups(found, expected, by), (measures, by, where)
    assert computed >= 4 * size(3, 80)
