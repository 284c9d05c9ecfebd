"""Where a PostgreSQL server is: hosts, libpq's connection text, the environment, what hosts' URLs have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from isthmus.errors import ConfigError

Address: TypeAlias = tuple[str, int]

LIBPQ = (
    "channel_binding", "sslnegotiation", "gssencmode", "keepalives_idle", "keepalives_interval",
    "keepalives_count", "tcp_user_timeout", "sslcrl", "sslcrldir", "sslsni", "sslcompression",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "require_auth", "requirepeer", "krbsrvname",
    "gsslib", "gssdelegation", "sslcertmode",
)  # fmt: skip
"""Parameters of libpq that psycopg is given as they are, under `libpq`."""
KEEPALIVE = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
"""Those of them that asyncpg's sockets have too."""
WITHOUT_EFFECT = ("supa", "workaround", "uselibpqcompat", "client_encoding")
"""Options of hosts' URLs that change nothing here: modes of `ssl` are libpq's, and text is always UTF-8."""

# Of asyncpg's `create_pool`.
HOOKS = ("setup", "init", "reset", "connect", "connection_class", "record_class")

SPELLINGS: Mapping[str, str] = {
    "dsn": "url",
    "uri": "url",
    "connection_string": "url",
    "hosts": "host",
    "hostname": "host",
    "dbname": "database",
    "db": "database",
    "username": "user",
    "passwd": "password",
    "schema": "schema_name",
    "text": "prefix",
    "collection": "table",
    "sslmode": "ssl",
    "sslrootcert": "ssl_root_cert",
    "sslcert": "ssl_cert",
    "sslkey": "ssl_key",
    "sslpassword": "ssl_key_password",
    "keepalives": "tcp_keepalive",
    "fallback_application_name": "application_name",
    "min_connections": "pool.min_size",
    "max_connections": "pool.max_size",
    "connection_limit": "pool.max_size",
    "min_size": "pool.min_size",
    "max_size": "pool.max_size",
    "pool_timeout": "pool.timeout",
    "max_queries": "pool.max_queries",
    "max_inactive_connection_lifetime": "pool.max_idle",
    **{name: f"pool.{name}" for name in HOOKS},
    "timeout": "connect_timeout",
    "prepared_statement_cache_size": "statement_cache_size",
    "merge": "coalesce",
    **{name: f"libpq.{name}" for name in (*LIBPQ, *WITHOUT_EFFECT)},
}

VARIABLES: Mapping[str, str] = {
    "DB_HOST": "host",
    "DB_PORT": "port",
    "DB_NAME": "database",
    "DB_USER": "user",
    "DB_PASSWORD": "password",
    "PGHOST": "host",
    "PGPORT": "port",
    "PGDATABASE": "database",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGSSLMODE": "ssl",
    "PGSSLROOTCERT": "ssl_root_cert",
    "PGSSLCERT": "ssl_cert",
    "PGSSLKEY": "ssl_key",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGAPPNAME": "application_name",
    "PGOPTIONS": "options",
    "PGCHANNELBINDING": "libpq.channel_binding",
    "PGSSLNEGOTIATION": "libpq.sslnegotiation",
    "PGGSSENCMODE": "libpq.gssencmode",
    "POSTGRES_HOST": "host",
    "POSTGRES_PORT": "port",
    "POSTGRES_DB": "database",
    "POSTGRES_DATABASE": "database",
    "POSTGRES_USER": "user",
    "POSTGRES_PASSWORD": "password",
    "POSTGRES_SCHEMA": "schema_name",
    "POSTGRES_POOL_MIN_SIZE": "pool.min_size",
    "POSTGRES_POOL_MAX_SIZE": "pool.max_size",
    "POSTGRES_POOL_TIMEOUT": "pool.timeout",
}
ADDRESS_SETTINGS = frozenset(
    name for name in ("url", "host", *SPELLINGS) if SPELLINGS.get(name, name) in ("url", "host")
)
ADDRESS_VARIABLES = frozenset(
    {"DATABASE_URL", *(variable for variable, key in VARIABLES.items() if key in ("host", "port"))}
)


