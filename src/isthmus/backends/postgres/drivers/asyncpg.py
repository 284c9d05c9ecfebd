"""asyncpg behind the driver protocol; with `asyncpg_codecs` all that uses asyncpg's private attributes.

Those are the ones that asyncpg's own pool uses (`_protocol`, `_transport`, `_top_xact`), and its reading of
password files; the tests of the pool fail if a version of asyncpg moves them.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
import asyncpg.compat
import asyncpg.connect_utils
import asyncpg.pool

from isthmus.backends.postgres.address import KEEPALIVE, Address
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers.asyncpg_codecs import OwnCodecs
from isthmus.backends.postgres.drivers.protocol import Connection, DriverTransaction
from isthmus.backends.postgres.drivers.session import (
    RESET,
    WrongServerError,
    keepalive_of,
    note_unused,
    secret_of,
    tls_context,
)
from isthmus.backends.postgres.drivers.startup import StartupSettings


class AsyncpgDriver:
    """Opens and inspects `asyncpg.Connection`s."""

    name = "asyncpg"
    interface_error: type[Exception] = asyncpg.InterfaceError

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._overrides: dict[str, Any] = {}
        self._has_hooks = config.pool.has_hooks
        self._connect = config.pool.connect or asyncpg.connect
        self._startup = StartupSettings(config)
        note_unused(config, KEEPALIVE)
        self.on_schema_change: Callable[[], None] = lambda: None

    def set_connect_args(self, **arguments: Any) -> None:
        """Override arguments of `asyncpg.connect` for future connections."""
        self._overrides = arguments

    async def open(self, address: Address, attrs: str) -> asyncpg.Connection:
        """Open a session with one host."""
        connection = await self._startup.open(lambda: self._open(address, attrs), self.terminate)
        if self._config.tcp_keepalive:
            _keep_alive(connection, keepalive_of(self._config))
        return connection

    async def _open(self, address: Address, attrs: str) -> asyncpg.Connection:
        arguments = self._arguments(address, attrs)
        if "password" not in self._overrides:
            arguments["password"] = await self._password(address)
        arguments |= self._overrides
        if "dsn" in self._overrides:  # it holds the address, which the config's would override
            for name in {"host", "port", "user", "password", "database"} - self._overrides.keys():
                arguments.pop(name, None)
        try:
            return await self._connect(**arguments)
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise WrongServerError(f"{address[0]}:{address[1]} is not {attrs}") from error

    async def _password(self, address: Address) -> str | None:
        """Return the password; None if asyncpg has to look into the password file."""
        config = self._config
        secret = await secret_of(config)
        if secret is not None or "PGPASSWORD" not in os.environ:
            return secret
        # The config has dropped that of the environment, which asyncpg would take nevertheless.
        home = asyncpg.compat.get_pg_home_directory()
        passfile = config.passfile or (home and home / asyncpg.connect_utils.PGPASSFILE)
        found = passfile and asyncpg.connect_utils._read_password_from_pgpass(
            passfile=passfile,
            hosts=[address[0]],
            ports=[address[1]],
            database=config.database,
            user=config.user or getpass.getuser(),
        )
        return found or ""

    def _arguments(self, address: Address, attrs: str) -> dict[str, Any]:
        config, (host, port) = self._config, address
        arguments: dict[str, Any] = {
            "host": host,
            "port": port,
            "user": config.user,
            "database": config.database,
            "ssl": tls_context(config, host),
            "timeout": config.connect_timeout,
            "command_timeout": config.command_timeout,
            "server_settings": self._startup.at_startup | _startup_options(config),
            "target_session_attrs": attrs,
            # A pooler gives each transaction another session, in which nothing is prepared.
            "statement_cache_size": 0 if config.pooler == "transaction" else config.statement_cache_size,
            # No timer per statement: connections have a lifetime themselves.
            "max_cached_statement_lifetime": 0,
        }
        if config.passfile is not None:
            arguments["passfile"] = str(config.passfile)
        if config.pool.connection_class is not None:
            arguments["connection_class"] = config.pool.connection_class
        if config.pool.record_class is not None:
            arguments["record_class"] = config.pool.record_class
        return arguments

    def without_codecs(self, connection: asyncpg.Connection) -> Connection:
        """Return the connection, or where hooks may have registered codecs an object that ignores them."""
        return OwnCodecs(connection) if self._has_hooks else connection

    def is_ready(self, connection: Any) -> bool:
        """Return whether the session is alive, idle and outside of a transaction."""
        protocol = connection._protocol
        return (
            protocol is not None
            and protocol.is_connected()
            and not protocol.is_in_transaction()
            and not protocol._is_cancelling()
            # Set by a BEGIN that was cancelled before the server saw it.
            and connection._top_xact is None
            # Another task is still in a call on it.
            and not connection._stmt_exclusive_section._acquired
        )

    def is_alive(self, connection: Any) -> bool:
        """Return whether the session is not known to be over."""
        return not connection.is_closed()

    def is_standby(self, connection: asyncpg.Connection) -> bool | None:
        """Return whether the server reported that it is a standby."""
        reported = getattr(connection.get_settings(), "in_hot_standby", None)
        return None if reported is None else reported == "on"

    async def settle(self, connection: asyncpg.Connection) -> None:
        """Wait for a cancelled statement, roll back, and check that the session responds."""
        if connection.is_in_transaction() or connection._top_xact is not None:
            _expect_rollback(connection)
            await connection._reset()
        # asyncpg waits here for the cancellation; a cancel request that arrives late hits this
        # statement and not the next user's.
        await connection.execute("SELECT 1")

    async def reset(self, connection: asyncpg.Connection) -> None:
        """Settle, and undo what raw SQL can have done to the session."""
        _expect_rollback(connection)
        await connection._reset()
        connection._query_loggers.clear()
        connection._termination_listeners.clear()
        if self._config.pooler == "none":
            await connection.execute(RESET)
            await self._startup.restore(connection)
        else:
            await connection.execute("SELECT 1")

    async def in_recovery(self, connection: asyncpg.Connection, timeout: float) -> bool:
        """Return whether the server is a standby."""
        return bool(await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()", timeout=timeout))

    async def commit(self, connection: asyncpg.Connection, transaction: DriverTransaction) -> bool:
        """Commit; unlike asyncpg's own `commit`, tell that the server answered ROLLBACK."""
        connection._top_xact = None
        return bool(await connection.execute("COMMIT") == "COMMIT")

    def lend(self, connection: asyncpg.Connection) -> LentConnection:
        """Return asyncpg's own kind of proxy, which ends with the checkout."""
        return LentConnection(connection, self.on_schema_change)

    def take_back(self, lent: Any) -> tuple[asyncpg.Connection | None, bool]:
        """Disable a proxy, and with it prepared statements and cursors made through it."""
        connection = lent._con
        if connection is None:
            return None, False
        connection._on_release()
        lent._detach()
        return connection, not lent.has_codecs

    async def close(self, connection: asyncpg.Connection, timeout: float) -> None:
        """Close the session in order; drop the socket if that fails."""
        try:
            await connection.close(timeout=timeout)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()

    def terminate(self, connection: asyncpg.Connection) -> None:
        """Drop the socket without waiting."""
        connection.terminate()

    def discard(self, connection: asyncpg.Connection) -> None:
        """Drop the socket without a warning although the loop may be dead."""
        transport = connection._transport
        with contextlib.suppress(RuntimeError):  # "Event loop is closed": the transport is dropped below
            connection.terminate()
        _drop_transport(transport)


