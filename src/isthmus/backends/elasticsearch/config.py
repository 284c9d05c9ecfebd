"""What an Elasticsearch backend can be told."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from isthmus._core.config import BackendConfig, ConfigGroup
from isthmus._core.loop_pools import secret_digest
from isthmus.errors import ConfigError

DEFAULT_HOST = "http://localhost:9200"
_FORBIDDEN = frozenset('\\/*?"<>| ,#:')


class PoolConfig(ConfigGroup):
    """How many connections each node may have, and how long to wait for one."""

    connections: int = Field(default=0, ge=0)
    """Connections opened at the start."""
    maxsize: int = Field(default=20, ge=1)
    """Connections per node at most."""
    timeout: float | None = Field(default=10.0, gt=0)
    """Seconds to wait for a connection; None waits for ever."""


class BulkConfig(ConfigGroup):
    """How batches are cut and sent; both back off when the server asks for less."""

    size: int = Field(default=1_000, ge=1)
    """Documents in one request at most."""
    bytes: int = Field(default=5_000_000, ge=1)
    """Bytes in one request at most, but for a single larger document."""
    concurrency: int = Field(default=2, ge=1)
    """Requests in flight."""
    retries: int = Field(default=8, ge=0)
    """How often an item that was refused for load (429, 503) is sent again."""


class VectorConfig(ConfigGroup):
    """A field of vectors for `nearest()`."""

    dims: int = Field(ge=1, le=4_096)
    """How many numbers a vector has."""
    similarity: Literal["cosine", "l2_norm", "max_inner_product"] = "cosine"
    """What near means; the score grows with it."""
    search: Literal["exact", "hnsw"] = "exact"
    """`exact` looks at every vector that the other conditions leave; `hnsw` is fast and may miss some."""


class ElasticsearchConfig(BackendConfig):
    """Where the nodes are, which index to use, and how it is made."""

    backend: ClassVar[str] = "elasticsearch"
    spellings: ClassVar[Mapping[str, str]] = {
        "host": "hosts",
        "index_name": "index",
        "collection": "index",
        "username": "user",
        "http_auth": "basic_auth",
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
    }

    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    index: str = "records"
    """The default collection: an index, or an alias of one."""

    user: str | None = None
    password: SecretStr | None = None
    api_key: SecretStr | None = None
    """The base64 text that Elasticsearch gave."""
    bearer_token: SecretStr | None = None
    ca: Path | None = None
    """A file of certificates that sign the servers'; None: those of the system."""
    ssl_assert_fingerprint: str | None = None
    """The SHA-256 of the server's certificate; taken in place of a signature."""
    verify_certs: bool = True
    client_cert: Path | None = None
    client_key: Path | None = None
    http_compress: bool = False
    sniff: bool = False
    """Ask the cluster for its nodes; breaks behind proxies."""

    pool: PoolConfig = PoolConfig()
    request_timeout: float = Field(default=30.0, gt=0)
    """Seconds that one request may take."""
    bulk: BulkConfig = BulkConfig()
    update_attempts: int = Field(default=20, ge=1)
    """How often a merge is tried anew when another writer came first."""

    layout: Literal["mapped", "native"] = "mapped"
    """`native` reads an index that others made, as it is; `mapped` is ours, and exact by itself."""
    approximate: bool = False
    """For `native`: let the server judge, count and sort as its mapping does, which coerces and cuts."""
    create_index: Literal["if_missing", "never"] = "if_missing"
    shards: int | None = Field(default=None, ge=1)
    """None leaves it to the server and its index templates, as the next ones."""
    replicas: int | None = Field(default=None, ge=0)
    refresh_interval: str | None = None
    field_limit: int = Field(default=1_000, ge=20)
    """Fields that the index maps at most; records with others are judged on this side at those."""
    settings: dict[str, Any] = Field(default={})
    """Further index settings, as Elasticsearch names them."""
    fulltext: dict[str, str] = Field(default={})
    """Fields for `match()`, each with its analyzer."""
    vectors: dict[str, VectorConfig] = Field(default={})
    """Fields for `nearest()`, by the length of their vectors or more; for an index that is made now."""
    consistency: Literal["read_your_writes", "eventual"] = "read_your_writes"
    """`read_your_writes` refreshes once before a search that follows this handle's own write."""
    slices: int = Field(default=1, ge=1, le=32)
    """In how many parts a stream is read side by side; more than 1 pays off where cores are idle."""
    keep_alive: str = Field(default="5m", pattern=r"^\d+(ms|s|m|h)$")
    """How long the server keeps a stream's snapshot between two pages."""

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
        return check_index(value)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        ways = [self.user or self.password, self.api_key, self.bearer_token]
        if sum(way is not None for way in ways) > 1:
            raise ValueError("give one of user and password, api_key, bearer_token")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together")
        return self

    @model_validator(mode="after")
    def _what_a_layout_takes(self) -> Self:
        if self.layout == "native" and (self.fulltext or self.vectors):
            raise ValueError(
                "fulltext and vectors are of layout 'mapped': a native index has its own mapping"
            )
        if self.approximate and self.layout != "native":
            raise ValueError("approximate is for layout 'native': ours is exact")
        return self

    def pool_key(self) -> Hashable:
        """Return all that makes one client unfit for another config; secrets as digests."""
        secrets = (self.password, self.api_key, self.bearer_token)
        return (
            "elasticsearch",
            self.hosts,
            self.user,
            *(secret_digest(None if s is None else s.get_secret_value()) for s in secrets),
            (self.ca, self.ssl_assert_fingerprint, self.verify_certs, self.client_cert, self.client_key),
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
        """Return settings from ES_* and ELASTICSEARCH_*, the later ones stronger."""
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


def _node(host: Any) -> str:
    """Return a node's address with its scheme and port."""
    if isinstance(host, Mapping):
        host = f"{host.get('scheme', 'http')}://{host.get('host', 'localhost')}:{host.get('port', 9200)}"
    if not isinstance(host, str):
        raise ValueError("a host is text such as 'http://localhost:9200'")
    host = host.strip().removeprefix("es+")
    text = host if "://" in host else f"http://{host}"
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a host is text such as 'http://localhost:9200'")
    if parts.username or parts.password:
        raise ValueError("user and password are settings of their own, not part of a host")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("a host's port is a number up to 65535") from None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # As the driver and every URL have it: 443 for https, but 9200 is what nodes listen on.
    port = port or (443 if parts.scheme == "https" else 9200)
    return f"{parts.scheme}://{name}:{port}{parts.path.rstrip('/')}"


def check_index(name: str) -> str:
    """Return a name that an index may have; raises `ConfigError` that says why it may not."""
    if not isinstance(name, str):
        raise ConfigError(f"elasticsearch: an index name is text, got {type(name).__name__}")
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
