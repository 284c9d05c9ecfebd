"""Declarations of unique fields, kept in the side table and in the name of a column.

Renaming the column is the moment from which they bind: a program that does not know them has every statement
refused from then on. Until then the table is locked, and what was written for them is not used.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeAlias

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.unique import Unique, has_duplicates, key_in, unique_from_json
from isthmus._core.unique_index import in_order
from isthmus.backends.sqlalchemy.claims import find_duplicates, read_all
from isthmus.backends.sqlalchemy.schema import (
    claim_digest,
    claims_table,
    columns_of,
    create_table,
    field_digest,
    find_version_column,
    key_of,
    set_digest,
    table_of,
    unique_text,
    version_column,
)
from isthmus.backends.sqlalchemy.statements import chunks
from isthmus.errors import ConfigError, InvalidRecordError, UnavailableError
from sqlalchemy import Table, delete, insert, select, text

_ATTEMPTS = 5
Declared: TypeAlias = frozenset[Unique]
Change: TypeAlias = Callable[[Declared, bool], Declared]
"""Makes new declarations of the present ones; told whether the collection has records."""


async def find_table(connection: AsyncConnection, collection: str) -> Table | None:
    """Return a collection's table with its declarations; None if there is no such table.

    Raises `ConfigError` for a table of other columns.
    """
    for _ in range(_ATTEMPTS):
        # Read once: a second look may see the table that another process has created in between.
        columns = await connection.run_sync(columns_of, collection)
        if columns is None:
            return None
        version = find_version_column(columns)
        if version is None:
            raise ConfigError(
                f"sqlalchemy: the table {collection!r} is not ours: its columns are {sorted(columns)}"
            )
        digest = version.partition("_")[2]
        if not digest:
            return table_of(collection)
        source = claims_table(collection)
        found = await connection.execute(select(source.c.declared).where(source.c.claim == digest))
        declared = found.scalar_one_or_none()
        if declared is not None:  # else they have changed in between
            return table_of(collection, unique_from_json(orjson.loads(declared)))
    raise UnavailableError(f"sqlalchemy: the unique fields of {collection!r} keep changing")


async def change_declarations(connection: AsyncConnection, collection: str, change: Change) -> Table:
    """Change the unique fields of a collection that exists, and return its table.

    The connection has begun a transaction that may write. Waits for all writers, and reads all records
    once for each new field. Raises `ConfigError` that names duplicates, and `InvalidRecordError` for a
    record with a value that no unique field can have; then nothing is changed.
    """
    claims = claims_table(collection)
    await create_table(connection, claims)
    async with _lock(connection, table_of(collection), claims):
        table = await find_table(connection, collection)
        assert table is not None  # it is locked
        before = frozenset(table.info["unique"])
        some = (await connection.execute(select(table.c.key).limit(1))).first() is not None
        after = change(before, some)
        if after == before:
            return table
        await _delete_values(connection, claims, before ^ after)
        for unique in in_order(after - before):
            await _add_values(connection, table, claims, unique)
        changed = table_of(collection, after)
        declarations = claims.c.field == ""
        digest = set_digest(in_order(after))
        await connection.execute(delete(claims).where(declarations & (claims.c.claim == digest)))
        if after:
            row = {"claim": digest, "field": "", "key": "", "declared": unique_text(after)}
            await connection.execute(insert(claims), [row])
        quote = connection.dialect.identifier_preparer.quote
        names = (version_column(in_order(before)), version_column(in_order(after)))
        await connection.execute(
            text(f"ALTER TABLE {quote(collection)} RENAME COLUMN {quote(names[0])} TO {quote(names[1])}")
        )
        await connection.execute(delete(claims).where(declarations & (claims.c.claim != digest)))
        return changed


@contextlib.asynccontextmanager
async def _lock(connection: AsyncConnection, table: Table, claims: Table) -> AsyncIterator[None]:
    """Keep others from a table: in the transaction, or on MySQL and MariaDB beside it."""
    quote = connection.dialect.identifier_preparer.quote
    match connection.dialect.name:
        case "postgresql":
            await connection.execute(text(f"LOCK TABLE {quote(table.name)} IN ACCESS EXCLUSIVE MODE"))
            yield
        case "mysql" | "mariadb":  # ALTER TABLE commits there: the lock outlasts it
            names = f"{quote(table.name)} WRITE, {quote(claims.name)} WRITE"
            await connection.execute(text(f"LOCK TABLES {names}"))
            try:
                yield
                await connection.commit()
            except BaseException:
                await connection.rollback()
                raise
            finally:
                await connection.execute(text("UNLOCK TABLES"))
        case _:  # SQLite: the transaction has the only right to write
            yield


async def _delete_values(connection: AsyncConnection, claims: Table, declared: Iterable[Unique]) -> None:
    """Delete the values of fields: no longer unique, or left behind by a declaration that failed."""
    for unique in declared:
        await connection.execute(delete(claims).where(claims.c.field == field_digest(unique)))


async def _add_values(connection: AsyncConnection, table: Table, claims: Table, unique: Unique) -> None:
    found = await find_duplicates(connection, table, unique)
    if found:
        raise has_duplicates(table.name, unique, found)
    field = field_digest(unique)
    async for part in read_all(connection, table):
        rows: list[dict[str, Any]] = []
        for id, data in part:
            try:
                key = key_in(data, unique)
            except InvalidRecordError as error:
                error.record_id = id
                raise
            if key is not None:
                claim = claim_digest(unique, key)
                rows.append({"claim": claim, "field": field, "key": key_of(id), "declared": None})
        for chunk in chunks(rows):
            await connection.execute(insert(claims), chunk)
