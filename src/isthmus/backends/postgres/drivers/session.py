"""Which host a new connection goes to, how that host is verified, and with which secret."""

from __future__ import annotations

import inspect
import ipaddress
import random
import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from isthmus.backends.postgres.config import Address, PostgresConfig
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.backends.postgres.drivers.protocol import Driver

# Compiling a query costs tens of milliseconds, which ours never earn back (asyncpg #530).
DEFAULT_SETTINGS = {"jit": "off"}

# A dead peer is noticed within a minute; NAT gateways forget a silent connection after some minutes.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 30, 10, 3
USER_TIMEOUT_MS = 60_000

# DISCARD ALL without DEALLOCATE ALL, which would break the driver's cached statements.
RESET = """
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *;
SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES
"""

_TRY_ELSEWHERE = ("57P", "08", "53", "25006")


class WrongServerError(ConnectionError):
    """The host answers but is not of the kind asked for (a standby, say)."""


class Hosts:
    """The hosts of a pool: tried one after another, from the one that served last.

    With `last_resort` they are replicas, which share the load: every connection goes to the next
    one, and to the last resort's hosts if none of them serves.
    """

    def __init__(
        self, addresses: Sequence[Address], attrs: str, *, last_resort: Sequence[Address] = ()
    ) -> None:
        self._addresses = addresses
        self._last_resort = last_resort
        self._passes = ("standby", "any") if attrs == "prefer-standby" else (attrs,)
        self._start = random.randrange(len(addresses)) if last_resort else 0  # noqa: S311

    def patience(self, connect_timeout: float) -> float:
        """Return the seconds that it can take to hear from all hosts."""
        hosts = len(self._addresses) + len(self._last_resort)
        return connect_timeout * (hosts * len(self._passes) + 1)

    async def connect(self, driver: Driver) -> Any:
        """Return a connection with the first host that answers and fits; raises the last host's error.

        A host that refuses our credentials ends the search, as in libpq. `prefer-standby` takes
        any server if no standby answers.
        """
        failure: Exception | None = None
        for address, attrs in self._candidates():
            try:
                connection = await driver.open(address, attrs)
            except Exception as error:
                if not _try_elsewhere(error):
                    raise
                failure = error
            else:
                self._served(address)
                return connection
        assert failure is not None, "there is at least one host"
        raise failure

    def _candidates(self) -> Iterator[tuple[Address, str]]:
        turned = [*self._addresses[self._start :], *self._addresses[: self._start]]
        for attrs in self._passes:
            for address in (*turned, *self._last_resort):
                yield address, attrs

    def _served(self, address: Address) -> None:
        if address in self._addresses:
            place = self._addresses.index(address)
            self._start = (place + 1) % len(self._addresses) if self._last_resort else place


def _try_elsewhere(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_TRY_ELSEWHERE)
    # psycopg's OperationalError has no SQLSTATE when the server never spoke.
    return isinstance(error, OSError | TimeoutError) or type(error).__name__ == "OperationalError"


async def secret_of(config: PostgresConfig) -> str | None:
    """Return the password for one new connection, asking the config's function if it is one."""
    password = config.password
    if callable(password):
        answer = password()
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, SecretStr):
            return answer.get_secret_value()
        if not isinstance(answer, str):
            raise ConfigError(f"postgres: the password function returned {type(answer).__name__}, not text")
        return answer
    return None if password is None else password.get_secret_value()


def is_local(host: str) -> bool:
    """Return whether a host is this machine: a socket, `localhost` or a loopback address."""
    if host.startswith(("/", "@")) or host.lower() in ("localhost", "localhost.localdomain"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def tls_mode(config: PostgresConfig, host: str) -> str:
    """Return how far TLS is verified with a host, in libpq's words; in full, save on this machine."""
    match config.ssl:
        case None:
            return "disable" if is_local(host) else "verify-full"
        case True:
            return "verify-full"
        case False:
            return "disable"
        case str() as mode:
            return mode
        case _:
            return "require"


def tls_context(config: PostgresConfig, host: str) -> ssl.SSLContext | str | bool:
    """Return what asyncpg takes as `ssl` for a host: False, `allow` or `prefer`, or a context that verifies.

    Without `ssl_root_cert` the system's authorities are trusted. `require` encrypts and verifies
    nothing, as in libpq, unless `ssl_root_cert` is given.
    """
    if isinstance(config.ssl, ssl.SSLContext):
        return config.ssl
    mode = tls_mode(config, host)
    if mode == "disable" or host.startswith("/"):
        return False
    if mode in ("allow", "prefer"):
        return mode
    return _context(config, mode)


def _context(config: PostgresConfig, mode: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ssl_root_cert)
        context.check_hostname = mode == "verify-full"
        if mode == "require" and config.ssl_root_cert is None:
            context.verify_mode = ssl.CERT_NONE
        if config.ssl_cert is not None:
            secret = config.ssl_key_password
            context.load_cert_chain(
                config.ssl_cert, config.ssl_key, None if secret is None else secret.get_secret_value()
            )
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(
            name for name in ("ssl_root_cert", "ssl_cert", "ssl_key") if getattr(config, name) is not None
        )
        raise ConfigError(f"postgres: {names or 'the TLS files'} cannot be read: {error}") from error
    if ssl.HAS_ALPN:
        context.set_alpn_protocols(["postgresql"])
    return context


def session_settings(config: PostgresConfig) -> dict[str, str]:
    """Return the settings to start a session with; behind a pooler only those that it is known to take."""
    settings = {"application_name": config.application_name} if config.application_name else {}
    if config.pooler == "none":
        settings |= DEFAULT_SETTINGS
    return settings | config.server_settings
