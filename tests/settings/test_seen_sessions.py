"""Settings seen in what drivers and clients are given, and in how pools open connections."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from isthmus import AsyncDatabase
from isthmus._core.executor import ItemResult, Mutation
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.write.bulk import BulkSender
from isthmus.backends.elasticsearch.write.bulk_chunks import BatchEncoder
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers import load_driver
from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
from isthmus.backends.sqlalchemy.engine import open_engine
from isthmus.errors import ConfigError, ConnectError, IsthmusError
from tests.elasticsearch.test_bulk_chunks import index
from tests.servers import make_certificate

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("setting", "value"), [("size", 3), ("max_overflow", 4), ("timeout", 5.5), ("recycle", 60.0)]
)
async def test_a_setting_of_sqlalchemy_is_one_of_its_pool(setting: str, value: float) -> None:
    """As SQLAlchemy names them."""
    given = {"address": "postgresql+asyncpg://u:p@h/a", "pool": {setting: value}}
    opened = open_engine(SQLAlchemyConfig.load(given, environ={}))

    pool: Any = opened.engine.pool
    found = {
        "size": pool.size(),
        "max_overflow": pool._max_overflow,
        "timeout": pool._timeout,
        "recycle": pool._recycle,
    }
    assert found[setting] == value
    await opened.close()


# --- PostgreSQL


class _Recorded(Exception):
    """Ends an attempt to connect once its arguments are known."""


async def _arguments(driver: str, **settings: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def connect(**arguments: Any) -> Any:
        seen.update(arguments)
        raise _Recorded

    given = {"host": "h1", "driver": driver, "pool": {"connect": connect}, **settings}
    config = PostgresConfig.load(given, environ={})
    with pytest.raises(_Recorded):
        await load_driver(config).open(config.addresses()[0], config.session_attrs())
    return seen


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_setting_of_postgres_is_an_argument_of_its_driver(driver: str) -> None:
    """Whose names differ."""
    seen = await _arguments(
        driver, user="me", password="pw", passfile="/p", application_name="app", statement_cache_size=0
    )

    assert (seen["user"], seen["password"], seen["passfile"]) == ("me", "pw", "/p")
    name = seen["server_settings"] if driver == "asyncpg" else seen
    assert name["application_name"] == "app"
    assert ("command_timeout" in seen) is (driver == "asyncpg")
    if driver == "asyncpg":
        assert seen["statement_cache_size"] == 0


async def test_keepalives_are_as_the_config_says() -> None:
    """`tcp_keepalive=False` turns them off."""
    assert (await _arguments("psycopg", tcp_keepalive=False))["keepalives"] == 0
    assert int((await _arguments("psycopg"))["keepalives_idle"]) == 30


async def test_a_certificate_of_the_client_is_loaded(tmp_path: Path) -> None:
    """With its key's password: `ssl_cert`, `ssl_key`, `ssl_key_password`; a wrong one is a ConfigError."""
    made = make_certificate(tmp_path)
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"right"),
        )
    )
    files = {"ssl": "require", "ssl_cert": str(made.certificate), "ssl_key": str(locked)}

    libpq = await _arguments("psycopg", **files, ssl_key_password="right")
    await _arguments("asyncpg", **files, ssl_key_password="right")

    assert (libpq["sslcert"], libpq["sslkey"]) == (files["ssl_cert"], files["ssl_key"])
    assert libpq["sslpassword"] == "right"
    wrong = PostgresConfig.load({"host": "h1", **files, "ssl_key_password": "c4n4ry"}, environ={})
    with pytest.raises(ConfigError, match="ssl_key") as caught:
        await load_driver(wrong).open(("h1", 5432), "any")
    assert "c4n4ry" not in str(caught.value)


async def test_no_more_connections_are_opening_than_max_opening() -> None:
    """However many are wanted."""
    opening = most = 0

    async def connect(**arguments: Any) -> Any:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        await asyncio.sleep(0.05)
        opening -= 1
        raise OSError("nobody there")

    pool = {"connect": connect, "max_opening": 3, "min_size": 8, "max_size": 8, "timeout": 0.4}
    with pytest.raises(IsthmusError):
        await AsyncDatabase.create("postgres", {"host": "127.0.0.1", "pool": pool})

    assert most == 3


