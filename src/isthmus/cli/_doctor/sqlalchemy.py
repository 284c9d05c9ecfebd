"""Checks of a table of MariaDB or MySQL that others made: what is written, and what is evaluated here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

from isthmus.backends._tables.column import Kind
from isthmus.cli._doctor.finding import Finding, ok

if TYPE_CHECKING:
    from isthmus import AsyncDatabase
    from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
    from isthmus.backends.sqlalchemy.native.backend import NativeSQLAlchemyBackend


async def check_server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Say how a table that others made is served; what cannot be is reported by another check."""
    config = cast("SQLAlchemyConfig", db.config)
    if config.layout != "native":
        return
    from isthmus.backends._tables.indexes import Use
    from isthmus.backends.sqlalchemy.native.explain import can_serve
    from isthmus.errors import ConfigError

    backend = cast("NativeSQLAlchemyBackend", db._backend)
    try:
        await backend.open(config.table)
    except ConfigError:
        return
    reflected = backend.native_tables[config.table]
    table = reflected.table
    key = ", ".join(table.key)
    if table.read_only:
        yield ok("table", f"read-only, {table.read_only}; its key is {key}")
    else:
        yield ok("table", f"made by others; its key is {key}, the version of a row {table.version or 'none'}")
    unwritten = [column.name for column in table.columns if column.kind is Kind.OTHER]
    if unwritten:
        yield ok("columns", f"read as text and not written: {', '.join(unwritten)}")
    evaluated = [column.name for column in reflected.columns if column.value is None]
    here = f", and conditions on these: {', '.join(evaluated)}" if evaluated else ""
    yield ok("queries", f"aggregates are evaluated client-side{here}")
    begun = {columns[0] for columns in reflected.indexes.values()}
    unordered = [c.name for c in reflected.columns if c.name in begun and not can_serve(c, Use.RANGE)]
    if unordered:
        yield ok("indexes", f"none serves ranges and orders of these: {', '.join(unordered)}")
