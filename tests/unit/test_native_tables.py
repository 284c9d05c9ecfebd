"""Tables that others made: values of columns, keys and leaves, without a store (meaning §8)."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from isthmus import field
from isthmus._core.executor import Mutation, WriteKind
from isthmus._query.ast import Leaf
from isthmus.backends._tables.binding import (
    bind_value,
)
from isthmus.backends._tables.column import Kind, Table, TableColumn
from isthmus.backends._tables.keys import check_key, id_of, key_of
from isthmus.backends._tables.leaves import EXISTS, NEVER, ColumnComparison, column_test
from isthmus.backends._tables.values import (
    NoCanonicalFormError,
    read_value,
)
from isthmus.backends._tables.writes import prepare_row
from isthmus.errors import InvalidRecordError

INTEGER = TableColumn("n", Kind.INTEGER, bits=32)
TEXT = TableColumn("name", Kind.TEXT, nullable=False)
MONEY = TableColumn("price", Kind.NUMERIC, precision=10, scale=2)
ONE = Table("one", (TableColumn("n", Kind.INTEGER), TEXT, MONEY), ("n",))
TWO = Table("two", (TableColumn("n", Kind.INTEGER), TEXT), ("n", "name"))


@pytest.mark.parametrize(
    ("column", "stored", "value"),
    [
        (INTEGER, 7, 7),
        (MONEY, Decimal("1.50"), 1.5),
        (MONEY, "3.00", 3),
        (TableColumn("x", Kind.NUMERIC, numeric="text"), Decimal("1.50"), "1.50"),
        (
            TableColumn("x", Kind.NUMERIC, numeric="float"),
            Decimal("0.1234567890123456789"),
            0.12345678901234568,
        ),
        (TableColumn("x", Kind.FLOAT), -0.0, 0.0),
        (TableColumn("x", Kind.FLOAT), 2.0**53, 2**53),
        (TableColumn("x", Kind.TEXT, padded=True), "a   ", "a"),
        (TableColumn("x", Kind.DATE), dt.date(31, 1, 2), "0031-01-02"),
        (TableColumn("x", Kind.TIMESTAMP), dt.datetime(31, 1, 2, 3), "0031-01-02T03:00:00.000000"),
        (
            TableColumn("x", Kind.TIMESTAMP, zone="Europe/Oslo"),
            dt.datetime(2024, 7, 1, 2),
            "2024-07-01T00:00:00.000000Z",
        ),
        (TableColumn("x", Kind.TIMESTAMPTZ), "2024-07-01 02:00:00+02", "2024-07-01T00:00:00.000000Z"),
        (TableColumn("x", Kind.BYTES), b"\x00\xff", "AP8="),
        (TableColumn("x", Kind.BYTES), "\\x00ff", "AP8="),
        (TableColumn("x", Kind.JSON), '{"a": [1, 1.5]}', {"a": [1, 1.5]}),
        (TableColumn("x", Kind.ARRAY, element=INTEGER), [[1, None]], [[1, None]]),
        (TableColumn("x", Kind.CELL), 1.5, 1.5),
    ],
)
def test_a_stored_value_has_one_canonical_form(column: TableColumn, stored: Any, value: Any) -> None:
    assert read_value(column, stored) == value
    assert type(read_value(column, stored)) is type(value)
    assert read_value(column, None) is None


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        (MONEY, Decimal("NaN")),
        (MONEY, "0.12345678901234567890123456789012345678901"),
        (TableColumn("x", Kind.FLOAT), float("inf")),
        (TableColumn("x", Kind.TIMESTAMPTZ), "infinity"),
        (TableColumn("x", Kind.DATE), "0044-03-15 BC"),
        (TableColumn("x", Kind.JSON), '{"a": 1, "a": 2}'),
        (TableColumn("x", Kind.JSON), '["\\u0000"]'),
    ],
)
def test_a_stored_value_without_canonical_form_is_found(column: TableColumn, stored: Any) -> None:
    with pytest.raises(NoCanonicalFormError):
        read_value(column, stored)


@pytest.mark.parametrize(
    ("column", "value", "bound"),
    [
        (INTEGER, 7.0, 7),
        (MONEY, 12.25, Decimal("12.25")),
        (TableColumn("x", Kind.NUMERIC), 1e300, Decimal("1e300")),
        (TableColumn("x", Kind.FLOAT, bits=32), 0.5, 0.5),
        (TableColumn("x", Kind.DATE), "2024-02-29", dt.date(2024, 2, 29)),
        (TableColumn("x", Kind.BYTES), "AP8=", b"\x00\xff"),
        (TableColumn("x", Kind.ARRAY, element=INTEGER), [[1], [None]], [[1], [None]]),
        (TableColumn("x", Kind.JSON), {"a": None}, '{"a":null}'),
    ],
)
def test_a_value_is_bound_exactly(column: TableColumn, value: Any, bound: Any) -> None:
    assert bind_value(column, value) == bound
    assert bind_value(TableColumn("x", column.kind), None) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (INTEGER, 2**31),
        (INTEGER, 1.5),
        (INTEGER, True),
        (INTEGER, "1"),
        (TEXT, None),
        (TableColumn("x", Kind.TEXT, max_length=2), "abc"),
        (TableColumn("x", Kind.TEXT, labels=("a",)), "b"),
        (TableColumn("x", Kind.TEXT, padded=True), "a "),
        (MONEY, 1.005),
        (MONEY, 1e8),
        (TableColumn("x", Kind.FLOAT), 2**53 + 1),
        (TableColumn("x", Kind.FLOAT, bits=32), 0.1),
        (TableColumn("x", Kind.BOOL), 1),
        (TableColumn("x", Kind.UUID), "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
        (TableColumn("x", Kind.DATE), "2024-02-30"),
        (TableColumn("x", Kind.TIMESTAMP), "2024-01-01"),
        (TableColumn("x", Kind.TIMESTAMP, precision=0), "2024-01-01T00:00:00.500000"),
        (TableColumn("x", Kind.TIMESTAMPTZ), "2024-01-01T00:00:00.000000"),
        (TableColumn("x", Kind.TIMESTAMP, zone="Europe/Oslo"), "2024-10-27T01:30:00.000000Z"),
        (TableColumn("x", Kind.BYTES), "A"),
        (TableColumn("x", Kind.ARRAY, element=INTEGER), [[1], [1, 2]]),
        (TableColumn("x", Kind.ARRAY, element=INTEGER), ["a"]),
        (TableColumn("x", Kind.OTHER), "a"),
    ],
)
def test_a_value_that_a_column_cannot_hold_is_refused_by_name(column: TableColumn, value: Any) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        bind_value(column, value)

    assert caught.value.path == f"data.{column.name}"


def test_an_id_is_the_canonical_text_of_the_key() -> None:
    assert (id_of((7,)), key_of(ONE, "7")) == ("7", (7,))
    assert (id_of((7, "a,b")), key_of(TWO, '[7,"a,b"]')) == ('[7,"a,b"]', (7, "a,b"))
    for wrong in ("007", "7.0", " 7", "x", "[7]", "null", "true", "9223372036854775808"):
        assert key_of(ONE, wrong) is None
    for wrong in ('[7, "a"]', '["7","a"]', "[7]", "7", "[7,null]"):
        assert key_of(TWO, wrong) is None


def test_a_key_in_the_data_that_disagrees_is_refused() -> None:
    assert check_key(ONE, "7", {"n": 7.0}) == (7,)
    with pytest.raises(InvalidRecordError, match="disagree"):
        check_key(ONE, "7", {"n": 8})


def _create(data: dict[str, Any], table: Table, id: str | None = None) -> Any:
    mutation = Mutation(id or "0190b5a4-0000-7000-8000-000000000000", data)
    mutation.own_id = id is None
    return prepare_row(table, WriteKind.CREATE, mutation)


def test_a_missing_key_comes_from_the_default_or_from_us() -> None:
    serial = Table("t", (TableColumn("n", Kind.INTEGER, has_default=True),), ("n",))
    texts = Table("t", (TableColumn("k", Kind.TEXT),), ("k",))

    assert _create({}, serial).key is None
    assert _create({"n": 5}, serial).id == "5"
    assert _create({}, texts).values == {"k": "0190b5a4-0000-7000-8000-000000000000"}
    with pytest.raises(InvalidRecordError, match="'n' has no default"):
        _create({"name": "a"}, ONE)


def test_metadata_and_names_that_are_no_column_are_refused() -> None:
    with pytest.raises(InvalidRecordError, match="no column 'colour'"):
        _create({"n": 1, "colour": "red"}, ONE)
    with pytest.raises(InvalidRecordError, match="metadata"):
        prepare_row(ONE, WriteKind.UPDATE, Mutation("1", {}, {"by": "me"}))


def test_generated_columns_and_types_that_are_not_written_have_to_agree() -> None:
    table = Table(
        "t",
        (INTEGER, TableColumn("twice", Kind.INTEGER, generated=True), TableColumn("at", Kind.OTHER)),
        ("n",),
    )
    row = prepare_row(table, WriteKind.UPDATE, Mutation("1", {"twice": 2, "at": "12:00"}))

    assert (row.values, row.fixed) == ({}, {"twice": 2, "at": "12:00"})


@pytest.mark.parametrize(
    ("column", "leaf", "expected"),
    [
        (INTEGER, field("n") == 1.0, ColumnComparison((("=", 1),))),
        (INTEGER, field("n") == 1.5, NEVER),
        (INTEGER, field("n") == "1", NEVER),
        (INTEGER, field("n") > 1.5, ColumnComparison(((">=", 2),))),
        (INTEGER, field("n") < -1e300, NEVER),
        (INTEGER, field("n") > -1e300, EXISTS),
        (INTEGER, field("n").between(0.5, 9), ColumnComparison(((">=", 1), ("<=", 9)))),
        (INTEGER, field("n").in_([1, "1", 2.5, 3]), ColumnComparison((("in", (1, 3)),))),
        (INTEGER, field("n").exists(), EXISTS),
        (INTEGER, field("n").starts_with("1"), NEVER),
        (TableColumn("n", Kind.FLOAT), field("n") > 2**53 + 1, ColumnComparison(((">", 2.0**53),))),
        (TableColumn("n", Kind.FLOAT), field("n") == 2**53 + 1, NEVER),
        (TableColumn("n", Kind.NUMERIC), field("n") >= 0.1, ColumnComparison(((">=", Decimal("0.1")),))),
        (TableColumn("n", Kind.BOOL), field("n") == True, ColumnComparison((("=", True),))),  # noqa: E712
        (TableColumn("n", Kind.BOOL), field("n") == 1, NEVER),
        (
            TableColumn("n", Kind.DATE),
            field("n") >= dt.date(2024, 1, 1),
            ColumnComparison(((">=", dt.date(2024, 1, 1)),)),
        ),
        (TableColumn("n", Kind.DATE), field("n") >= "2024", None),
        (TableColumn("n", Kind.DATE), field("n") == "2024", NEVER),
        (TableColumn("n", Kind.TEXT), field("n") >= "a", ColumnComparison(((">=", "a"),))),
        (TableColumn("n", Kind.TEXT), field("n").contains("a"), None),
        (TableColumn("n", Kind.TEXT, labels=("a",)), field("n") == "b", None),
        (TableColumn("n", Kind.TEXT, labels=("a",)), field("n") >= "b", None),
        (
            TableColumn("n", Kind.TIMESTAMP, zone="Europe/Oslo"),
            field("n") >= "2024-01-01T00:00:00.000000Z",
            None,
        ),
        (TableColumn("n", Kind.NUMERIC, numeric="float"), field("n") >= 1, None),
        (TableColumn("n", Kind.JSON), field("n") == 1, None),
        (TableColumn("n", Kind.NUMERIC, numeric="float"), field("n") == 1, None),
    ],
)
def test_a_leaf_on_a_column_is_a_comparison_where_one_is_exact(
    column: TableColumn, leaf: Leaf, expected: Any
) -> None:
    assert column_test(column, leaf) == expected
