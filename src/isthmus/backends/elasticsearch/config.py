"""The settings of an Elasticsearch backend."""

from __future__ import annotations

import base64
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from isthmus._core.config import BackendConfig, ConfigGroup
from isthmus._core.loop_pools import secret_digest
from isthmus._suggest import suggest_nearest
from isthmus.errors import ConfigError

DEFAULT_HOST = "http://localhost:9200"
_FORBIDDEN = frozenset('\\/*?"<>| ,#:')


class PoolConfig(ConfigGroup):
    """The connections to each node, and how long to wait for one."""

    connections: int = Field(default=0, ge=0)
    """Connections opened at the start."""
    maxsize: int = Field(default=20, ge=1)
    """Maximum number of connections per node."""
    timeout: float | None = Field(default=10.0, gt=0)
    """Seconds to wait for a connection; None: without limit."""


class BulkConfig(ConfigGroup):
    """The size and concurrency of bulk requests; both are reduced while the server is overloaded."""

    size: int = Field(default=1_000, ge=1)
    """Maximum number of documents in one request."""
    bytes: int = Field(default=5_000_000, ge=1)
    """Maximum number of bytes in one request, unless a single document is larger."""
    concurrency: int = Field(default=2, ge=1)
    """Requests in flight."""
    retries: int = Field(default=8, ge=0)
    """How often an item that was rejected for load (429, 503) is sent again."""


class VectorConfig(ConfigGroup):
    """A field of vectors for `nearest()`."""

    dims: int = Field(ge=1, le=4_096)
    """The number of dimensions."""
    similarity: Literal["cosine", "l2_norm", "max_inner_product"] = "cosine"
    """The measure of similarity; a higher one gives a higher score."""
    search: Literal["exact", "hnsw"] = "exact"
    """`exact` compares every vector that matches the other conditions; `hnsw` is fast and may miss some."""


