"""The configuration of the PostgreSQL backend: server, pool, tables, indexes."""

from __future__ import annotations

import os
import ssl as tls
from collections.abc import Awaitable, Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias
from urllib.parse import SplitResult, unquote

from pydantic import Field, SecretStr, field_validator, model_validator

from isthmus._core.config import BackendConfig, ChangesSettings, ConfigGroup
from isthmus._core.conninfo import is_conninfo, parse_conninfo
from isthmus._core.loop_pools import secret_digest
from isthmus._core.url import clean_url
from isthmus._suggest import suggest_nearest
from isthmus.backends.postgres.address import (
    ADDRESS_SETTINGS,
    ADDRESS_VARIABLES,
    KEEPALIVE,
    LIBPQ,
    SPELLINGS,
    WITHOUT_EFFECT,
    Address,
    host_text,
    pair_ports,
    split_host,
    translate_options,
)
from isthmus.backends.postgres.address import VARIABLES as _VARIABLES
from isthmus.backends.postgres.collection_settings import CollectionSettings, LayoutSettings
from isthmus.errors import ConfigError

DEFAULT_PORT = 5432
PasswordSource: TypeAlias = Callable[[], str | Awaitable[str]]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
SessionAttrs = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "web": {
        "command_timeout": 30.0,
        "pool": {"min_size": 5, "max_size": 50, "max_queries": 10_000, "max_idle": 300.0},
    },
    "batch": {
        "command_timeout": 3600.0,
        "pool": {"min_size": 2, "max_size": 10, "max_queries": 1_000, "max_idle": 1800.0},
    },
    "high_throughput": {
        "command_timeout": 5.0,
        "pool": {"min_size": 20, "max_size": 100, "max_queries": 50_000, "max_idle": 60.0},
    },
}


class PoolConfig(ConfigGroup):
    """The number of connections, their lifetime, and how long callers wait for one. Times are in seconds."""

    min_size: int = Field(default=1, ge=0)
    """Connections kept open; opened at the start unless `lazy`."""
    max_size: int = Field(default=10, ge=1)
    timeout: float | None = Field(default=10.0, gt=0)
    """Seconds to wait for a connection; None: no limit."""
    max_waiting: int | None = Field(default=None, ge=0)
    """How many callers may wait; one more is refused at once. None: no limit."""
    max_queries: int = Field(default=50_000, ge=1)
    """A connection is replaced after so many checkouts."""
    max_idle: float | None = Field(default=300.0, gt=0)
    """Seconds after which an idle connection above `min_size` is closed."""
    max_lifetime: float | None = Field(default=3600.0, gt=0)
    """Seconds after which a connection is replaced, less a random part of up to a tenth."""
    check_after: float = Field(default=30.0, ge=0)
    """Seconds idle after which a connection is checked by a round trip before it is handed out."""
    lazy: bool = False
    """Open nothing before the first use."""
    max_opening: int = Field(default=2, ge=1)
    """How many connections may be opening at once."""
    reconnect_timeout: float = Field(default=300.0, gt=0)
    """Seconds that background attempts to reconnect go on before they wait for the next caller."""
    leak_report: float | None = Field(default=None, gt=0)
    """Seconds after which the holder of a connection is logged, with the stack that took it."""
    setup: Callable[[Any], Awaitable[None]] | None = None
    """Awaited with the connection at each checkout."""
    init: Callable[[Any], Awaitable[None]] | None = None
    """Awaited with a new connection once."""
    reset: Callable[[Any], Awaitable[None]] | None = None
    """Awaited with a connection after raw SQL, in place of the standard reset."""
    connect: Callable[..., Awaitable[Any]] | None = None
    """Opens a driver connection in place of the driver's own `connect`."""
    connection_class: type | None = None
    record_class: type | None = None

    @property
    def has_hooks(self) -> bool:
        """Whether code of the user may have registered type codecs on a connection."""
        return any((self.setup, self.init, self.reset, self.connect))

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size} is above max_size {self.max_size}")
        return self


