"""Access to the driver's own client, for features that isthmus does not offer.

    client = await isthmus.native.elasticsearch(db)
    pool = await isthmus.native.postgres(db)
    async with db.transaction() as tx:
        await (await isthmus.native.postgres(tx)).execute("INSERT INTO audit VALUES ($1)", id)

The client is that of the running event loop. It belongs to the database, which closes it. Writes
through it are not covered by the guarantee that a search sees earlier writes. SQL joins a transaction
only through the transaction's own connection, which `postgres(tx)`, `sqlalchemy(tx)` and `sqlite(tx)` give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from isthmus._transaction import Transaction
from isthmus.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from elasticsearch import AsyncElasticsearch
    from isthmus._database import AsyncDatabase
    from isthmus.backends.postgres.pool.native import NativePool, NativeTransaction
    from isthmus.backends.sqlite.transaction import NativeSQLite

__all__ = ["elasticsearch", "postgres", "s3", "sqlalchemy", "sqlite"]

T = TypeVar("T")


async def elasticsearch(db: AsyncDatabase) -> AsyncElasticsearch:
    """Return the `AsyncElasticsearch` client of the running loop.

    Raises `UsageError` if the database is of another backend.
    """
    client: AsyncElasticsearch = await _native(db, "elasticsearch")
    return client


@overload
async def postgres(db: AsyncDatabase) -> NativePool: ...
@overload
async def postgres(db: Transaction) -> NativeTransaction: ...
async def postgres(db: AsyncDatabase | Transaction) -> NativePool | NativeTransaction:
    """Return the connection pool of the running loop, with the methods of asyncpg's pool.

    Release a connection that was acquired without `async with`. Of a transaction, return an object with
    the same methods for statements, whose SQL joins the transaction. Raises `UsageError` if the database
    is of another backend, `ClosedError` if the transaction has ended.
    """
    from isthmus.backends.postgres.pool.native import NativePool, NativeTransaction

    if isinstance(db, Transaction):
        from isthmus.backends.postgres.transaction import ConnectionTransaction, PostgresTransaction

        executor = _executor(db, "postgres", ConnectionTransaction)
        if db._scope is not None:
            own = _executor(db, "postgres", PostgresTransaction)
            await own.require_row_security(db.collection_name)
        return NativeTransaction(executor.lend, db._own.turn)
    return NativePool(await _native(db, "postgres"), db)


async def s3(db: AsyncDatabase) -> Any:
    """Return the aioboto3 client of the running loop, created on first use.

    Raises `UsageError` if the database is of another backend.
    """
    return await _native(db, "s3")


@overload
async def sqlalchemy(db: AsyncDatabase) -> AsyncEngine: ...
@overload
async def sqlalchemy(db: Transaction) -> AsyncConnection: ...
async def sqlalchemy(db: AsyncDatabase | Transaction) -> AsyncEngine | AsyncConnection:
    """Return the `AsyncEngine` of the running loop, or the application's own if it was given one.

    Of a transaction, return its `AsyncConnection`: used by one task at a time, closed with the
    transaction, which alone commits. Raises `UsageError` if the database is of another backend,
    `ClosedError` if the transaction has ended.
    """
    if isinstance(db, Transaction):
        from isthmus.backends.sqlalchemy.executor import SQLAlchemyTransaction

        return _executor(db, "sqlalchemy", SQLAlchemyTransaction).native
    engine: AsyncEngine = await _native(db, "sqlalchemy")
    return engine


async def sqlite(tx: Transaction) -> NativeSQLite:
    """Return an object whose `execute(sql, args)` and `fetch(sql, args)` join a transaction.

    Raises `UsageError` if the transaction is of another backend, `ClosedError` if it has ended.
    """
    from isthmus.backends.sqlite.transaction import NativeSQLite, SQLiteTransaction

    if not isinstance(tx, Transaction):
        raise UsageError("native.sqlite() takes a transaction: async with db.transaction() as tx")
    return NativeSQLite(_executor(tx, "sqlite", SQLiteTransaction), tx._own.turn)


def _executor(tx: Transaction, name: str, kind: type[T]) -> T:
    _refuse_scope(tx)
    session = tx._own
    session.ensure_open()
    executor = session.executor
    if not isinstance(executor, kind):
        raise UsageError(f"the backend of this transaction is {session.backend_name}, not {name}")
    return executor


def _refuse_scope(handle: AsyncDatabase | Transaction) -> None:
    scope = handle._scope
    if scope is not None and not (scope.row_security and isinstance(handle, Transaction)):
        raise UnsupportedError(
            "a scope has no native client, which sees all records; only its transactions have, and only with"
            " row_security=True",
            capability="native",
        )


async def _native(db: AsyncDatabase, name: str) -> Any:
    _refuse_scope(db)
    backend = db._backend
    if backend.name != name:
        raise UsageError(f"the backend of this database is {backend.name}, not {name}")
    db._core.refuse_closed()
    return await db._core.count(backend.native())
