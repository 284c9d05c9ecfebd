"""Unique fields as unique indexes, and what to do when a statement violates one.

The declaration is the comment of the index, so it binds every handle. A constraint refuses values
that a unique field cannot have. A statement that violates either is undone, and its items are then
written one by one, to find out which of them is refused and because of which record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import orjson

from isthmus._core.apply import already_exists, merge_documents, refuse_batch
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.unique import MAX_TEXT, Unique, clash, key_in, unique_from_json
from isthmus._values import JSON, decode, decode_numeric
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import is_field_violation
from isthmus.backends.postgres.single_write import single_write
from isthmus.backends.postgres.sql.fields import FieldSQL, field_of
from isthmus.backends.postgres.sql.statement import literal, quote
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import InvalidRecordError, IsthmusError

_MARK = "isthmus unique "
_SCALARS = "('string', 'number', 'boolean')"
_ATTEMPTS = 20
_FIELDS_OF_DIGESTS = 3
"""How many fields a declaration has at least whose index holds digests."""
_LONG = 80
"""Bytes of a text above which such an index holds its digest."""
_DECLARED = (
    "SELECT obj_description(x.indexrelid, 'pg_class') FROM pg_index x"
    " WHERE x.indrelid = $1::text::regclass AND x.indisunique AND x.indisvalid"
)


def unique_name(table: Table, unique: Unique, kind: str = "unique") -> str:
    """Return the name of a declaration's index, or of its constraint."""
    digest = hashlib.blake2b(f"{table.name}\0{unique.to_json()}".encode(), digest_size=6).hexdigest()
    head = table.name.encode()[:30].decode(errors="ignore")
    return f"{head}_{kind}_{digest}"


def definitions(table: Table, unique: Unique) -> list[str]:
    """Return the statements that make fields unique."""
    fields = [field_of(path, row="") for path in unique.paths]
    values = ", ".join(f"({_index_term(field, unique)})" for field in fields)
    scalar = " AND ".join(f"{field.kind} IN {_SCALARS}" for field in fields)
    allowed = " AND ".join(
        f"{field.shape} NOT IN ('array', 'object')"
        f" AND (COALESCE({field.kind}, 'null') <> 'string' OR octet_length({field.text}) <= {MAX_TEXT})"
        for field in fields
    )
    name = unique_name(table, unique)
    mark = literal(_MARK + orjson.dumps(unique.to_json()).decode())
    return [
        f"CREATE UNIQUE INDEX {quote(name)} ON {table.sql} ({values}) WHERE {scalar}",
        f"COMMENT ON INDEX {quote(table.schema)}.{quote(name)} IS {mark}",
        f"ALTER TABLE {table.sql} ADD CONSTRAINT {quote(unique_name(table, unique, 'uniquecheck'))}"
        f" CHECK ({allowed})",
    ]


def _index_term(field: FieldSQL, unique: Unique) -> str:
    """Return what the index holds of a field; of a long text its digest, in a list, which no value is.

    Three texts of 1,024 bytes would not fit into the 2,704 bytes of an index row.
    """
    if len(unique.paths) < _FIELDS_OF_DIGESTS:
        return field.value
    stored = rf"decode(replace({field.text}, '\', '\\'), 'escape')"
    # Scalars only are in the index, and no number has so many digits.
    return (
        f"CASE WHEN octet_length({field.text}) > {_LONG}"
        f""" THEN ('["' || encode(sha256({stored}), 'hex') || '"]')::jsonb ELSE {field.value} END"""
    )


def _index_value(value: JSON, unique: Unique) -> JSON:
    if len(unique.paths) < _FIELDS_OF_DIGESTS or not isinstance(value, str) or len(value.encode()) <= _LONG:
        return value
    return [hashlib.sha256(value.encode()).hexdigest()]


def removal(table: Table, unique: Unique) -> list[str]:
    """Return the statements that end a declaration."""
    index, constraint = unique_name(table, unique), unique_name(table, unique, "uniquecheck")
    return [
        f"DROP INDEX IF EXISTS {quote(table.schema)}.{quote(index)}",
        f"ALTER TABLE {table.sql} DROP CONSTRAINT IF EXISTS {quote(constraint)}",
    ]


