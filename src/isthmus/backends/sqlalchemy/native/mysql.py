"""Tables of MariaDB and MySQL: the catalog, and each type of column as SQL."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._times import format_datetime
from isthmus._values import INT_MAX, INT_MIN, JSON
from isthmus.backends._tables.column import Kind, Table, TableColumn
from isthmus.backends._tables.keys import choose_key
from isthmus.backends._tables.values import NoCanonicalFormError, read_value
from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
from isthmus.backends.sqlalchemy.native.statement import ValueBinder, escape_colons
from isthmus.backends.sqlalchemy.native.table import VIEW, ColumnSQL, ReflectedTable, check_version
from isthmus.errors import ConfigError
from sqlalchemy import text

_TABLE = """
SELECT table_type, engine, @@character_set_results FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name = :name"""
_COLUMNS = """
SELECT column_name, data_type, column_type, is_nullable, column_default, extra, character_maximum_length,
  character_octet_length, numeric_precision, numeric_scale, datetime_precision, character_set_name,
  collation_name, generation_expression
FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = :name
ORDER BY ordinal_position"""
_INDEXES = """
SELECT index_name, column_name, non_unique FROM information_schema.statistics
WHERE table_schema = DATABASE() AND table_name = :name ORDER BY index_name, seq_in_index"""
_CHECKS = """
SELECT check_clause FROM information_schema.check_constraints
WHERE constraint_schema = DATABASE() AND table_name = :name"""
_TRANSACTIONAL = ("innodb", "rocksdb", "ndbcluster", "tokudb", "spider")
_JSON_CHECK = re.compile(r"json_valid\(`(.+)`\)", re.IGNORECASE)

_KINDS = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), Kind.INTEGER),
    "decimal": Kind.NUMERIC,
    "float": Kind.FLOAT,
    "double": Kind.FLOAT,
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"), Kind.TEXT),
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "datetime": Kind.TIMESTAMP,
    "timestamp": Kind.TIMESTAMPTZ,
    **dict.fromkeys(
        ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"),
        Kind.BYTES,
    ),
    "json": Kind.JSON,
}
_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64, "year": 16, "float": 32}
_SHAPES = ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
           "geometrycollection")  # fmt: skip
# Decimal digits that a float always has.
_FLOAT_DIGITS = 15
_MAX_SCALE = 30


async def read_table(connection: AsyncConnection, config: SQLAlchemyConfig, name: str) -> ReflectedTable:
    """Return the table or view that serves a collection; four queries.

    Raises `ConfigError` if there is none, if it has no primary key and `key` names no columns, for a `key`
    or `version` that is no column, and for a connection whose character set is not utf8mb4.
    """
    found = (await connection.execute(text(_TABLE), {"name": name})).first()
    if found is None:
        raise ConfigError(f"sqlalchemy: there is no table or view {name!r}; layout 'native' creates none")
    kind, engine, charset = found
    if charset != "utf8mb4":
        raise ConfigError(
            f"sqlalchemy: the connection's character set is {charset}, which has not all characters;"
            " add ?charset=utf8mb4 to the URL"
        )
    rows = (await connection.execute(text(_COLUMNS), {"name": name})).all()
    indexes: dict[str, list[str]] = {}
    unique: dict[str, tuple[str, ...]] = {}
    for index, column, non_unique in (await connection.execute(text(_INDEXES), {"name": name})).all():
        indexes.setdefault(index, []).append(column or "an expression")
        if not non_unique:
            unique[index] = tuple(indexes[index])
    checked = await _json_columns(connection, name)
    columns = tuple(_column_sql(_column(row, config, json=row[0] in checked), row) for row in rows)
    plain_columns = tuple(column.column for column in columns)
    primary = unique.pop("PRIMARY", ())
    key = choose_key("sqlalchemy", repr(name), primary, config.settings_of(name).key, plain_columns)
    reason = "" if primary else "it has no primary key"
    if kind.endswith("VIEW"):
        reason = VIEW
    elif str(engine).lower() not in _TRANSACTIONAL:
        reason = f"its storage engine {engine} has neither transactions nor locks of rows"
    table = Table(name, plain_columns, key, config.settings_of(name).version, reason)
    check_version(table)
    return ReflectedTable(
        table,
        _quote(name),
        columns,
        unique,
        {index: tuple(names) for index, names in indexes.items()},
        is_keyed=bool(primary),
        numbered=next((row[0] for row in rows if "auto_increment" in row[5]), None),
        returns=connection.dialect.insert_returning,
    )


async def _json_columns(connection: AsyncConnection, name: str) -> set[str]:
    """Return the columns that MariaDB's JSON made: long texts with a check."""
    if not getattr(connection.dialect, "is_mariadb", False):
        return set()
    clauses = (await connection.execute(text(_CHECKS), {"name": name})).scalars().all()
    return {found[1] for clause in clauses if (found := _JSON_CHECK.fullmatch(clause.strip())) is not None}


def _quote(name: str) -> str:
    return escape_colons("`" + name.replace("`", "``") + "`")


