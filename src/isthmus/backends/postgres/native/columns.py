"""Columns of a native table as SQL: what is read, compared, sorted and bound."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends._tables.column import TEXTS, Kind, TableColumn
from isthmus.backends._tables.leaves import canonical_kind
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.texts import interval_text, is_shortest_decimal
from isthmus.backends.postgres.sql.statement import Parameters, quote

_TYPES = {
    Kind.INTEGER: "int8",
    Kind.NUMERIC: "numeric",
    Kind.FLOAT: "float8",
    Kind.BOOL: "bool",
    Kind.UUID: "uuid",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamp",
    Kind.TIMESTAMPTZ: "timestamptz",
    Kind.BYTES: "bytea",
}
# Binary forms cost the server and the driver least, and depend on no setting of the session.
_OUTPUTS = {
    Kind.INTEGER: "{}::int8",
    Kind.FLOAT: "{}::float8",
    Kind.BOOL: "{}::bool",
    Kind.DATE: "date_send({}::date)",
    Kind.TIMESTAMP: "timestamp_send({}::timestamp)",
    Kind.TIMESTAMPTZ: "timestamptz_send({}::timestamptz)",
    Kind.BYTES: "{}::bytea",
    Kind.INTERVAL: "interval_send({}::interval)",
    Kind.ARRAY: "to_json({}::text[])::text",
}
# Of arrays too, where the text of an element depends on a setting.
_ARRAY_OUTPUTS = {
    Kind.FLOAT: "array_send({}::float8[])",
    Kind.BYTES: "array_send({}::bytea[])",
    Kind.INTERVAL: "array_send({}::interval[])",
    **dict.fromkeys((Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ), "to_json({})::text"),
}
_VALID = {
    Kind.FLOAT: "({0} > '-Infinity' AND {0} < 'Infinity')",  # NaN is above all
    Kind.DATE: "{0} BETWEEN '0001-01-01' AND '9999-12-31'",
    Kind.TIMESTAMP: "({0} >= '0001-01-01' AND {0} < '10000-01-01')",
    Kind.TIMESTAMPTZ: "({0} >= '0001-01-01 00:00:00+00' AND {0} < '10000-01-01 00:00:00+00')",
}
_TEXTS = {
    Kind.FLOAT: "encode(float8send({}::float8), 'hex')",
    Kind.DATE: "to_char({}, 'YYYY-MM-DD')",
    Kind.TIMESTAMP: """to_char({}, 'YYYY-MM-DD"T"HH24:MI:SS.US')""",
    Kind.TIMESTAMPTZ: """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    Kind.BYTES: r"translate(encode({}, 'base64'), E'\n', '')",
}
# A decimal of so many digits is that of the float nearest to it.
_FLOAT_DIGITS = 15


def source(column: TableColumn) -> str:
    """Return the column in a statement, whose row is always `t`."""
    return f"t.{quote(column.name)}"


def output(column: TableColumn) -> str:
    """Return the expression that is read."""
    form = _OUTPUTS.get(column.kind, "{}::text")
    if column.element is not None:
        form = _ARRAY_OUTPUTS.get(column.element.kind, form)
    return form.format(source(column))


def version_of(table: NativeTable) -> str:
    """Return the expression of a row's version."""
    if table.table.version is not None:
        return text_of(table.table.by_name[table.table.version])
    if not table.is_keyed or table.table.read_only:
        return "NULL::text"
    place = "t.tableoid::text || " if table.is_partitioned else ""
    return f"({place}t.xmin::text || t.ctid::text)"


def row_columns(table: NativeTable) -> str:
    """Return the select list of whole rows, for a sub-select that is read as the table is."""
    if "xmin" not in version_of(table):
        return "t.*"
    return "t.*, t.xmin, t.ctid, t.tableoid" if table.is_partitioned else "t.*, t.xmin, t.ctid"


def valid(column: TableColumn) -> str | None:
    """Return the condition that a value has a canonical form; None if every value of the type has."""
    if column.kind is Kind.NUMERIC:
        if column.numeric == "float":  # the nearest one, unless that is infinite
            return f"abs({source(column)}) < 1.797693134862315807937e308"
        return _valid_numeric(column) if column.numeric == "exact" else None
    form = _VALID.get(column.kind)
    return None if form is None else form.format(source(column))