class PostgresConfig(BackendConfig, LayoutSettings, ChangesSettings):
    """The server, how to connect to it, and the tables of collections."""

    backend: ClassVar[str] = "postgres"
    spellings: ClassVar[Mapping[str, str]] = SPELLINGS
    credentials: ClassVar[tuple[tuple[str, ...], ...]] = (("password",), ("passfile",))

    host: tuple[str, ...] = ("localhost",)
    """One or more of `name`, `name:port`, `[v6]:port` or a socket's folder; the first to answer is used."""
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    """For hosts without a port."""
    database: str = "postgres"
    user: str | None = None
    """None: the operating system's user."""
    password: SecretStr | PasswordSource | None = None
    """Text, or a function (async or not) that returns it for each new connection."""
    passfile: Path | None = None

    table: str = "records"
    """The default collection."""
    schema_name: str = "public"
    """The schema of the collections' tables; `schema` in a config."""
    create_table: Literal["if_missing", "never"] = "if_missing"

    ssl: SslMode | bool | tls.SSLContext | None = None
    """None: verified in full if the host is not local (`verify-full`), plain on loopback and sockets."""
    ssl_root_cert: Path | None = None
    ssl_cert: Path | None = None
    ssl_key: Path | None = None
    ssl_key_password: SecretStr | None = None

    driver: Literal["asyncpg", "psycopg"] = "asyncpg"
    pool: PoolConfig = PoolConfig()
    preset: Literal["web", "batch", "high_throughput"] | None = None
    """Sizes and timeouts for a kind of load; explicit settings override it."""
    connect_timeout: float = Field(default=10.0, gt=0)
    command_timeout: float | None = Field(default=None, gt=0)
    """Seconds that one statement may take."""
    statement_cache_size: int = Field(default=256, ge=0)
    server_settings: dict[str, str] = Field(default={})
    options: str | None = None
    """libpq's `options` of a new session, such as `-c search_path=y`, or `endpoint=x` for Neon's proxy."""
    libpq: dict[str, str] = Field(default={})
    """Further parameters of libpq, which psycopg takes as they are; asyncpg uses the keepalives only."""
    application_name: str = "isthmus"
    pooler: Literal["none", "transaction"] = "none"
    """`transaction`: the server is behind a pooler, such as PgBouncer, that pools by transaction."""
    target_session_attrs: SessionAttrs | None = None
    """None: `read-write` with several hosts, else `any`."""
    replicas: tuple[str, ...] = ()
    """Hosts that serve reads outside of transactions, as in `host`."""
    load_balance_hosts: Literal["disable", "random"] = "disable"
    """`random`: each connection tries the hosts in another order."""
    tcp_keepalive: bool = True
    coalesce: bool = True
    """Whether concurrent gets, creates and look-ups share a statement; `merge` is an older name."""

    @model_validator(mode="before")
    @classmethod
    def _system_authorities(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("ssl_root_cert") == "system":
            # As in libpq, where `system` goes with verify-full only.
            values = {**values, "ssl_root_cert": None, "ssl": "verify-full"}
        return values

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        preset = PRESETS.get(values.get("preset") or "") if isinstance(values, dict) else None
        if preset is None:
            return values
        pool = values.get("pool", {})
        if isinstance(pool, PoolConfig):
            pool = {name: getattr(pool, name) for name in pool.model_fields_set}
        merged = {**preset["pool"], **pool}
        # An explicit bound is meant: the preset's other one follows it.
        if "max_size" in pool and "min_size" not in pool:
            merged["min_size"] = min(merged["min_size"], int(pool["max_size"]))
        if "min_size" in pool and "max_size" not in pool:
            merged["max_size"] = max(merged["max_size"], int(pool["min_size"]))
        return {"command_timeout": preset["command_timeout"], **values, "pool": merged}

    @field_validator("host", "replicas", mode="before")
    @classmethod
    def _host_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list | tuple):
            return value
        parts = [host_text(part) for part in value]
        return tuple(part for part in parts if part != "")

    @field_validator("host", "replicas")
    @classmethod
    def _addresses_parse(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        problem = ""
        for host in value:
            try:
                split_host(host, DEFAULT_PORT)
            except ConfigError as error:
                problem = str(error)
        if problem:  # pydantic adds the setting and the variable
            raise ValueError(problem)
        return value

    @field_validator("libpq", mode="before")
    @classmethod
    def _libpq_names(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if unknown := sorted(map(str, value.keys() - {*LIBPQ, *WITHOUT_EFFECT})):
            raise ValueError(f"{unknown[0]!r} is no parameter of libpq{suggest_nearest(unknown[0], LIBPQ)}")
        for name in KEEPALIVE:
            if name in value and not str(value[name]).isdecimal():
                raise ValueError(f"{name} is a whole number")
        return {str(name): str(item) for name, item in value.items()}

    @field_validator("server_settings", mode="before")
    @classmethod
    def _settings_are_text(cls, value: Any) -> Any:
        return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else value

    @field_validator("table", "schema_name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value or "\0" in value or len(value.encode("utf-8", "replace")) > 63:
            raise ValueError("a table or schema name is 1 to 63 bytes of text without U+0000")
        return value

    @model_validator(mode="after")
    def _some_host(self) -> Self:
        if not self.host:
            raise ValueError("host: give at least one")
        return self

    @property
    def merge(self) -> bool:
        """The older name of `coalesce`."""
        return self.coalesce

    def addresses(self) -> list[Address]:
        """Return the hosts with their ports, in order; a host that starts with `/` is a socket's folder."""
        return [split_host(host, self.port) for host in self.host]

    def replica_addresses(self) -> list[Address]:
        """Return the replicas' hosts with their ports."""
        return [split_host(host, self.port) for host in self.replicas]

    def session_attrs(self) -> SessionAttrs:
        """Return which servers to accept, the default resolved."""
        if self.target_session_attrs is not None:
            return self.target_session_attrs
        return "read-write" if len(self.host) > 1 else "any"

    def indexes_of(self, collection: str) -> CollectionSettings:
        """Return the settings of a collection, its indexes among them."""
        return self if collection == self.table else self.collections.get(collection, CollectionSettings())

    def model_columns(self, collection: str) -> bool:
        """Return whether all fields of a typed collection's model are columns."""
        return self.indexes_of(collection).columns == "model"

    def pool_key(self) -> Hashable:
        """Return all settings that a pool depends on, secrets as digests: equal keys may share a pool."""
        other = {"table", "schema_name", "create_table", "coalesce"}
        other |= {*LayoutSettings.model_fields, *ChangesSettings.model_fields}
        other |= set(BackendConfig.model_fields)
        return tuple(
            (name, _hash_key(getattr(self, name)))
            for name in sorted(type(self).model_fields)
            if name not in other
        )

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return `postgres` and `postgresql`."""
        return ("postgres", "postgresql")

    @classmethod
    def read_url(cls, url: Any) -> dict[str, Any]:
        """Return the settings in a URL, SQLAlchemy's way to name the driver included, or in libpq's text."""
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        if not isinstance(text, str):
            return super().read_url(url)
        text = clean_url(text)
        if is_conninfo(text):
            return {"port": DEFAULT_PORT, **parse_conninfo(text)}
        base, plus, driver = text.partition("://")[0].lower().partition("+")
        if not plus or base not in cls.schemes_of():
            return super().read_url(text)
        if driver not in ("asyncpg", "psycopg", "psycopg_async", "psycopg2"):
            raise ConfigError("postgres: the driver in a URL's scheme is asyncpg or psycopg")
        settings = super().read_url(base + text[text.index("://") :])
        # psycopg2 has no async interface; the default driver takes its place.
        return settings if driver == "psycopg2" else {"driver": driver.partition("_")[0], **settings}

    @classmethod
    def _rename_aliases(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return pair_ports(super()._rename_aliases(translate_options(settings)), DEFAULT_PORT)

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `postgres://user:password@h1:5433,h2/database?option=value`."""
        settings = dict(options)
        userinfo, _, hosts = url.netloc.rpartition("@")
        if userinfo:
            user, colon, password = userinfo.partition(":")
            if user:
                settings["user"] = unquote(user)
            if colon:
                settings["password"] = unquote(password)
        if hosts:
            settings["host"] = [unquote(host) for host in hosts.split(",")]
        elif settings.keys().isdisjoint(("host", "hosts", "hostname", "hostaddr")):
            settings["host"] = ["localhost"]
        # The URL has the whole address; a port from the environment belongs to another server.
        settings.setdefault("port", DEFAULT_PORT)
        if url.path.strip("/"):
            settings["database"] = unquote(url.path[1:])
        return settings

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
        """Return settings from DB_*, PG*, POSTGRES_* and DATABASE_URL; later ones override earlier ones."""
        found: dict[str, tuple[Any, str]] = {
            key: (environ[name], name) for name, key in _VARIABLES.items() if environ.get(name)
        }
        given: dict[str, Any] = {name: found[name][0] for name in ("host", "port") if name in found}
        found |= {name: (value, found[name][1]) for name, value in pair_ports(given, DEFAULT_PORT).items()}
        if address := environ.get("DATABASE_URL", ""):
            try:
                settings, problem = cls._rename_aliases(cls.read_url(address)), ""
                cls._check_keys(settings)
            except ConfigError as error:
                settings, problem = {}, str(error)
            if problem:
                raise ConfigError(f"environment DATABASE_URL: {problem}")
            found |= {key: (value, "DATABASE_URL") for key, value in settings.items()}
        return found

    @classmethod
    def load(
        cls,
        given: Mapping[str, Any] | BackendConfig | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the config for a user's settings; an address is never combined from two sources."""
        environ = os.environ if environ is None else environ
        if isinstance(given, Mapping) and not ADDRESS_SETTINGS.isdisjoint(given):
            environ = {name: value for name, value in environ.items() if name not in ADDRESS_VARIABLES}
        return super().load(given, environ=environ)


def _hash_key(value: Any) -> Hashable:
    match value:
        case SecretStr():
            return secret_digest(value.get_secret_value())
        case ConfigGroup():
            return tuple((name, _hash_key(getattr(value, name))) for name in type(value).model_fields)
        case dict():
            return tuple(sorted((key, _hash_key(item)) for key, item in value.items()))
        case list() | tuple():
            return tuple(_hash_key(item) for item in value)
        case None | str() | int() | float() | Path():
            return (type(value).__name__, value)
        case _:  # functions, classes and contexts: only the same object is equal
            return value  # type: ignore[no-any-return]