_LABEL = re.compile(r"'((?:[^']|'')*)'")


def _column(row: Sequence[Any], config: SQLAlchemyConfig, *, json: bool) -> TableColumn:
    name, data_type, column_type, nullable, default, extra = row[:6]
    length, _, precision, scale, fraction, _, collation, expression = row[6:]
    declared = column_type.lower()
    kind = Kind.JSON if json else _KINDS.get(data_type, Kind.OTHER)
    if data_type == "tinyint" and declared == "tinyint(1)":
        kind = Kind.BOOL
    generated = bool(expression) or "GENERATED" in extra.replace("DEFAULT_GENERATED", "")
    labels = None
    if data_type == "enum":
        labels = tuple(found.replace("''", "'") for found in _LABEL.findall(column_type))
    if kind in (Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        precision = fraction
    numbered = "auto_increment" in extra
    return TableColumn(
        name,
        kind,
        declared,
        nullable=nullable == "YES",
        has_default=numbered or (default is not None and default != "NULL"),
        generated=generated,
        bits=_BITS.get(data_type, 64),
        unsigned="unsigned" in declared or data_type == "year",
        precision=precision if kind in (Kind.NUMERIC, Kind.TIMESTAMP, Kind.TIMESTAMPTZ) else None,
        scale=scale if kind is Kind.NUMERIC else None,
        max_length=length if data_type in ("char", "varchar") else None,
        labels=labels,
        padded=data_type == "char",
        exact_equality=kind is not Kind.TEXT,
        code_point_order=kind is Kind.TEXT and str(collation).endswith("_bin"),
        numeric=config.numeric if kind is Kind.NUMERIC else "exact",
        zone=config.zone if kind is Kind.TIMESTAMP else None,
    )


def _column_sql(column: TableColumn, row: Sequence[Any]) -> ColumnSQL:
    name, data_type, declared, octets, charset = row[0], row[1], row[2].lower(), row[7], row[11]
    source = _quote(name)
    sql = _MAKERS.get(column.kind, _other)(column, source)
    if column.kind is Kind.OTHER:
        read = f"ST_AsText({source})" if data_type in _SHAPES else sql.read
        read = f"CAST({source} + 0 AS CHAR)" if data_type == "bit" else read
        sql = replace(sql, read=read, value=f"CAST({read} AS BINARY)")
    if data_type == "year":  # compared with 16 it would be with 2016
        sql = replace(sql, value=f"({source} + 0)", serves=False)
    return replace(
        sql,
        is_checked=sql.is_checked
        or data_type == "year"
        or (data_type in ("float", "double") and "(" in declared),
        max_bytes=octets,
        min_bytes=octets if data_type == "binary" else 0,
        is_narrow=charset not in (None, "utf8mb4"),
    )


def _bind(binder: ValueBinder, value: Any) -> str:
    return binder.bind(value)


def _cast(type: str) -> Callable[[ValueBinder, Any], str]:
    """Return what binds a value as a text that the server takes for this type."""
    return lambda binder, value: f"CAST({binder.bind(_text(value))} AS {type})"


def _text(value: Any) -> str:
    match value:
        case Decimal():
            return format(value, "f")
        case dt.datetime():
            return value.replace(tzinfo=None).isoformat(" ", "microseconds")
        case dt.date():
            return value.isoformat()
    return str(value)


def _bind_bytes(binder: ValueBinder, value: Any) -> str:
    return binder.bind(str(value).encode())


def _bind_base64(binder: ValueBinder, value: Any) -> str:
    return binder.bind(base64.b64encode(value))


def _integer(column: TableColumn, source: str) -> ColumnSQL:
    valid = f"{source} <= {INT_MAX}" if column.unsigned and column.bits == 64 else None
    decode = None if valid is None else _reader(column)
    return ColumnSQL(column, source, source, _bind, _if(valid, source), _bind, valid, decode)


def _reader(column: TableColumn) -> Callable[[Any], JSON]:
    return functools.partial(read_value, column)


def _if(valid: str | None, value: str) -> str:
    return value if valid is None else f"CASE WHEN {valid} THEN {value} END"


def _bool(column: TableColumn, source: str) -> ColumnSQL:
    valid = f"{source} IN (0, 1)"
    bind: Callable[[ValueBinder, Any], str] = lambda binder, value: binder.bind(int(value))  # noqa: E731
    return ColumnSQL(column, source, source, bind, _if(valid, source), bind, valid, _read_bool)


def _read_bool(value: Any) -> bool:
    if value not in (0, 1):
        raise NoCanonicalFormError(f"a boolean is 0 or 1, not {value}")
    return bool(value)


def _numeric(column: TableColumn, source: str) -> ColumnSQL:
    precision, scale = column.precision or 10, column.scale or 0
    bind = _cast(f"DECIMAL({precision},{scale})")
    if column.numeric != "exact" or scale > _MAX_SCALE:
        return ColumnSQL(column, source, source, bind, decode=_reader(column))
    valid = None
    if precision > _FLOAT_DIGITS:
        whole = f"{source} = TRUNCATE({source}, 0) AND {source} BETWEEN {INT_MIN} AND {INT_MAX}"
        valid = f"(CAST(({source} + 0e0) AS DECIMAL({precision},{scale})) = {source} OR ({whole}))"
    return ColumnSQL(column, source, source, bind, _if(valid, source), bind, valid, _reader(column))


def _float(column: TableColumn, source: str) -> ColumnSQL:
    # The server shows the first six digits of a float of 32 bits.
    value = source if column.bits == 64 else f"({source} + 0e0)"
    return ColumnSQL(
        column, source, value, _bind, value, _bind, None, _reader(column), serves=column.bits == 64
    )


def _characters(column: TableColumn, source: str) -> ColumnSQL:
    kept = f"TRIM(TRAILING ' ' FROM {source})" if column.padded else source
    content = f"CAST(CONVERT({kept} USING utf8mb4) AS BINARY)"
    valid = f"INSTR({content}, X'00') = 0"
    return ColumnSQL(column, source, source, _bind, _if(valid, content), _bind_bytes, valid, _reader(column))


def _uuid(column: TableColumn, source: str) -> ColumnSQL:
    read = f"CAST({source} AS CHAR)"
    bind: Callable[[ValueBinder, Any], str] = lambda binder, value: binder.bind(str(value))  # noqa: E731
    return ColumnSQL(
        column, source, read, bind, f"CAST({read} AS BINARY)", _bind_bytes, None, _reader(column)
    )


def _is_date(source: str) -> str:
    """Return the condition that no part of a date is zero, and that the month has the day."""
    return (
        f"(YEAR({source}) > 0 AND MONTH({source}) > 0 AND DAYOFMONTH({source})"
        f" BETWEEN 1 AND DAYOFMONTH(LAST_DAY({source})))"
    )


def _date(column: TableColumn, source: str) -> ColumnSQL:
    valid, bind = _is_date(source), _cast("DATE")
    read = f"DATE_FORMAT({source}, '%Y-%m-%d')"
    return ColumnSQL(column, source, read, bind, _if(valid, source), bind, valid, _reader(column))


def _datetime(column: TableColumn, source: str) -> ColumnSQL:
    valid, bind = _is_date(source), _cast("DATETIME(6)")
    read = f"DATE_FORMAT({source}, '%Y-%m-%dT%H\\:%i\\:%s.%f')"
    if column.zone is not None:  # local times repeat and skip: only Python knows their order
        return ColumnSQL(column, source, read, bind, decode=_reader(column))
    return ColumnSQL(column, source, read, bind, _if(valid, source), bind, valid, _reader(column))


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _timestamp(column: TableColumn, source: str) -> ColumnSQL:
    """Return a moment by its seconds since 1970: what the server shows depends on the session's zone."""
    seconds = f"UNIX_TIMESTAMP({source})"

    def by_seconds(binder: ValueBinder, value: Any) -> str:
        micros = (value - _EPOCH) // dt.timedelta(microseconds=1)
        return f"CAST({binder.bind(_text(Decimal(micros).scaleb(-6)))} AS DECIMAL(20,6))"

    def assign(binder: ValueBinder, value: Any) -> str:
        return f"FROM_UNIXTIME({by_seconds(binder, value)})"

    valid = f"{seconds} > 0"
    read = f"CAST({seconds} * 1000000 AS SIGNED)"
    return ColumnSQL(
        column,
        source,
        read,
        assign,
        _if(valid, seconds),
        by_seconds,
        valid,
        _read_micros,
        serves=False,
        is_checked=True,
    )


def _read_micros(value: Any) -> str:
    if not value:
        raise NoCanonicalFormError("the zero date is no time")
    return format_datetime(_EPOCH + dt.timedelta(microseconds=int(value)))


def _bytes(column: TableColumn, source: str) -> ColumnSQL:
    value = f"CAST(REPLACE(TO_BASE64({source}), CHAR(10), '') AS BINARY)"
    return ColumnSQL(column, source, source, _bind, value, _bind_base64, None, _reader(column))


def _json(column: TableColumn, source: str) -> ColumnSQL:
    return ColumnSQL(column, source, source, _bind, decode=_reader(column))


def _other(column: TableColumn, source: str) -> ColumnSQL:
    return ColumnSQL(
        column,
        source,
        f"CAST({source} AS CHAR)",
        _bind,
        bind_canonical=_bind_bytes,
        decode=_reader(column),
        serves=False,
    )


_MAKERS: Mapping[Kind, Callable[[TableColumn, str], ColumnSQL]] = {
    Kind.INTEGER: _integer,
    Kind.BOOL: _bool,
    Kind.NUMERIC: _numeric,
    Kind.FLOAT: _float,
    Kind.TEXT: _characters,
    Kind.UUID: _uuid,
    Kind.DATE: _date,
    Kind.TIMESTAMP: _datetime,
    Kind.TIMESTAMPTZ: _timestamp,
    Kind.BYTES: _bytes,
    Kind.JSON: _json,
}
