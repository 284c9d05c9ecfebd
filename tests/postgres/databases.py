"""Handles on tables of their own for the tests of the PostgreSQL backend."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from isthmus import AsyncDatabase
from tests.servers import server


def url(kind: str = "postgres") -> str:
    """Return the test server's URL, or skip."""
    return server(kind).url


def fresh_name() -> str:
    """Return a table name that nobody has."""
    return f"t_{secrets.token_hex(6)}"


@contextlib.asynccontextmanager
async def opened(address: str | None = None, /, **settings: Any) -> AsyncIterator[AsyncDatabase]:
    """Open a handle on a new table, and drop that on leaving."""
    settings = {"url": address or url(), "table": fresh_name(), **settings}
    db = await AsyncDatabase.create("postgres", settings)
    try:
        yield db
    finally:
        await db._backend.drop(db.collection_name)
        await db.close()


@contextlib.asynccontextmanager
async def connected(address: str | None = None) -> AsyncIterator[Any]:
    """Open a driver's connection to look at the server from outside."""
    connection = await asyncpg.connect(address or url())
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def fresh_schema(tables: str) -> AsyncIterator[Any]:
    """Yield a connection whose new schema, on its search path, has these tables; drop it on leaving."""
    schema = fresh_name()
    async with connected() as sql:
        await sql.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}; {tables}")
        try:
            yield sql
        finally:
            await sql.execute(f"DROP SCHEMA {schema} CASCADE")


@contextlib.asynccontextmanager
async def fresh_database(address: str | None = None) -> AsyncIterator[str]:
    """Create a database and return its URL; drop it on leaving."""
    address = address or url()
    name = f"db_{secrets.token_hex(6)}"
    async with connected(address) as admin:
        await admin.execute(f'CREATE DATABASE "{name}"')
        try:
            yield f"{address.rpartition('/')[0]}/{name}"
        finally:
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
