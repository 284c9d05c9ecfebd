"""psycopg 3 behind the driver protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import traceback
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from isthmus.backends.postgres.address import KEEPALIVE, LIBPQ, Address
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers.protocol import DriverTransaction
from isthmus.backends.postgres.drivers.psycopg_connection import ADAPTERS, RELEASED_SESSION, PsycopgConnection
from isthmus.backends.postgres.drivers.session import (
    RESET,
    WrongServerError,
    keepalive_of,
    note_unused,
    secret_of,
    tls_mode,
)
from isthmus.backends.postgres.drivers.startup import StartupSettings
from isthmus.errors import ConfigError


class PsycopgDriver:
    """Opens and inspects `PsycopgConnection`s."""

    name = "psycopg"
    interface_error: type[Exception] = psycopg.InterfaceError

    def __init__(self, config: PostgresConfig) -> None:
        if isinstance(config.ssl, ssl.SSLContext):
            raise ConfigError("postgres: psycopg takes no SSLContext; give `ssl` a mode, and ssl_root_cert")
        if config.pool.record_class is not None:
            raise ConfigError("postgres: pool.record_class is for asyncpg only")
        self._config = config
        self.on_schema_change: Callable[[], None] = lambda: None
        self._overrides: dict[str, Any] = {}
        self._startup = StartupSettings(config)
        note_unused(config, LIBPQ)
        klass = config.pool.connection_class or psycopg.AsyncConnection
        self._connect = config.pool.connect or klass.connect  # type: ignore[attr-defined]

    def set_connect_args(self, **arguments: Any) -> None:
        """Override arguments of `psycopg.AsyncConnection.connect` for future connections."""
        self._overrides = arguments

    async def open(self, address: Address, attrs: str) -> PsycopgConnection:
        """Open a session with one host."""
        return await self._startup.open(lambda: self._open(address, attrs), self.terminate)

    async def _open(self, address: Address, attrs: str) -> PsycopgConnection:
        config, (host, port), settings = self._config, address, self._startup.at_startup
        arguments: dict[str, Any] = {
            "host": host,
            "port": port,
            "user": config.user,
            "dbname": config.database,
            **await self._secrets(),
            "target_session_attrs": attrs,
            "application_name": settings.pop("application_name", None),
            # An empty text is libpq's default; for None it would read the environment, which the config has.
            "options": " ".join(filter(None, (_options(settings), config.options))),
            "hostaddr": "",
            "client_encoding": "UTF8",
            **self._tls(host),
            **_keepalive_arguments(config),
            **{
                name: value for name, value in config.libpq.items() if name in LIBPQ and name not in KEEPALIVE
            },
            "autocommit": True,
            # A pooler gives each transaction another session, in which nothing is prepared.
            "prepare_threshold": None if config.pooler == "transaction" else 0,
            "context": ADAPTERS,
        }
        arguments |= self._overrides
        try:
            async with asyncio.timeout(config.connect_timeout):
                try:
                    raw = await self._connect(**arguments)
                except asyncio.CancelledError as error:
                    # When cancelled, psycopg leaves its half-open session to the garbage collector.
                    # Clearing the frames that hold it closes the socket at once.
                    traceback.clear_frames(error.__traceback__)
                    raise
        except psycopg.OperationalError as error:
            if error.sqlstate is None and attrs != "any" and "session is" in str(error):
                raise WrongServerError(f"{host}:{port} is not {attrs}: {error}") from error
            raise
        raw.prepared_max = config.statement_cache_size or None
        return PsycopgConnection(raw, config.command_timeout)

    async def _secrets(self) -> dict[str, str | None]:
        """Return password and password file, each so that libpq does not look for another one."""
        passfile = None if self._config.passfile is None else str(self._config.passfile)
        if "password" in self._overrides:
            return {"passfile": passfile}
        secret = await secret_of(self._config)
        if secret is None:
            return {"password": "", "passfile": passfile}
        return {"password": secret, "passfile": passfile or os.devnull}

    def _tls(self, host: str) -> dict[str, Any]:
        config = self._config
        mode = tls_mode(config, host)
        root: str | None = None if config.ssl_root_cert is None else str(config.ssl_root_cert)
        if root is None and mode in ("verify-ca", "verify-full"):
            root, mode = "system", "verify-full"  # libpq uses the system's authorities in this mode only
        secret = config.ssl_key_password
        return {
            "sslmode": mode,
            "sslrootcert": root,
            "sslcert": None if config.ssl_cert is None else str(config.ssl_cert),
            "sslkey": None if config.ssl_key is None else str(config.ssl_key),
            "sslpassword": None if secret is None else secret.get_secret_value(),
            # libpq would try it before TLS and the password wherever a ticket cache exists.
            "gssencmode": "disable",
        }

    def without_codecs(self, connection: PsycopgConnection) -> PsycopgConnection:
        """Return the connection itself: its cursors have adapters of their own unless it is lent."""
        return connection

    def is_ready(self, connection: PsycopgConnection) -> bool:
        """Return whether the session is alive, idle and outside of a transaction."""
        pgconn = connection.raw.pgconn
        return (
            pgconn.status == ConnStatus.OK
            and pgconn.transaction_status == TransactionStatus.IDLE
            and not connection.running
        )

    def is_alive(self, connection: PsycopgConnection) -> bool:
        """Return whether the session is not known to be over; looks at the socket, as psycopg does not."""
        pgconn = connection.raw.pgconn
        if pgconn.status != ConnStatus.OK:
            return False
        if pgconn.transaction_status != TransactionStatus.IDLE or connection.running:
            return True
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        for _ in range(
            3
        ):  # the server sent something unasked: a notice; or its shutdown message, then the end
            if not poll.poll(0):
                break
            try:
                pgconn.consume_input()
            except psycopg.OperationalError:
                return False
        return bool(pgconn.status == ConnStatus.OK)

    def is_standby(self, connection: PsycopgConnection) -> bool | None:
        """Return whether the server reported that it is a standby."""
        reported = connection.raw.pgconn.parameter_status(b"in_hot_standby")
        return None if reported is None else reported == b"on"

    async def settle(self, connection: PsycopgConnection) -> None:
        """Wait for cancelled calls, roll back, and check that the session responds."""
        if connection.running:
            await asyncio.wait(set(connection.running))
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        await connection.execute("SELECT 1")

    async def reset(self, connection: PsycopgConnection) -> None:
        """Settle, and undo what raw SQL can have done to the session."""
        await self.settle(connection)
        if self._config.pooler == "none":
            await connection.execute(RESET)
            await self._startup.restore(connection)

    async def in_recovery(self, connection: PsycopgConnection, timeout: float) -> bool:
        """Return whether the server is a standby."""
        return bool(await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()", timeout=timeout))

    async def commit(self, connection: PsycopgConnection, transaction: DriverTransaction) -> bool:
        """Commit; tell whether the server did."""
        return await connection.execute("COMMIT") == "COMMIT"

    def lend(self, connection: PsycopgConnection) -> PsycopgConnection:
        """Return another object for the same session."""
        return PsycopgConnection(connection.raw, self._config.command_timeout, owner=connection)

    def take_back(self, lent: PsycopgConnection) -> tuple[PsycopgConnection | None, bool]:
        """Detach the session from that object."""
        connection, lent.owner = lent.owner, None
        lent.raw = RELEASED_SESSION
        return connection, True

    async def close(self, connection: PsycopgConnection, timeout: float) -> None:
        """Close the session in order, which libpq does without waiting."""
        if connection.running:
            await asyncio.wait(set(connection.running), timeout=timeout)
        self.terminate(connection)

    def terminate(self, connection: PsycopgConnection) -> None:
        """Drop the socket without waiting."""
        raw = connection.raw
        if raw.pgconn.status != ConnStatus.OK:
            return
        raw._closed = True  # keeps its finalizer from warning; `close` itself must be awaited
        if not connection.running:
            raw.pgconn.finish()
            return
        # A running task waits for this socket: shutting it down ends the task first.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(raw.pgconn.socket)) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        for task in connection.running:
            task.add_done_callback(lambda _: raw.pgconn.finish())

    def discard(self, connection: PsycopgConnection) -> None:
        """Drop the socket without a warning; libpq uses no loop."""
        connection.raw._closed = True
        connection.raw.pgconn.finish()


def _options(settings: dict[str, str]) -> str:
    """Return settings as libpq's `options`, where a backslash escapes a space."""
    escaped = {name: value.replace("\\", "\\\\").replace(" ", "\\ ") for name, value in settings.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


def _keepalive_arguments(config: PostgresConfig) -> dict[str, Any]:
    if not config.tcp_keepalive:
        return {"keepalives": 0}
    return {"keepalives": 1, **keepalive_of(config)}