async def test_a_pool_gives_up_after_reconnect_timeout() -> None:
    """Nothing is tried any more until the next call."""
    attempts = 0

    async def connect(**arguments: Any) -> Any:
        nonlocal attempts
        attempts += 1
        raise OSError("nobody there")

    pool = {"connect": connect, "reconnect_timeout": 0.2, "timeout": 0.2, "lazy": True}
    db = await AsyncDatabase.create("postgres", {"host": "127.0.0.1", "pool": pool}, lazy=True)
    with pytest.raises(ConnectError):
        await db.count()
    await asyncio.sleep(2.0)
    tried = attempts
    await asyncio.sleep(2.0)
    assert attempts == tried

    with pytest.raises(ConnectError):
        await db.count()
    assert attempts > tried
    await db.close()


# --- Elasticsearch


@pytest.mark.parametrize(
    ("setting", "value", "name", "seen"),
    [
        ("ca", "CERT", "ca_certs", "CERT"),
        ("ssl_assert_fingerprint", "ab" * 32, "ssl_assert_fingerprint", "ab" * 32),
        ("verify_certs", False, "verify_certs", False),
        ("client_cert", "CERT", "client_cert", "CERT"),
        ("client_key", "KEY", "client_key", "KEY"),
        ("http_compress", True, "http_compress", True),
        ("pool.maxsize", 7, "connections_per_node", 7),
        ("request_timeout", 3.5, "request_timeout", 3.5),
        ("sniff", True, "sniff", True),
    ],
)
async def test_a_setting_of_elasticsearch_is_one_of_its_client(
    setting: str, value: Any, name: str, seen: Any, tmp_path: Path
) -> None:
    """Of the node's configuration, or of the client."""
    made = make_certificate(tmp_path)
    files = {"CERT": str(made.certificate), "KEY": str(made.key)}
    first, _, rest = setting.partition(".")
    value = files.get(value, value)
    given: dict[str, Any] = {"hosts": ["https://h:9200"], first: {rest: value} if rest else value}
    if setting in ("client_cert", "client_key"):
        given |= {"client_cert": files["CERT"], "client_key": files["KEY"]}
    pool = ClientPool(ElasticsearchConfig.load(given, environ={}))
    try:
        [node] = pool.client.transport.node_pool.all()
        if name == "sniff":
            found = pool.client.transport._sniff_on_start
        elif name == "request_timeout":
            found = pool.client._request_timeout
        else:
            found = getattr(node.config, name)
    finally:
        await pool.close()

    assert found == files.get(seen, seen)


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({"user": "me", "password": "p:w"}, "Basic bWU6cDp3"),
        ({"api_key": "a2V5"}, "ApiKey a2V5"),
        ({"bearer_token": "t"}, "Bearer t"),
    ],
    ids=["user", "api_key", "bearer_token"],
)
async def test_credentials_of_elasticsearch_are_in_its_requests(given: dict[str, str], header: str) -> None:
    """Those of the client that users get, and our own."""
    pool = ClientPool(ElasticsearchConfig.load(given, environ={}))
    try:
        assert pool.client._headers["authorization"] == header
        assert pool.client.transport.headers == {"authorization": header}
    finally:
        await pool.close()


async def test_a_bulk_request_has_no_more_than_bulk_bytes() -> None:
    """`bulk.bytes` ends a chunk of a batch, unless one record alone is larger."""
    config = ElasticsearchConfig.load({"bulk": {"bytes": 2_000}}, environ={})
    mutations = [Mutation(f"{number}", {"text": "x" * 500}) for number in range(20)]
    results: list[ItemResult | None] = [None] * len(mutations)

    encoder = BatchEncoder(index(), BulkSender(config.bulk), config.bulk.bytes, mutations, results)

    sizes = [len(chunk.positions) for chunk in encoder.creates(range(len(mutations)))]
    assert sum(sizes) == 20
    assert all(1 <= size <= 3 for size in sizes)
