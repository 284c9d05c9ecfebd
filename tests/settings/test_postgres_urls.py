"""Spellings of a server's address that other clients accept."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase
from isthmus._core.conninfo import conninfo_to_url, is_conninfo
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.errors import ConfigError, ConnectError

pytestmark = pytest.mark.backend("postgres")

HOSTS = [("a", 1), ("b", 2)]


def _load(url: str, **environ: str) -> PostgresConfig:
    return PostgresConfig.load({"url": url}, environ=environ)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("host=a,b port=1,2 dbname=d", HOSTS),
        ("host=a,b port=7 dbname=d", [("a", 7), ("b", 7)]),
        ("postgres:///d?host=a,b&port=1,", [("a", 1), ("b", 5432)]),
        ("postgres:///d?host=a&host=b&port=1&port=2", HOSTS),
        ("postgresql+asyncpg:///d?host=a:1&host=b:2", HOSTS),
        ("postgresql+psycopg:///d?host=a:1&host=[::1]:2", [("a", 1), ("::1", 2)]),
        ("host=/run/pg,b port=1,2 dbname=d", [("/run/pg", 1), ("b", 2)]),
        ("hostaddr=10.0.0.1 dbname=d", [("10.0.0.1", 5432)]),
        ("host=10.0.0.1 hostaddr=10.0.0.1 dbname=d", [("10.0.0.1", 5432)]),
    ],
)
def test_hosts_and_their_ports(url: str, addresses: list[tuple[str, int]]) -> None:
    """Every host that is named is used, with its port; none comes from the environment."""
    config = _load(url, PGHOST="other", PGPORT="99")

    assert (config.addresses(), config.database) == (addresses, "d")


def test_hosts_and_ports_of_the_environment_are_lists_too() -> None:
    assert PostgresConfig.load({}, environ={"PGHOST": "a,b", "PGPORT": "1,2"}).addresses() == HOSTS


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ("sslmode=no-verify", "require"),
        ("sslmode=require&sslaccept=strict", "verify-full"),
        ("sslmode=require&sslaccept=accept_invalid_certs", "require"),
        ("sslmode=require&uselibpqcompat=true", "require"),
        ("sslmode=require&workaround=supabase-pooler.vercel", "require"),
        ("sslmode=require&sslcertmode=disable", "require"),
        ("sslmode=require&", "require"),
        ("sslmode=require&sslmode=require", "require"),
    ],
)
def test_options_that_hosts_print(options: str, mode: str) -> None:
    assert _load(f"postgres://u:p@h/d?{options}").ssl == mode


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("host=a,b,c port=1,2", "2 ports for 3 hosts"),
        ("postgres://h/d?user=a&user=b", "'user' has two values"),
        ("host=a hostaddr=10.0.0.1", "`host` or `hostaddr`"),
        ("postgres://h/d?sslaccept=maybe", "sslaccept is strict or accept_invalid_certs"),
    ],
)
def test_what_contradicts_itself_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _load(url)


@pytest.mark.asyncio
async def test_the_text_of_libpq_opens_a_store() -> None:
    """With several hosts the error says what each of them answered."""
    with pytest.raises(ConnectError) as caught:
        await AsyncDatabase.open("host=127.0.0.1,127.0.0.2 port=1,2 dbname=d user=u password='pa ss'")

    assert "127.0.0.1:1" in str(caught.value)
    assert "127.0.0.2:2" in str(caught.value)
    assert "pa ss" not in str(caught.value)


def test_a_condition_is_no_address() -> None:
    assert not is_conninfo("age=25")
    assert not is_conninfo("postgres://h/d?host=a")
    assert conninfo_to_url("host=a,b user='x y'") == "postgresql:///?host=a%2Cb&user=x+y"