class LentConnection(asyncpg.pool.PoolConnectionProxy):  # type: ignore[misc]  # asyncpg has no types
    """A connection lent to a user who runs raw SQL."""

    def __init__(self, connection: asyncpg.Connection, on_schema_change: Callable[[], None]) -> None:
        # asyncpg calls the holder's pool to drop cached statements; this object is both.
        super().__init__(self, connection)
        self.has_codecs = False
        self._on_schema_change = on_schema_change

    @property
    def _pool(self) -> LentConnection:
        return self

    def _drop_statement_cache(self) -> None:
        self._con._drop_local_statement_cache()
        self._on_schema_change()

    def _drop_type_cache(self) -> None:
        self._con._drop_local_type_cache()
        self._on_schema_change()

    async def set_type_codec(self, typename: str, **options: Any) -> None:
        """As in asyncpg. The connection is closed afterwards: isthmus needs the driver's own codecs."""
        self.has_codecs = True
        await self._con.set_type_codec(typename, **options)

    async def set_builtin_type_codec(self, typename: str, **options: Any) -> None:
        """As in asyncpg. The connection is closed afterwards."""
        self.has_codecs = True
        await self._con.set_builtin_type_codec(typename, **options)


def _expect_rollback(connection: Any) -> None:
    """Keep `_reset` from reporting an open transaction: it is open because its task was cancelled."""
    if connection._top_xact is None and connection._protocol.is_in_transaction():
        # A raw BEGIN: asyncpg looks for a transaction object that manages it.
        connection._top_xact = connection.transaction()
    if connection._top_xact is not None:
        connection._top_xact._managed = True


def _startup_options(config: PostgresConfig) -> dict[str, str]:
    return {} if config.options is None else {"options": config.options}


def _keep_alive(connection: Any, times: Mapping[str, int]) -> None:
    sock = connection._transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", times["keepalives_idle"]),
        ("TCP_KEEPINTVL", times["keepalives_interval"]),
        ("TCP_KEEPCNT", times["keepalives_count"]),
        ("TCP_USER_TIMEOUT", times["tcp_user_timeout"]),
    ):
        if hasattr(socket, option):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _drop_transport(transport: asyncio.BaseTransport | None) -> None:
    """Close a transport's socket now, although its loop may be dead.

    `abort` alone closes it in the loop's next turn, which never comes on a dead loop; the
    transport would then warn when it is collected.
    """
    if transport is None:
        return
    transport = _socket_transport(transport)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # closed or never connected
            sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(RuntimeError):  # "Event loop is closed"
        abort = getattr(transport, "abort", None)
        if abort is not None:
            abort()
    finish = getattr(transport, "_call_connection_lost", None)
    loop = getattr(transport, "_loop", None)
    # asyncio's transports close their socket in this callback, which a dead loop never runs.
    if finish is not None and loop is not None and loop.is_closed():
        finish(None)


def _socket_transport(transport: Any) -> Any:
    """Return the socket's own transport below TLS."""
    protocol = getattr(transport, "_ssl_protocol", None)
    below = getattr(protocol, "_transport", None)
    return transport if below is None else below
