"""Settings in what the drivers are given, and the URLs that hosts of PostgreSQL hand out."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from elasticsearch import AuthenticationException
from isthmus import AsyncDatabase
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers import load_driver, session
from isthmus.backends.postgres.errors import connect_error
from isthmus.backends.postgres.pool.connector import Hosts
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.transport.session import find_keys
from isthmus.errors import ConfigError, IsthmusError

pytestmark = pytest.mark.asyncio


class _Recorded(Exception):
    """Ends an attempt to connect once its arguments are known."""


async def _arguments(config: dict[str, Any] | str, driver: str = "asyncpg", **more: Any) -> dict[str, Any]:
    """Return the arguments that a driver's `connect` gets for the first host."""
    seen: dict[str, Any] = {}

    async def connect(**arguments: Any) -> Any:
        seen.update(arguments)
        raise _Recorded

    given = {"url": config} if isinstance(config, str) else config
    loaded = PostgresConfig.load(
        {**given, "driver": driver, "pool": {"connect": connect}, **more}, environ={}
    )
    with pytest.raises(_Recorded):
        await load_driver(loaded).open(loaded.addresses()[0], loaded.session_attrs())
    return seen


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


NEON = "postgresql://me:pw@ep-x-1.eu.aws.neon.tech/app?sslmode=require&channel_binding=require"
SUPABASE = "postgres://me.ref:pw@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1"
HEROKU = "postgres://u:pw@ec2-1.compute-1.amazonaws.com:5432/d?sslmode=require"
RDS = "postgresql://me:pw@db.eu-west-1.rds.amazonaws.com/app?sslmode=verify-full&sslrootcert=system"
CLOUD_SQL = "postgresql://me:pw@/app?host=/cloudsql/project:europe-west1:db"


@pytest.mark.parametrize(
    ("url", "host", "port", "database"),
    [
        (NEON, "ep-x-1.eu.aws.neon.tech", 5432, "app"),
        (SUPABASE, "aws-0-eu.pooler.supabase.com", 6543, "postgres"),
        (HEROKU, "ec2-1.compute-1.amazonaws.com", 5432, "d"),
        (RDS, "db.eu-west-1.rds.amazonaws.com", 5432, "app"),
        (CLOUD_SQL, "/cloudsql/project:europe-west1:db", 5432, "app"),
        ("postgresql://me:pw@%2Frun%2Fpg:5433/app", "/run/pg", 5433, "app"),
        ("postgres://me:pw@[::1]:5434,h1/app", "::1", 5434, "app"),
        ("postgres://me:pw@h1,[::1]:5434/app", "h1", 5432, "app"),
        ("postgresql+asyncpg://me:pw@h/app", "h", 5432, "app"),
        (" 'POSTGRESQL://me:pw@h/app' ", "h", 5432, "app"),
        ("host=h port=5433 dbname=app user=me password='p\\'w'", "h", 5433, "app"),
        ("host = h dbname = 'app' password=pw", "h", 5432, "app"),
    ],
)
async def test_a_hosts_url_reaches_the_driver(
    url: str, host: str, port: int, database: str, driver: str
) -> None:
    """Address and database, with either driver."""
    seen = await _arguments(url, driver)

    assert (seen["host"], seen["port"], seen.get("database", seen.get("dbname"))) == (host, port, database)
    assert seen["password"] in ("pw", "p'w")


async def test_what_the_options_of_hosts_do(driver: str) -> None:
    """`pgbouncer` is the pooler, `system` the system's authorities, `options` the session's."""
    supabase = await _arguments(SUPABASE, driver)
    rds = await _arguments(RDS, driver)
    neon = await _arguments(NEON.replace("channel_binding=require", "options=endpoint%3Dep-x"), driver)
    path = await _arguments("postgres://h/app?options=-c%20search_path%3Dy", driver)

    if driver == "asyncpg":
        assert supabase["statement_cache_size"] == 0
        assert (rds["ssl"].verify_mode, rds["ssl"].check_hostname) == (2, True)
        assert neon["server_settings"]["options"] == "endpoint=ep-x"
        assert path["server_settings"]["options"] == "-c search_path=y"
    else:
        assert supabase["prepare_threshold"] is None
        assert (rds["sslmode"], rds["sslrootcert"]) == ("verify-full", "system")
        assert neon["options"].endswith(" endpoint=ep-x")
        assert path["options"].endswith(" -c search_path=y")