async def read_unique(connection: Connection, table: Table) -> frozenset[Unique]:
    """Return the declarations that the table has."""
    rows = await connection.fetch(_DECLARED, table.sql)
    marks = [row[0] for row in rows if row[0] is not None and row[0].startswith(_MARK)]
    return unique_from_json(orjson.loads(mark.removeprefix(_MARK)) for mark in marks)


class _UndoError(Exception):
    """Leaves a transaction that is to be rolled back."""


async def write_apart(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply mutations one after another, each alone; return one result for each, in order.

    Three round trips an item, and one more for each declaration that a refused item may violate.
    """
    declared = sorted(await read_unique(connection, table), key=str)
    results: list[ItemResult] = []
    refused: list[ItemResult] | None = None
    # Items of a batch that is not atomic commit one by one, and hold no value while others wait for it.
    together = atomic or connection.is_in_transaction()
    try:
        async with connection.transaction() if together else nullcontext():
            results = [
                await _write_alone(connection, table, kind, mutation, declared) for mutation in mutations
            ]
            refused = refuse_batch(mutations, results) if atomic else None
            if refused is not None:
                raise _UndoError
    except _UndoError:
        assert refused is not None
        return refused
    return results


async def _write_alone(
    connection: Connection, table: Table, kind: WriteKind, mutation: Mutation, declared: Sequence[Unique]
) -> ItemResult:
    violation: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            async with connection.transaction():
                return await single_write(connection, table, kind, mutation)
        except Exception as error:
            # The class of the exception depends on the driver; its SQLSTATE does not.
            if not is_field_violation(error):
                raise
            violation = error
        refused = await _find_clash(connection, table, kind, mutation, declared)
        if refused is not None:
            return refused
    assert violation is not None  # the other record comes and goes, or cannot be seen in this snapshot
    return clash(declared[0], None) if declared else _unknown(violation)


def _unknown(violation: Exception) -> IsthmusError:
    return InvalidRecordError(f"postgres: {violation}", path="data")


async def _find_clash(
    connection: Connection, table: Table, kind: WriteKind, mutation: Mutation, declared: Sequence[Unique]
) -> ItemResult | None:
    """Return why the record is refused; None if it is not any more."""
    data = decode(mutation.encode())
    if kind is WriteKind.CREATE and await connection.fetchval(
        f"SELECT true FROM {table.sql} AS t WHERE t.id = $1", mutation.id
    ):
        return already_exists(mutation.id)
    if kind is WriteKind.UPDATE:
        stored = await connection.fetchval(
            f"SELECT t.data FROM {table.sql} AS t WHERE t.id = $1", mutation.id
        )
        if stored is None:
            return None
        data = decode(merge_documents(decode_numeric(stored), {}, mutation.encode(), b"{}")[0])
    for unique in declared:
        try:
            key = key_in(data, unique)
        except InvalidRecordError as error:
            error.record_id = mutation.id
            return error
        if key is not None:
            other = await _other_record(connection, table, mutation.id, unique, key)
            if other is not None:
                return clash(unique, other)
    return None


async def _other_record(
    connection: Connection, table: Table, id: str, unique: Unique, key: Sequence[Any]
) -> str | None:
    terms = []
    for number, path in enumerate(unique.paths, 2):
        field = field_of(path)
        terms.append(f"{_index_term(field, unique)} = ${number}::jsonb AND {field.kind} IN {_SCALARS}")
    other: str | None = await connection.fetchval(
        f"SELECT t.id FROM {table.sql} AS t WHERE t.id <> $1 AND {' AND '.join(terms)} LIMIT 1",
        id,
        *(orjson.dumps(_index_value(value, unique)).decode() for value in key),
    )
    return other


async def duplicates(connection: Connection, table: Table, unique: Unique, limit: int = 20) -> list[Any]:
    """Return rows of a value that several records have, and their ids; at most `limit` values."""
    fields = [field_of(path) for path in unique.paths]
    values = ", ".join(field.value for field in fields)
    scalar = " AND ".join(f"{field.kind} IN {_SCALARS}" for field in fields)
    rows = await connection.fetch(
        f"SELECT jsonb_build_array({values})::text, (array_agg(t.id ORDER BY t.id))[1:10]"
        f" FROM {table.sql} AS t WHERE {scalar} GROUP BY {values} HAVING count(*) > 1"
        f" ORDER BY min(t.id) LIMIT {limit}"
    )
    return [(orjson.loads(value), list(ids)) for value, ids in rows]