def _valid_numeric(column: TableColumn) -> str:
    value = source(column)
    integral = f"{value} BETWEEN {INT_MIN} AND {INT_MAX}"
    if column.precision is not None and column.precision <= _FLOAT_DIGITS and (column.scale or 0) >= 0:
        return integral  # the bounds are beyond its digits: all but NaN
    # The casts are inside a CASE, so they are evaluated where they cannot fail.
    return (
        f"CASE WHEN {integral} AND {value} = trunc({value}) THEN TRUE"
        f" WHEN abs({value}) BETWEEN 5e-324 AND 1.7976931348623157e308"
        f" THEN {is_shortest_decimal(value)} ELSE FALSE END"
    )


def is_comparable(column: TableColumn) -> bool:
    """Return whether the server has the canonical value of the column: as a scalar, or as its text."""
    if canonical_kind(column) is None or column.zone is not None:
        return False
    return column.kind is not Kind.NUMERIC or column.numeric != "float"


def text_of(column: TableColumn) -> str:
    """Return the canonical text of a column whose values are text; NULL where there is no value.

    Of any other column, as a row's version, a text that is the same in all sessions, and of no other value.
    """
    if column.kind is Kind.INTERVAL:
        return interval_text(f"{source(column)}::interval")
    text = _TEXTS.get(column.kind, "{}::text").format(source(column))
    condition = valid(column)
    return text if condition is None else f"CASE WHEN {condition} THEN {text} END"


def sort_value(column: TableColumn) -> str:
    """Return the expression that sorts as canonical values do; NULL where there is no value."""
    value = source(column)
    if column.kind in (Kind.INTEGER, Kind.BOOL, Kind.UUID):
        return value
    if column.kind in TEXTS and column.kind not in _VALID:
        return value if column.code_point_order else f'({text_of(column)}) COLLATE "C"'
    if canonical_kind(column) == "text" and column.kind is Kind.NUMERIC:
        return f'({text_of(column)}) COLLATE "C"'
    condition = valid(column)
    return value if condition is None else f"CASE WHEN {condition} THEN {value} END"


def key_value(column: TableColumn) -> str:
    """Return the expression that a key column sorts by; a key without a canonical form is no id."""
    by_itself = column.kind in _TYPES and column.kind is not Kind.BYTES and column.numeric == "exact"
    return source(column) if by_itself else sort_value(column)


def is_total(column: TableColumn) -> bool:
    """Return whether `sort_value` is never NULL."""
    return not column.nullable and valid(column) is None


def has_ordered_index(column: TableColumn) -> bool:
    """Return whether an index on the column has its values in the order of meaning §4."""
    if column.kind is Kind.TEXT:
        return column.code_point_order
    if column.kind is Kind.NUMERIC and column.numeric == "exact":
        return column.precision is not None and column.precision <= _FLOAT_DIGITS
    return column.kind in _TYPES and column.kind is not Kind.BYTES and is_comparable(column)


def sort_type(column: TableColumn) -> str:
    """Return the type of `sort_value`."""
    if canonical_kind(column) == "text" and column.kind not in (*_VALID, Kind.UUID):
        return "text"
    return _TYPES[column.kind]


def type_of(column: TableColumn) -> str:
    """Return the type to compare with: the index of a column serves it."""
    if column.kind is Kind.TEXT:
        # Where the type has an equality of its own, it finds the candidates.
        return "text" if column.exact_equality and column.labels is None else column.type
    return _TYPES.get(column.kind, column.type)


def bind(params: Parameters, value: Any, type: str) -> str:
    """Bind a value of `bind_value` and return its placeholder."""
    if type in _TYPES.values() and not _is_infinite(value):
        # As what it is: a generic plan would cast a text again for each row.
        return params.bind(value, type)
    bound = params.text(as_text(value))
    return str(bound) if type == "text" else f"{bound}::{type}"


def _is_infinite(value: Any) -> bool:
    """Return whether asyncpg sends a date as infinity."""
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None) in (dt.datetime.min, dt.datetime.max)
    return isinstance(value, dt.date) and value in (dt.date.min, dt.date.max)


def bind_all(params: Parameters, values: Sequence[Any], type: str) -> str:
    """Bind values as an array and return its placeholder."""
    bound = params.texts([as_text(value) for value in values])
    # Of all arrays only those of text are safe from codecs that a hook registered; cast once for all rows.
    return str(bound) if type == "text" else f"(SELECT {bound}::{type}[])::{type}[]"


def as_text(value: Any) -> str:
    """Return the server's input for a bound value."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case dt.datetime():
            return value.isoformat(" ")
        case dt.date():
            return value.isoformat()
        case bytes():
            return "\\x" + value.hex()
        case list():
            return "{" + ",".join(map(_element, value)) + "}"
    return str(value)


def _element(value: Any) -> str:
    """Return an element of an array's text."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return as_text(value)
    escaped = as_text(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