async def test_parameters_of_libpq_reach_psycopg_and_are_noted_with_asyncpg(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each; the keepalives work with both."""
    monkeypatch.setattr(session, "_noted", set())
    url = (
        "postgres://h/app?channel_binding=require&sslnegotiation=direct&gssencmode=prefer"
        "&keepalives_idle=77&supa=base-pooler.x"
    )
    caplog.set_level(logging.INFO, "isthmus.postgres")

    seen = await _arguments(url, "psycopg")
    assert [record.getMessage().partition("=")[0] for record in caplog.records] == ["supa"]
    await _arguments(url)
    await _arguments(url)

    assert (seen["channel_binding"], seen["sslnegotiation"], seen["gssencmode"]) == (
        "require",
        "direct",
        "prefer",
    )
    assert int(seen["keepalives_idle"]) == 77
    assert "supa" not in seen
    noted = [record.getMessage().partition("=")[0] for record in caplog.records]
    assert noted == ["supa", "channel_binding", "gssencmode", "sslnegotiation"]
    assert session.keepalive_of(PostgresConfig.load({"url": url}, environ={}))["keepalives_idle"] == 77


async def test_hosts_are_shuffled_on_request() -> None:
    """`load_balance_hosts=random`: another order for each connection."""
    config = PostgresConfig.load({"url": "postgres://a,b,c/x?load_balance_hosts=random"}, environ={})
    hosts = Hosts(config.addresses(), "any", shuffled=config.load_balance_hosts == "random")
    random.seed(1)

    firsts = {next(iter(hosts._candidates()))[0][0] for _ in range(50)}

    assert firsts == {"a", "b", "c"}


async def test_the_environment_and_explicit_credentials_are_not_mixed() -> None:
    """The environment's password is for the environment's user; a secret replaces other kinds of it."""
    environ = {"PGUSER": "alice", "PGPASSWORD": "pw", "PGPASSFILE": "/p", "PGHOST": "h"}

    own = PostgresConfig.load({"database": "app"}, environ=environ)
    another = PostgresConfig.load({"user": "bob"}, environ=environ)
    secret = PostgresConfig.load({"password": "mine"}, environ=environ)

    assert own.password is not None
    assert (another.user, another.password) == ("bob", None)
    assert (secret.user, secret.passfile) == ("alice", None)
    assert secret.explain()["password"][1] == "argument"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mysql://u:c4n4ry@h/x", "mysql"),
        ("postgres//c4n4ry", "scheme"),
        ("postgres://u:c4n4ry@h:port/x", "port"),
        ("host=h 'c4n4ry", "name=value"),
        ("postgresql+pg8000://u:c4n4ry@h/x", "asyncpg"),
        ("postgres://u:c4n4ry@h/x?colour=c4n4ry", "'colour'"),
    ],
)
async def test_a_database_url_that_cannot_be_read_is_named(address: str, says: str) -> None:
    """It is not ignored, and not shown."""
    with pytest.raises(ConfigError, match="environment DATABASE_URL") as caught:
        PostgresConfig.load({}, environ={"DATABASE_URL": address})

    assert says in str(caught.value)
    assert "c4n4ry" not in str(caught.value)


async def test_a_database_url_in_any_dress_is_read() -> None:
    """SQLAlchemy's scheme, upper case, blanks, quotes."""
    for address in (
        "postgresql+asyncpg://me:pw@h/app",
        "POSTGRES://me:pw@h/app",
        "  postgres://me:pw@h/app\n",
        "'postgres://me:pw@h/app'",
        '"postgresql+psycopg2://me:pw@h/app"',
        "host=h dbname=app user=me password=pw",
    ):
        config = PostgresConfig.load({}, environ={"DATABASE_URL": address})
        assert (config.host, config.database, config.user) == (("h",), "app", "me"), address
        assert config.explain()["host"][1] == "environment DATABASE_URL"


async def test_the_error_of_pgbouncer_names_the_setting() -> None:
    """In either mode."""
    error = connect_error(OSError("unsupported startup parameter: jit"))

    assert isinstance(error, ConfigError)
    assert 'pooler="transaction"' in str(error)
    assert "ignore_startup_parameters" in str(error)


async def test_postgres_hosts_may_be_dicts() -> None:
    """Of `host` and `port`; another key is refused."""
    config = PostgresConfig.load({"hosts": [{"host": "a", "port": 5433}, {"host": "::1"}]}, environ={})

    assert config.addresses() == [("a", 5433), ("::1", 5432)]
    with pytest.raises(ConfigError, match="'hots'"):
        PostgresConfig.load({"hosts": [{"hots": "a"}]}, environ={})


# --- Elasticsearch


async def _nodes(config: ElasticsearchConfig) -> tuple[list[Any], dict[str, str]]:
    """Return the client's nodes and the headers that authorize its requests."""
    pool = ClientPool(config)
    try:
        return [node.config for node in pool.client.transport.node_pool.all()], dict(pool.client._headers)
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ({"host": "h"}, ("http", "h", 9200, "")),
        ({"host": "h", "port": 9201, "scheme": "https"}, ("https", "h", 9201, "")),
        ({"host": "h", "port": 443, "use_ssl": True}, ("https", "h", 443, "")),
        ({"host": "h", "port": 80, "use_ssl": False, "path_prefix": "/es/"}, ("http", "h", 80, "/es")),
        ({"host": "::1", "url_prefix": "es"}, ("http", "::1", 9200, "/es")),
        ("https://h:443/es/", ("https", "h", 443, "/es")),
    ],
    ids=str,
)
async def test_a_host_of_elasticsearch_reaches_the_client(host: Any, seen: tuple[str, str, int, str]) -> None:
    """In the forms that its client takes."""
    nodes, _ = await _nodes(ElasticsearchConfig.load({"hosts": [host]}, environ={}))

    assert [(node.scheme, node.host.strip("[]"), node.port, node.path_prefix) for node in nodes] == [seen]


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ({"hots": "h"}, "'host'"),
        ({"host": "h", "use_sll": True}, "'use_ssl'"),
        ({"host": "h", "pathprefix": "/es"}, "'path_prefix'"),
        ({"port": 9200}, "host"),
        ({"host": "h", "use_ssl": True, "scheme": "http"}, "differ"),
        ({"host": "h", "http_auth": "u:c4n4ry"}, "settings of their own"),
    ],
    ids=str,
)
async def test_a_host_with_an_unknown_key_is_refused(host: dict[str, Any], says: str) -> None:
    """The nearest key is named; nothing becomes localhost in silence."""
    with pytest.raises(ConfigError, match=says) as caught:
        ElasticsearchConfig.load({"hosts": [host]}, environ={})

    assert "c4n4ry" not in str(caught.value)


