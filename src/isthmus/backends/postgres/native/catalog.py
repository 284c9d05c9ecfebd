"""Reads the description of a table from the server's catalog; never a DDL statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.backends._tables.column import Kind, Table, TableColumn
from isthmus.backends._tables.keys import choose_key
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.statement import quote
from isthmus.errors import ConfigError

# The parts of TimescaleDB's tables inherit too, but have all rows of a key in one of them.
_RELATION = """
SELECT c.oid::int8, c.relkind::text,
  EXISTS (SELECT 1 FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid
    JOIN pg_namespace s ON s.oid = k.relnamespace
    WHERE i.inhparent = c.oid AND s.nspname <> '_timescaledb_internal'),
  (SELECT d.datcollate::text FROM pg_database d WHERE d.datname = current_database()),
  (SELECT to_jsonb(d)->>'datlocprovider' FROM pg_database d WHERE d.datname = current_database()),
  c.relrowsecurity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2"""

# Each column with the type below its domains, and below an array the type of its elements.
_COLUMNS = """
WITH RECURSIVE level AS (
  SELECT a.attnum, a.atttypid AS type, a.atttypmod AS mod, FALSE AS required, 0 AS depth
  FROM pg_attribute a WHERE a.attrelid = $1::text::oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT l.attnum, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE l.mod END,
    l.required OR t.typnotnull, l.depth + 1
  FROM level l JOIN pg_type t ON t.oid = l.type AND t.typtype = 'd')
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(b.type, -1),
  CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text
       WHEN t.typname = 'citext' THEN 'citext' ELSE '' END,
  t.typtype::text, b.mod, a.attnotnull OR b.required, a.atthasdef, a.attidentity::text,
  a.attgenerated::text,
  CASE WHEN t.typcategory = 'A' AND e.typtype = 'b' AND e.typnamespace = 'pg_catalog'::regnamespace
       THEN e.typname::text WHEN t.typcategory = 'A' AND e.typtype = 'e' THEN 'enum' END,
  format_type(e.oid, -1),
  array(SELECT n.enumlabel::text FROM pg_enum n
        WHERE n.enumtypid = CASE WHEN t.typcategory = 'A' THEN e.oid ELSE t.oid END ORDER BY n.enumsortorder),
  o.collname::text, o.collprovider::text, o.collisdeterministic, o.collcollate::text