class ElasticsearchConfig(BackendConfig):
    """The nodes, the index, and the settings with which it is created."""

    backend: ClassVar[str] = "elasticsearch"
    spellings: ClassVar[Mapping[str, str]] = {
        "host": "hosts",
        "index_name": "index",
        "collection": "index",
        "username": "user",
        "ca_certs": "ca",
        "fingerprint": "ssl_assert_fingerprint",
        "timeout": "request_timeout",
        "connections_per_node": "pool.maxsize",
        "maxsize": "pool.maxsize",
        "connections": "pool.connections",
        "max_connections": "pool.maxsize",
        "min_connections": "pool.connections",
        "number_of_shards": "shards",
        "number_of_replicas": "replicas",
        "bearer_auth": "bearer_token",
    }
    credentials: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("user", "password"),
        ("api_key",),
        ("bearer_token",),
    )

    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    index: str = "records"
    """The default collection: an index, or an alias of one."""

    user: str | None = None
    password: SecretStr | None = None
    api_key: SecretStr | None = None
    """The API key in its base64 form."""
    bearer_token: SecretStr | None = None
    ca: Path | None = None
    """A file of CA certificates; None: those of the system."""
    ssl_assert_fingerprint: str | None = None
    """The SHA-256 fingerprint of the server's certificate, verified in place of its signature."""
    verify_certs: bool = True
    client_cert: Path | None = None
    client_key: Path | None = None
    http_compress: bool = False
    headers: dict[str, SecretStr] = Field(default={})
    """Headers of every request; an `Authorization` among them takes the place of other credentials."""
    sniff: bool = False
    """Discover the cluster's nodes; does not work behind proxies."""

    pool: PoolConfig = PoolConfig()
    request_timeout: float = Field(default=30.0, gt=0)
    """The timeout of one request, in seconds."""
    bulk: BulkConfig = BulkConfig()
    update_attempts: int = Field(default=20, ge=1)
    """How often a replace, update or upsert is attempted when other writers change the record meanwhile."""

    layout: Literal["mapped", "native"] = "mapped"
    """`mapped`: an index of isthmus, searched exactly. `native`: any other index, read as it is."""
    approximate: bool = False
    """For `native`: filter, count and sort by the mapping, which coerces and truncates values."""
    create_index: Literal["if_missing", "never"] = "if_missing"
    shards: int | None = Field(default=None, ge=1)
    """None leaves it to the server and its index templates; so for the next two settings."""
    replicas: int | None = Field(default=None, ge=0)
    refresh_interval: str | None = None
    field_limit: int = Field(default=1_000, ge=20)
    """Maximum number of mapped fields; conditions on further fields are evaluated client-side."""
    settings: dict[str, Any] = Field(default={})
    """Further index settings, by their Elasticsearch names."""
    fulltext: dict[str, str] = Field(default={})
    """Fields for `match()`, each with its analyzer."""
    vectors: dict[str, VectorConfig] = Field(default={})
    """Fields for `nearest()`, with their dimensions or a section each; declared when the index is created."""
    consistency: Literal["read_your_writes", "eventual"] = "read_your_writes"
    """`read_your_writes` refreshes once before a search that follows this handle's own write."""
    slices: int = Field(default=1, ge=1, le=32)
    """Slices of a stream that are read concurrently; more than 1 pays off where cores are idle."""
    keep_alive: str = Field(default="5m", pattern=r"^\d+(ms|s|m|h)$")
    """How long the server keeps a stream's point in time between two pages."""

    @field_validator("hosts", mode="before")
    @classmethod
    def _host_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list | tuple):
            return value
        return tuple(_node(part) for part in value)

    @field_validator("hosts")
    @classmethod
    def _some_host(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("give at least one")
        return value

    @field_validator("fulltext", mode="before")
    @classmethod
    def _analyzers(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = (value,)
        return dict.fromkeys(value, "standard") if isinstance(value, list | tuple) else value

    @field_validator("vectors", mode="before")
    @classmethod
    def _lengths(cls, value: Any) -> Any:
        if isinstance(value, str):  # in a URL: embedding:384,image:512
            value = dict(part.partition(":")[::2] for part in value.split(","))
        if not isinstance(value, Mapping):
            return value
        return {
            name: {"dims": given} if isinstance(given, int | str) else given for name, given in value.items()
        }

    @field_validator("vectors")
    @classmethod
    def _plain_names(cls, value: dict[str, VectorConfig]) -> dict[str, VectorConfig]:
        for name in value:
            if not all(name.split(".")) or name != name.strip() or "*" in name or len(name) > 200:
                raise ValueError(f"{name!r} cannot name a field of vectors")
        return value

    @field_validator("index")
    @classmethod
    def _index_name(cls, value: str) -> str:
        problem = ""
        try:
            check_index(value)
        except ConfigError as error:
            problem = str(error)
        if problem:  # pydantic adds the setting and the variable
            raise ValueError(problem.removeprefix("elasticsearch: "))
        return value

    @model_validator(mode="after")
    def _one_kind_of_credentials(self) -> Self:
        header = next((name for name in self.headers if _authorizes(name)), None)
        credentials = [self.user or self.password, self.api_key, self.bearer_token, header]
        if sum(one is not None for one in credentials) > 1:
            raise ValueError("give one of user and password, api_key, bearer_token, a header Authorization")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together")
        return self

    @model_validator(mode="after")
    def _fit_layout(self) -> Self:
        if self.layout == "native" and (self.fulltext or self.vectors):
            raise ValueError("fulltext and vectors need layout 'mapped': a native index has its own mapping")
        if self.approximate and self.layout != "native":
            raise ValueError("approximate needs layout 'native': layout 'mapped' is always exact")
        return self

    @classmethod
    def _drop_credentials(cls, weaker: dict[str, Any], stronger: Mapping[str, Any]) -> None:
        """Remove the credentials that a stronger source replaces; on either side they may be a header."""
        super()._drop_credentials(weaker, stronger)
        names = [name for kind in cls.credentials for name in kind]
        headers, weaker_headers = stronger.get("headers"), weaker.get("headers")
        by_header = isinstance(headers, Mapping) and any(map(_authorizes, headers))
        if by_header:
            for name in names:
                weaker.pop(name, None)
        given = by_header or any(stronger.get(name) is not None for name in names)
        if given and isinstance(weaker_headers, Mapping):
            kept = {name: value for name, value in weaker_headers.items() if not _authorizes(name)}
            weaker["headers"] = kept

    @classmethod
    def _rename_aliases(cls, settings: dict[str, Any]) -> dict[str, Any]:
        settings = dict(settings)
        for name in ("basic_auth", "http_auth"):  # the client's names for both at once
            if name in settings:
                user, password = _pair(name, settings.pop(name), ":")
                for key, value in (("user", user), ("password", password)):
                    if key in settings:
                        raise ConfigError(f"elasticsearch: {name!r} holds {key!r} too; give one")
                    settings[key] = value
        if "cloud_id" in settings:
            if "hosts" in settings:
                raise ConfigError("elasticsearch: 'cloud_id' holds 'hosts'; give one")
            settings["hosts"] = (_cloud_host(settings.pop("cloud_id")),)
        api_key = settings.get("api_key")
        if isinstance(api_key, list | tuple):  # id and key, as the client takes them
            pair = ":".join(_pair("api_key", api_key, ":"))
            settings["api_key"] = base64.b64encode(pair.encode()).decode()
        return super()._rename_aliases(settings)

    def pool_key(self) -> Hashable:
        """Return all settings of a client, so that equal configs share one; secrets as digests."""
        secrets = (self.password, self.api_key, self.bearer_token)
        return (
            "elasticsearch",
            self.hosts,
            self.user,
            *(secret_digest(None if s is None else s.get_secret_value()) for s in secrets),
            (self.ca, self.ssl_assert_fingerprint, self.verify_certs, self.client_cert, self.client_key),
            tuple((name, secret_digest(s.get_secret_value())) for name, s in sorted(self.headers.items())),
            (self.http_compress, self.sniff, self.request_timeout),
            (self.pool.connections, self.pool.maxsize, self.pool.timeout),
        )

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return `es+http`, `es+https` and `elasticsearch`."""
        return ("es+http", "es+https", "elasticsearch")

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `es+https://user:password@h1:9200,h2:9200/index?option=value`."""
        settings = dict(options)
        scheme = "https" if url.scheme == "es+https" else "http"
        userinfo, _, hosts = url.netloc.rpartition("@")
        if userinfo:
            user, _, password = userinfo.partition(":")
            settings["user"] = unquote(user)
            settings["password"] = unquote(password)
        settings["hosts"] = [f"{scheme}://{host}" for host in hosts.split(",") if host] or [DEFAULT_HOST]
        if url.path.strip("/"):
            settings["index"] = unquote(url.path.strip("/"))
        return settings

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
        """Return settings from ES_* and ELASTICSEARCH_*; the latter take precedence."""
        return {key: (environ[name], name) for name, key in _VARIABLES.items() if environ.get(name)}


_VARIABLES = {
    "ES_HOSTS": "hosts",
    "ES_INDEX": "index",
    "ES_USER": "user",
    "ES_PASSWORD": "password",
    "ES_API_KEY": "api_key",
    "ES_POOL_CONNECTIONS": "pool.connections",
    "ES_POOL_MAXSIZE": "pool.maxsize",
    "ELASTICSEARCH_HOSTS": "hosts",
    "ELASTICSEARCH_URL": "hosts",
    "ELASTICSEARCH_INDEX": "index",
    "ELASTICSEARCH_API_KEY": "api_key",
}


def _authorizes(header: Any) -> bool:
    """Return whether a header of this name holds credentials for the cluster."""
    return isinstance(header, str) and header.lower() == "authorization"


def _cloud_host(cloud_id: Any) -> str:
    """Return the address in an Elastic Cloud ID, `name:BASE64` of `domain$cluster$…`."""
    try:
        domain, cluster = base64.b64decode(str(cloud_id).rpartition(":")[2]).decode().split("$")[:2]
    except ValueError:
        domain = cluster = ""
    if not domain or not cluster:  # outside the except block: the decoder's error has the text
        raise ConfigError("elasticsearch: cloud_id: copy it whole, such as name:ZXUtd2VzdC0xLi4u")
    host, _, port = domain.partition(":")
    return f"https://{cluster}.{host}:{port or 443}"


def _node(host: Any) -> str:
    """Return a node's address with its scheme and port."""
    if isinstance(host, Mapping):
        host = _url_of(host)
    if not isinstance(host, str):
        raise ValueError("a host is a string such as 'http://localhost:9200'")
    host = host.strip().removeprefix("es+")
    text = host if "://" in host else f"http://{host}"
    if "@" in text:  # anywhere: an unescaped '/' in a password ends the host
        raise ValueError("user and password are settings of their own, not part of a host")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a host is a string such as 'http://localhost:9200'")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("a host's port is a number up to 65535") from None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # The default port of https, as in the driver; that of http is 9200, where nodes listen.
    port = port or (443 if parts.scheme == "https" else 9200)
    return f"{parts.scheme}://{name}:{port}{parts.path.rstrip('/')}"


_HOST_KEYS = ("host", "port", "scheme", "use_ssl", "path_prefix", "url_prefix")


def _url_of(host: Mapping[str, Any]) -> str:
    """Return the URL for a node in the client's form; raises ValueError for keys that it does not have."""
    for key in host:
        if key in ("http_auth", "basic_auth", "user", "password"):
            raise ValueError("user and password are settings of their own, not part of a host")
        if key not in _HOST_KEYS:
            raise ValueError(f"unknown key {key!r} in a host{suggest_nearest(key, _HOST_KEYS)}")
    if not host.get("host"):
        raise ValueError("a host without 'host'")
    secure = host.get("use_ssl")
    if not (secure is None or isinstance(secure, bool)):
        raise ValueError("use_ssl is True or False")
    scheme = host.get("scheme", "https" if secure else "http")
    if secure is not None and scheme != ("https" if secure else "http"):
        raise ValueError(f"use_ssl={secure} and scheme {scheme!r} differ")
    name = str(host["host"])
    name = f"[{name}]" if ":" in name and not name.startswith("[") else name
    prefix = str(host.get("path_prefix", host.get("url_prefix", ""))).strip("/")
    return f"{scheme}://{name}:{host.get('port', 9200)}" + (f"/{prefix}" if prefix else "")


def _pair(name: str, value: Any, separator: str) -> tuple[str, str]:
    """Return the two parts of a setting that is a pair, or text with a separator; never shown."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    parts = value.split(separator, 1) if isinstance(value, str) else value
    if isinstance(parts, list | tuple) and len(parts) == 2 and all(isinstance(part, str) for part in parts):
        return parts[0], parts[1]
    raise ConfigError(f"elasticsearch: {name} is a pair of texts, or one text with {separator!r} between")


def check_index(name: str) -> str:
    """Return a valid index name; raises `ConfigError` with the reason for any other."""
    if not isinstance(name, str):
        raise ConfigError(f"elasticsearch: an index name is a string, got {type(name).__name__}")
    reason = None
    if not name or name in (".", ".."):
        reason = "it is empty or dots alone"
    elif name != name.lower():
        reason = "it has upper-case letters"
    elif name[0] in "-_+.":
        reason = f"it starts with {name[0]!r}"
    elif bad := sorted(_FORBIDDEN.intersection(name)):
        reason = f"it contains {bad[0]!r}"
    elif any(c.isspace() or not c.isprintable() for c in name):
        reason = "it contains white space or control characters"
    elif len(name.encode("utf-8", "replace")) > 255:
        reason = "it has more than 255 bytes"
    if reason is not None:
        raise ConfigError(f"elasticsearch: {name[:80]!r} cannot name an index: {reason}")
    return name