@pytest.mark.parametrize("name", ["http_auth", "basic_auth"])
@pytest.mark.parametrize("value", [("me", "p:w"), ["me", "p:w"], "me:p:w"], ids=str)
async def test_both_credentials_in_one_setting_work(name: str, value: Any) -> None:
    """As the client takes them, and never shown."""
    config = ElasticsearchConfig.load({name: value}, environ={})

    _, headers = await _nodes(config)
    assert headers["authorization"] == "Basic bWU6cDp3"
    assert "p:w" not in repr(config) + str(config.explain())
    with pytest.raises(ConfigError, match=name):
        ElasticsearchConfig.load({name: value, "user": "me"}, environ={})
    with pytest.raises(ConfigError, match=name):
        ElasticsearchConfig.load({name: "no colon"}, environ={})


async def test_an_explicit_key_turns_the_environments_user_off() -> None:
    """Group by group: one kind of credentials replaces the others of a weaker source."""
    environ = {"ES_USER": "u", "ES_PASSWORD": "p", "ES_HOSTS": "http://h:9200"}

    for given in ({"api_key": "a2V5"}, {"api_key": ("id", "key")}, {"bearer_token": "t"}):
        config = ElasticsearchConfig.load(given, environ=environ)
        assert (config.user, config.password, config.hosts) == (None, None, ("http://h:9200",))
    by_url = ElasticsearchConfig.load({"url": "es+http://me:pw@h/i"}, environ={"ES_API_KEY": "k"})
    over_url = ElasticsearchConfig.load({"url": "es+http://me:pw@h/i", "api_key": "k"}, environ={})

    assert (by_url.user, by_url.api_key) == ("me", None)
    assert (over_url.user, over_url.password) == (None, None)
    with pytest.raises(ConfigError, match="give one of"):
        ElasticsearchConfig.load({"api_key": "k", "bearer_token": "t"}, environ={})