FROM level b
JOIN pg_attribute a ON a.attrelid = $1::text::oid AND a.attnum = b.attnum
JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
LEFT JOIN pg_collation o ON o.oid = a.attcollation
ORDER BY a.attnum"""

_KEY = """
SELECT a.attname::text FROM pg_index x
CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
WHERE x.indrelid = $1::text::oid AND x.indisprimary AND k.place <= x.indnkeyatts ORDER BY k.place"""

_UNIQUE = """
SELECT i.relname::text, array(SELECT a.attname::text FROM unnest(x.indkey::int2[]) AS k(attnum)
  JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = $1::text::oid AND x.indisunique AND NOT x.indisprimary"""

TABLES = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND EXISTS (SELECT 1 FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary)
ORDER BY c.relname COLLATE "C\""""

_KINDS = {
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "numeric": Kind.NUMERIC,
    "float4": Kind.FLOAT,
    "float8": Kind.FLOAT,
    "bool": Kind.BOOL,
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.TEXT,
    "name": Kind.TEXT,
    "citext": Kind.TEXT,
    "enum": Kind.TEXT,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "interval": Kind.INTERVAL,
    "bytea": Kind.BYTES,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
}
# Another type would be cast to these, with a loss, when it is read or written.
_CAST = frozenset(
    (
        *(Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOL, Kind.BYTES, Kind.ARRAY),
        *(Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ),
    )
)
_BITS = {"int2": 16, "int4": 32, "float4": 32}
CODE_POINT = ("C", "POSIX", "C.UTF-8", "C.utf8", "ucs_basic")
READ_ONLY = {"v": "it is a view", "m": "it is a materialized view", "f": "it is a foreign table"}
# The server adds this to a declared length.
_HEADER = 4


@dataclass(frozen=True, slots=True)
class NativeTable:
    """A table with what its statements need."""

    schema: str
    table: Table
    is_partitioned: bool
    binary_json: frozenset[str]
    """The columns of type jsonb."""
    unique: Mapping[str, tuple[str, ...]]
    """The columns of each unique index but the primary key's, by the index's name."""
    is_keyed: bool
    """Whether the server keeps the key unique."""
    has_policies: bool
    """Whether row-level security may show a row that it does not let be locked."""
    same_types: str
    """A condition that is true, and that the server refuses once a column has another type.

    It refuses it when it analyses the statement, prepared before or not. Its planner leaves out a
    condition of constants, so that it costs nothing when a statement is executed.
    """
    sql: str = field(init=False)
    """The table's name in statements."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sql", f"{quote(self.schema)}.{quote(self.table.name)}")

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.table.name


async def read_table(connection: Connection, config: PostgresConfig, collection: str) -> NativeTable:
    """Return the table or view that serves a collection.

    Raises `ConfigError` if there is none, if it has no primary key and `key` names no columns, and for
    a `key` or `version` that is no column.
    """
    found = await connection.fetchrow(_RELATION, config.schema_name, collection)
    where = f"{quote(config.schema_name)}.{quote(collection)}"
    if found is None or found[1] not in ("r", "p", "v", "m", "f"):
        raise ConfigError(f"postgres: there is no table or view {where}; layout 'native' creates none")
    oid, kind, has_children, collate, provider, has_policies = found
    rows = await connection.fetch(_COLUMNS, str(oid))
    columns = tuple(_column(row, config, _Default(collate, provider)) for row in rows)
    own_key = [row[0] for row in await connection.fetch(_KEY, str(oid))]
    key = choose_key("postgres", where, own_key, config.indexes_of(collection).key, columns)
    reason = READ_ONLY.get(kind, "" if own_key else "it has no primary key")
    is_keyed = bool(own_key) and (kind == "p" or not has_children)
    if own_key and not is_keyed:
        reason = "other tables inherit from it, so that its key does not tell rows apart"
    version = config.indexes_of(collection).version
    if version is not None and version not in {column.name for column in columns}:
        raise ConfigError(f"postgres: {where} has no column {version!r}, which `version` names")
    unique = {row[0]: tuple(row[1]) for row in await connection.fetch(_UNIQUE, str(oid))}
    binary = frozenset(row[0] for row in rows if row[3] == "jsonb")
    table = Table(collection, columns, key, version, reason)
    types = " AND ".join(
        _same_type(f"(NULL::{where}).{quote(column.name)}", column.kind, row[1])
        for column, row in zip(columns, rows, strict=True)
        if column.kind in _CAST
    )
    return NativeTable(
        *(config.schema_name, table, kind == "p", binary, unique, is_keyed),
        has_policies=has_policies,
        same_types=types or "TRUE",
    )


def _same_type(value: str, kind: Kind, declared: str) -> str:
    if kind is Kind.INTEGER:  # a wider or narrower one has the same values
        return f"({value} | 0::int8) IS NULL"
    if kind is Kind.ARRAY:
        return f"({value} = '{{}}'::{declared}) IS NULL"
    # Arrays are compared with arrays of exactly the same type.
    return f"(ARRAY[{value}] = '{{}}'::{declared}[]) IS NOT NULL"


@dataclass(frozen=True, slots=True)
class _Default:
    """The database's default collation."""

    collate: str
    provider: str | None


def _column(row: Sequence[Any], config: PostgresConfig, default: _Default) -> TableColumn:
    name, declared, base, type_name, type_kind, mod, required, has_default, identity, generated = row[:10]
    element_type, element_base, labels = row[10:13]
    kind = Kind.TEXT if type_kind == "e" else _KINDS.get(type_name, Kind.OTHER)
    element = None
    if element_type is not None and element_type in _KINDS:
        kind = Kind.ARRAY
        element = _make_column(name, element_base, element_type, labels, mod, config)
    plain = _make_column(name, declared, type_name, labels if type_kind == "e" else [], mod, config)
    deterministic = row[15] is not False
    return TableColumn(
        name=name,
        kind=kind,
        type=_unquote(base, type_name),
        nullable=not required,
        has_default=(has_default and not generated) or bool(identity),
        generated=bool(generated) or identity == "a",
        bits=plain.bits,
        precision=plain.precision,
        scale=plain.scale,
        max_length=plain.max_length,
        labels=plain.labels,
        padded=plain.padded,
        exact_equality=deterministic and type_name not in ("citext", "bpchar"),
        code_point_order=kind is Kind.TEXT
        and type_name in ("text", "varchar", "name")
        and _by_code_point(row[13], row[14], row[16], default),
        element=element,
        numeric=plain.numeric,
        zone=plain.zone,
    )


def _make_column(
    name: str, declared: str, type_name: str, labels: Sequence[str], mod: int, config: PostgresConfig
) -> TableColumn:
    """Return a column with what its type says: the size, the precision, the labels."""
    precision = scale = max_length = None
    if type_name == "numeric" and mod >= _HEADER:
        precision, scale = (mod - _HEADER) >> 16 & 0xFFFF, (mod - _HEADER) & 0x7FF
        scale = scale - 0x800 if scale & 0x400 else scale
    elif type_name in ("timestamp", "timestamptz") and mod >= 0:
        precision = mod
    elif type_name in ("varchar", "bpchar") and mod >= _HEADER:
        max_length = mod - _HEADER
    return TableColumn(
        name=name,
        kind=_KINDS.get(type_name, Kind.TEXT if labels else Kind.OTHER),
        type=_unquote(declared, type_name),
        bits=_BITS.get(type_name, 64),
        precision=precision,
        scale=scale,
        max_length=max_length,
        labels=tuple(labels) or None,
        padded=type_name == "bpchar",
        numeric=config.numeric if type_name == "numeric" else "exact",
        zone=config.zone if type_name == "timestamp" else None,
    )


def _unquote(type: str, type_name: str) -> str:
    """Return a type's name in SQL, which the server quotes where `quote_all_identifiers` is on."""
    return type_name if type == quote(type_name) and type_name in _KINDS else type


def _by_code_point(name: str | None, provider: str | None, collate: str | None, default: _Default) -> bool:
    if name == "default":
        provider, collate = default.provider or "c", default.collate
    return provider in ("c", "b") and (collate in CODE_POINT or name in CODE_POINT)
