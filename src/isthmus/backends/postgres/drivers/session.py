"""Settings of a new session that both drivers share: secret, TLS, server settings, keepalive."""

from __future__ import annotations

import inspect
import ipaddress
import logging
import ssl
from collections.abc import Collection

from pydantic import SecretStr

from isthmus._path import is_encodable
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.errors import ConfigError

# Compiling a query costs tens of milliseconds, which short queries never save (asyncpg #530).
DEFAULT_SETTINGS = {"jit": "off"}

# Seconds and counts: a dead peer is noticed within a minute; NAT gateways drop connections that are silent
# for some minutes.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 30, 10, 3
USER_TIMEOUT_MS = 60_000

# DISCARD ALL without DEALLOCATE ALL, which would break the driver's cached statements.
RESET = """
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *;
SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES
"""


log = logging.getLogger("isthmus.postgres")
_noted: set[str] = set()


def note_unused(config: PostgresConfig, used: Collection[str]) -> None:
    """Log once for each parameter of libpq that it changes nothing with this driver."""
    for name in sorted(config.libpq.keys() - set(used) - _noted):
        _noted.add(name)
        log.info("%s=%s is accepted and changes nothing (driver %s)", name, config.libpq[name], config.driver)


def keepalive_of(config: PostgresConfig) -> dict[str, int]:
    """Return libpq's parameters of keepalive with the config's values, else ours."""
    ours = {
        "keepalives_idle": KEEPALIVE_IDLE,
        "keepalives_interval": KEEPALIVE_INTERVAL,
        "keepalives_count": KEEPALIVE_PROBES,
        "tcp_user_timeout": USER_TIMEOUT_MS,
    }
    return {name: int(config.libpq.get(name, value)) for name, value in ours.items()}


class WrongServerError(ConnectionError):
    """The host values but lacks the session attributes: it is a standby, for example."""


async def secret_of(config: PostgresConfig) -> str | None:
    """Return the password for one new connection, calling the config's function if it is one."""
    password = config.password
    if callable(password):
        value = password()
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if not isinstance(value, str):
            raise ConfigError(f"postgres: the password function returned {type(value).__name__}, not text")
        if not is_encodable(value):
            raise ConfigError("postgres: the password function returned a text that is not UTF-8")
        return value
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
    """Return libpq's name of the TLS mode for a host; by default `verify-full`, on this machine `disable`."""
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
    """Return asyncpg's `ssl` argument for a host: False, `allow`, `prefer`, or a context that verifies.

    Without `ssl_root_cert` the system's authorities are trusted. As in libpq `require` encrypts and
    verifies nothing, unless `ssl_root_cert` is given.
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
    """Return the settings to start a session with; behind a pooler only those that poolers accept."""
    settings = {"application_name": config.application_name} if config.application_name else {}
    if config.pooler == "none":
        settings |= DEFAULT_SETTINGS
    return settings | config.server_settings