@contextlib.asynccontextmanager
async def _refusing() -> AsyncIterator[tuple[str, list[str]]]:
    """Run a cluster that knows nobody; yield its URL and the heads of the requests that it got."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 401 X\r\nx-elastic-product: Elasticsearch\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    server.close()


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
async def test_a_header_that_authorizes_is_a_kind_of_credentials(name: str) -> None:
    """It replaces those of a weaker source, and is replaced by those of a stronger one."""
    given: dict[str, Any] = {"headers": {name: "Bearer mine", "x-team": "a"}}
    url = {"url": f"es+http://h/i?headers.{name}=Bearer+mine&headers.x-team=a"}
    environments = ({"ES_API_KEY": "ZW52"}, {"ES_USER": "eu", "ES_PASSWORD": "ep"})

    explicit = [ElasticsearchConfig.load(one, environ=env) for one in (given, url) for env in environments]
    explicit.append(ElasticsearchConfig.load({**given, "url": "es+http://me:pw@h/i"}, environ={}))
    explicit.append(
        ElasticsearchConfig.load({**given, "url": "es+http://h/i?headers.AUTHORIZATION=other"}, environ={})
    )
    for config in explicit:
        assert (config.user, config.password, config.api_key) == (None, None, None)
        pool = ClientPool(config)
        assert pool.client.transport.headers == {"authorization": "Bearer mine", "x-team": "a"}
        await pool.close()

    over = ElasticsearchConfig.load({**url, "api_key": "a2V5"}, environ={"ES_USER": "eu", "ES_PASSWORD": "p"})
    assert (list(over.headers), over.user) == (["x-team"], None)
    for other in ({"api_key": "a2V5"}, {"user": "u", "password": "p"}, {"bearer_token": "t"}):
        with pytest.raises(ConfigError, match=r"give one of .*, a header Authorization") as caught:
            ElasticsearchConfig.load({**given, **other}, environ={})
        assert "mine" not in str(caught.value)
    with pytest.raises(ConfigError, match="give one of"):
        ElasticsearchConfig.load({"url": "es+http://me:pw@h/i?headers.Authorization=x"}, environ={})


async def test_headers_are_in_every_request() -> None:
    """Beside those that authorize; their values are not shown."""
    config = ElasticsearchConfig.load(
        {"api_key": "a2V5", "headers": {"x-team": "c4n4ry", "x-opaque-id": "o"}}, environ={}
    )

    async with _refusing() as (url, heads):
        for sniff in (False, True):
            used = config.model_copy(update={"hosts": (url,), "sniff": sniff})
            pool = ClientPool(used)
            with pytest.raises(IsthmusError):
                await pool.call("GET", "/_nodes", action="connect")
            if not sniff:
                with pytest.raises(AuthenticationException):
                    await pool.native.info()
            await pool.close()

    assert [head.split()[1] for head in heads] == ["/_nodes", "/", "/_nodes/_all/http"]
    for head in heads:
        lines = head.lower().splitlines()
        assert {"x-team: c4n4ry", "x-opaque-id: o", "authorization: apikey a2v5"} <= set(lines)
        assert len([line for line in lines if line.startswith("accept: application/json")]) == 1
    assert "c4n4ry" not in repr(config) + str(config.explain())
    other = ElasticsearchConfig.load({"api_key": "a2V5", "headers": {"x-team": "b"}}, environ={})
    assert config.pool_key() != other.pool_key()


async def test_a_cloud_id_is_the_clusters_address() -> None:
    """As the client reads it; one that is cut, or that comes with hosts, is refused and not shown."""
    whole = "prod:" + base64.b64encode(b"eu-west-1.aws.found.io$5up3r$k1b4n4").decode()
    ported = base64.b64encode(b"cloud.example:9243$5up3r$").decode()

    nodes, _ = await _nodes(ElasticsearchConfig.load({"cloud_id": whole, "api_key": "a2V5"}, environ={}))
    with_port = ElasticsearchConfig.load({"cloud_id": ported}, environ={})

    assert [(n.scheme, n.host, n.port) for n in nodes] == [("https", "5up3r.eu-west-1.aws.found.io", 443)]
    assert with_port.hosts == ("https://5up3r.cloud.example:9243",)
    for wrong in ("prod:c4n4ry!", "prod:", "", base64.b64encode(b"c4n4ry").decode()):
        with pytest.raises(ConfigError, match="cloud_id") as caught:
            ElasticsearchConfig.load({"cloud_id": wrong}, environ={})
        assert "c4n4ry" not in str(caught.value)
    with pytest.raises(ConfigError, match="give one"):
        ElasticsearchConfig.load({"cloud_id": whole, "hosts": ["http://h:9200"]}, environ={})


# --- S3, SQLite


async def test_half_a_pair_of_keys_in_the_environment_is_named() -> None:
    """As is what is missing; explicit keys and a profile turn the environment's off."""
    config = S3Config.load({"bucket": "bucket-1"}, environ={})
    environ = {"AWS_ACCESS_KEY_ID": "k"}

    with pytest.raises(ConfigError, match=r"AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"):
        find_keys(config, environ)
    explicit = S3Config.load({"url": "s3://mine:s@bucket-1"}, environ={})
    keys = find_keys(explicit, {**environ, "AWS_SESSION_TOKEN": "t"})
    assert keys is not None
    assert (keys.access, keys.token) == ("mine", None)
    profile = S3Config.load({"url": "s3://mine:s@bucket-1", "profile": "dev"}, environ={})
    assert (profile.profile, profile.aws_access_key_id) == ("dev", None)


async def test_a_sqlite_file_may_have_a_hash_in_its_name(tmp_path: Path) -> None:
    """It was cut there: the records went to another file."""
    async with await AsyncDatabase.open(f"sqlite:///{tmp_path}/my#1.db?table=notes") as db:
        await db.create({"a": 1})

    assert (tmp_path / "my#1.db").exists()
    assert not (tmp_path / "my").exists()


async def test_each_url_of_the_page_of_hosts_is_accepted() -> None:
    """Its table has one for each host."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "hosted-postgres.md"
    rows = [line.split("|") for line in page.read_text().splitlines() if "`postgres" in line and "|" in line]
    urls = {cells[1].strip(): cells[2].strip(" `") for cells in rows if len(cells) == 4}

    assert len(urls) == 5
    for host, url in urls.items():
        config = PostgresConfig.load({"url": url}, environ={})
        assert isinstance(config.password, SecretStr), host
        assert (config.password.get_secret_value(), config.explain()["host"][1]) == ("secret", "url"), host