def split_host(host: str, port: int) -> Address:
    """Return `name:port`, `[v6]:port`, `name`, or a socket's folder with or without a port."""
    if "@" in host and not host.startswith("/"):
        # Not repeated: what stands before may be a password.
        raise ConfigError("host: user and password are settings of their own, not part of a host")
    name, colon, number = host.rpartition(":")
    if host.startswith("/"):
        # Cloud SQL's folders have colons; only a number after the last one is a port.
        return (name, int(number)) if number.isascii() and number.isdigit() else (host, port)
    if any(character.isspace() or character in "'\"/" for character in host):
        raise ConfigError("host: a name has no blanks, quotes or slashes")
    if host.startswith("["):
        inside, end, rest = host[1:].partition("]")
        if not end or (rest and not rest.startswith(":")):
            raise ConfigError(f"host: {host!r} is not of the form [address]:port")
        name, colon, number = inside, rest[:1], rest[1:]
    elif host.count(":") > 1:  # a bare IPv6 address
        return host, port
    if not colon:
        return name or number, port
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ConfigError(f"host: {host!r} has no port between 1 and 65535 after its ':'")
    return name, int(number)


def host_text(host: Any) -> Any:
    """Return a host that is a dict of `host` and `port` as text; any other as it is."""
    if not isinstance(host, Mapping):
        return host.strip() if isinstance(host, str) else host
    if unknown := sorted(map(str, host.keys() - {"host", "port"})):
        raise ValueError(f"{unknown[0]!r} is not known in a host: it has 'host' and 'port'")
    name = str(host.get("host", ""))
    if not name:
        raise ValueError("a host without 'host'")
    if "port" not in host:
        return name
    return f"[{name}]:{host['port']}" if ":" in name and name[0] not in "/[" else f"{name}:{host['port']}"


def translate_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the options that other clients put into URLs, as ours."""
    settings = dict(settings)
    pooled = settings.pop("pgbouncer", None)  # Prisma's name, in Supabase's URLs
    if pooled is not None:
        known = {"true": True, "1": True, "false": False, "0": False}.get(str(pooled).lower())
        if known is None:
            raise ConfigError("postgres: pgbouncer is true or false")
        settings.setdefault("pooler", "transaction" if known else "none")
    accepted = settings.pop("sslaccept", None)  # Prisma's name, too
    if accepted == "strict":
        settings["sslmode"] = "verify-full"
    elif accepted not in (None, "accept_invalid_certs"):
        raise ConfigError("postgres: sslaccept is strict or accept_invalid_certs")
    if settings.get("sslmode") == "no-verify":  # node-postgres
        settings["sslmode"] = "require"
    if "hostaddr" in settings:
        address = settings.pop("hostaddr")
        if settings.setdefault("host", address) != address:
            raise ConfigError("postgres: give `host` or `hostaddr`: a server has one address here")
    if settings.get("max_inactive_connection_lifetime") in (0, "0"):
        settings["max_inactive_connection_lifetime"] = None  # as in asyncpg: no limit
    return settings


def pair_ports(settings: Mapping[str, Any], default: int) -> dict[str, Any]:
    """Return settings in which each host has its port, if libpq's list `port=5432,5433` was given."""
    settings, ports = dict(settings), settings.get("port")
    if not isinstance(ports, str) or "," not in ports:
        return settings
    hosts, numbers = settings.get("host", ""), ports.split(",")
    if isinstance(hosts, str):
        hosts = hosts.split(",")
    if len(hosts) != len(numbers):
        raise ConfigError(f"postgres: {len(numbers)} ports for {len(hosts)} hosts; give one for each, or one")
    pairs = zip(hosts, numbers, strict=True)
    paired = [host_text({"host": host, "port": number or default}) for host, number in pairs]
    return {**settings, "host": paired, "port": default}
