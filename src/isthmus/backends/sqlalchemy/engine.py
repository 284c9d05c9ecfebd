"""Engines: ours by URL, one for each loop, or the application's; and how a transaction begins on one."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from isthmus._core.clock import REPEAT_SECONDS
from isthmus._core.closing import CLOSE_SECONDS, CLOSINGS
from isthmus.backends.sqlalchemy.address import describe_refusal, read_address
from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
from isthmus.errors import ConfigError, MissingExtraError
from sqlalchemy import event

_LOOK_SECONDS = 0.01


class EnginePool:
    """An engine as a pool of one event loop."""

    def __init__(self, engine: AsyncEngine, *, ours: bool) -> None:
        self.engine = engine
        self._ours = ours
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Close the connections of our engine, once they are given back; the application's is not touched."""
        if not self._ours:
            return
        pool: Any = self.engine.pool
        # SQLAlchemy tells of a connection before it is back, and closes none that comes back later.
        while hasattr(pool, "checkedout") and pool.checkedout():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        await self.engine.dispose()

    def discard(self) -> None:
        """Close each connection when its statement has ended; those of a dead loop are forgotten.

        The drivers have no common way to end one: a caller of aiosqlite or asyncmy would wait forever.
        """
        if not self._ours:
            return
        if self._loop.is_running():
            CLOSINGS.finish(asyncio.wait_for(self.close(), CLOSE_SECONDS), "isthmus-pool-drop")
        else:
            self.engine.sync_engine.dispose(close=False)

    def is_healthy(self) -> bool:
        """Return True: the engine reconnects by itself."""
        return True


def dialect_of(config: SQLAlchemyConfig) -> str:
    """Return the name of the dialect, such as `mysql`; no I/O.

    Raises `ConfigError` unless there is either a valid URL or an AsyncEngine.
    """
    if (config.address is None) == (config.engine is None):
        raise ConfigError("sqlalchemy: give a url such as sqlalchemy+mysql+asyncmy://…, or an engine")
    if config.engine is not None:
        if not isinstance(config.engine, AsyncEngine):
            raise ConfigError(
                f"sqlalchemy: engine must be an AsyncEngine, not a {type(config.engine).__name__}"
            )
        return config.engine.dialect.name
    assert config.address is not None
    url = read_address(config.address.get_secret_value())
    if url is None:
        raise ConfigError("sqlalchemy: the address is no SQLAlchemy URL")
    return url.get_backend_name()


def open_engine(config: SQLAlchemyConfig) -> EnginePool:
    """Return the application's engine, or a new one for the address; no I/O."""
    if config.engine is not None:
        return EnginePool(config.engine, ours=False)
    assert config.address is not None
    address = make_url(config.address.get_secret_value())
    options: dict[str, Any] = {"pool_recycle": config.pool.recycle}
    if address.get_backend_name() != "sqlite":
        # SQLAlchemy chooses SQLite's pool by whether it is a file; the others take our sizes.
        options |= {
            "pool_size": config.pool.size,
            "max_overflow": config.pool.max_overflow,
            "pool_timeout": config.pool.timeout,
        }
    if address.get_backend_name() in ("mysql", "mariadb"):
        # Their default level locks the gaps between keys, so that writers of different records
        # deadlock, and reads a snapshot from before a lock was granted.
        options["isolation_level"] = "READ COMMITTED"
    engine = _create_engine(address, options)
    event.listen(engine.sync_engine, "do_connect", functools.partial(_connect, address))
    if address.get_backend_name() in ("mysql", "mariadb"):
        seconds = lock_wait_of(config)
        event.listen(engine.sync_engine, "connect", functools.partial(_set_lock_wait, seconds))
    return EnginePool(engine, ours=True)


def _create_engine(address: URL, options: Mapping[str, Any]) -> AsyncEngine:
    problem = ""
    try:
        return create_async_engine(address, **options)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this URL needs the driver {error.name}: pip install {error.name}", extra="sqlalchemy"
        ) from None
    # A ValueError is that of int() or float() for a driver's option.
    except (ArgumentError, InvalidRequestError, ValueError) as error:
        problem = describe_refusal(error, address)
    # Outside the except block: SQLAlchemy's error holds the URL's options, and would be this one's context.
    raise ConfigError(f"sqlalchemy: {problem}")


def _connect(
    address: URL, dialect: Dialect, record: object, args: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """Open a connection; raises `ConfigError` for an option of the URL that the driver does not take."""
    problem = ""
    try:
        return dialect.connect(*args, **options)
    except (TypeError, ValueError) as error:
        problem = describe_refusal(error, address)
    raise ConfigError(f"sqlalchemy: the driver does not take an option of the URL: {problem}")


def lock_wait_of(config: SQLAlchemyConfig) -> int:
    """Return the seconds that MySQL and MariaDB wait for a record's lock: a third of the deadline.

    Their own 50 s outlast the deadline of a call and of `run`, which could then not repeat it; and a
    statement whose caller is gone keeps the locks that it has until the wait ends. Whole seconds only.
    """
    return max(1, int((config.deadline or REPEAT_SECONDS) / 3))


def _set_lock_wait(seconds: int, connection: Any, record: object) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {seconds}")
    finally:
        cursor.close()


async def begin_write(connection: AsyncConnection) -> None:
    """Begin a transaction that will write.

    SQLAlchemy leaves this to the driver. Python's sqlite3 begins at the first statement that
    writes: too late for a savepoint, which would commit on its release, and for a read before it,
    whose lock cannot be upgraded while another connection waits to do so.
    """
    if connection.dialect.name != "sqlite":
        return
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    if not driver.in_transaction:  # an application's engine may begin by a hook of its own
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
