"""A session's first settings: sent when it starts, or by SET behind a pooler that refuses them.

PgBouncer accepts few startup parameters. In session mode SET does the same, so that isthmus works
there without a setting. In transaction mode it would change somebody else's session: that mode is
recognized by two clients that are given the same session, and refused with the setting's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers.session import session_settings
from isthmus.errors import ConfigError

log = logging.getLogger("isthmus.postgres")

# Seconds. In session mode the second client waits if the pooler has no further session.
_PROBE_TIMEOUT = 2.0

# The pooler sets the name itself, which RESET ALL undoes.
_SET = """
SELECT count(pg_catalog.set_config(name, value, false)) FROM unnest($1::text[], $2::text[]) AS s (name, value)
"""
_PID = "SELECT pg_catalog.pg_backend_pid()"


class _NewSession(Protocol):
    """A connection of either driver, as far as this module uses it."""

    def transaction(self) -> Any: ...

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    async def execute(self, query: str) -> Any: ...


C = TypeVar("C", bound=_NewSession)


class StartupSettings:
    """Opens sessions with a config's settings, and knows whether the server lets them start so."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._are_refused = False
        self._finding_out = asyncio.Lock()

    @property
    def at_startup(self) -> dict[str, str]:
        """The settings to start a session with."""
        settings = session_settings(self._config)
        if self._are_refused:
            return {name: settings[name] for name in ("application_name",) if name in settings}
        return settings

    async def open(self, connect: Callable[[], Awaitable[C]], terminate: Callable[[C], None]) -> C:
        """Return a new session that has all settings; `connect` is to start it with `at_startup`.

        Raises `ConfigError` if a pooler in transaction mode is found; what `connect` raises otherwise.
        """
        if not self._are_refused:
            try:
                return await connect()
            except Exception as error:
                if not self._can_set_later(error):
                    raise
                await self._find_out(connect, terminate, error)
        connection = await connect()
        try:
            await self.restore(connection)
        except BaseException:
            terminate(connection)
            raise
        return connection

    async def restore(self, connection: _NewSession) -> None:
        """Set what the session was not started with; to be called after RESET ALL too."""
        if self._are_refused:
            settings = session_settings(self._config)
            await connection.fetchval(_SET, list(settings), list(settings.values()))

    def _can_set_later(self, error: Exception) -> bool:
        config = self._config
        return (
            config.pooler == "none"
            and config.options is None
            and "unsupported startup parameter" in str(error)
        )

    async def _find_out(
        self, connect: Callable[[], Awaitable[C]], terminate: Callable[[C], None], refusal: Exception
    ) -> None:
        """Set `_are_refused`, unless two clients share a session, as in transaction mode."""
        async with self._finding_out:
            if self._are_refused:
                return
            self._are_refused = True
            opened: list[C] = []
            try:
                if await _share_a_session(connect, opened):
                    raise ConfigError(
                        f"postgres: {refusal}; a pooler in transaction mode is in between: set"
                        ' pooler="transaction"'
                    ) from refusal
            except BaseException:
                self._are_refused = False
                raise
            finally:
                for connection in opened:
                    terminate(connection)
        log.info("the pooler refuses startup parameters; the settings of each session are SET")


async def _share_a_session(connect: Callable[[], Awaitable[C]], opened: list[C]) -> bool:
    """Return whether two clients were given one session; they are added to `opened`."""
    pids = []
    try:
        pids.append(await _read_pid(connect, opened))
        async with asyncio.timeout(_PROBE_TIMEOUT):
            pids.append(await _read_pid(connect, opened))
    except TimeoutError:
        return False  # session mode, and the pooler has no further session
    except Exception as error:
        # Of another client of that session: "already exists" or "does not exist".
        if "prepared statement" in str(error):
            return True
        raise
    return pids[0] == pids[1]


async def _read_pid(connect: Callable[[], Awaitable[C]], opened: list[C]) -> int:
    connection = await connect()
    opened.append(connection)
    async with connection.transaction():  # the driver's messages reach one session only inside of one
        return int(await connection.fetchval(_PID))
