"""The ways to say which database, and what is refused before any I/O."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from isthmus import AsyncDatabase, native
from isthmus._partition import _worker_settings
from isthmus.errors import ConfigError, MissingExtraError, UnsupportedError
from sqlalchemy import create_engine, text

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]


@pytest.mark.parametrize("form", ["prefixed", "bare", "dsn"])
async def test_each_form_of_the_url_reaches_the_same_database(form: str, tmp_path: Path) -> None:
    """With our prefix, as SQLAlchemy writes it, and under the name that others give it."""
    bare = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    settings = {
        "prefixed": {"url": f"sqlalchemy+{bare}?table=notes"},
        "bare": {"url": bare, "table": "notes"},
        "dsn": {"dsn": bare, "table": "notes"},
    }[form]

    async with await AsyncDatabase.create("sqlalchemy", settings) as db:
        assert db.collection_name == "notes"
        name = await db.create({"a": 1})

    engine = create_async_engine(bare)
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT key, data FROM notes"))).all()
    await engine.dispose()
    assert [(bytes.fromhex(key).decode(), data) for key, data in rows] == [(name, '{"a":1}')]


async def test_an_applications_engine_is_used_and_left_open(tmp_path: Path) -> None:
    """It is neither copied nor closed: the application goes on with it."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    async with await AsyncDatabase.create("sqlalchemy", {"engine": engine}) as db:
        assert await native.sqlalchemy(db) is engine
        await db.create({"a": 1})
        async with db.transaction() as tx:
            await tx.create({"a": 2})
            with pytest.raises(RuntimeError):
                async with tx.savepoint():
                    await tx.create({"a": 3})
                    raise RuntimeError
        assert await db.count() == 2

    assert "Connections in pool: 1" in engine.pool.status()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM records"))).scalar_one() == 2
    await engine.dispose()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "url such as"),
        ({"address": "no url, canary"}, "no SQLAlchemy URL"),
        ({"address": "mysql+aiomysql://u:canary@127.0.0.1:abc/x"}, "no SQLAlchemy URL"),
        ({"address": "postgresql+asyncpg://u:canary@[::1/x"}, "no SQLAlchemy URL"),
        ({"address": "nosuch+driver://host/canary"}, "nosuch"),
        ({"address": "sqlite:///canary.db"}, "async"),
        ({"engine": create_engine("sqlite://")}, "AsyncEngine"),
        ({"address": "postgresql+asyncpg://u:canary@127.0.0.1:1/x?colour=canary"}, "'colour'"),
        ({"address": "postgresql+asyncpg://127.0.0.1:1/x?port=canary"}, "port"),
        ({"address": "postgresql+asyncpg://127.0.0.1:1/x?prepared_statement_cache_size=canary"}, "literal"),
        ({"address": "sqlite+aiosqlite:///a.db?timeout=canary"}, "convert"),
        ({"address": "sqlite+aiosqlite://h/a.db?password=canary"}, "Invalid SQLite URL"),
        ({"address": "mysql+asyncmy://127.0.0.1:1/x?ssl=canary"}, "option of the URL"),
        ({"address": "sqlite+aiosqlite://", "pool": {"size": 0}}, "pool.size"),
    ],
)
async def test_a_wrong_setting_is_refused_by_name(settings: dict[str, object], says: str) -> None:
    """Without the URL in the message, since that holds the password."""
    with pytest.raises(ConfigError, match=says) as caught:
        await AsyncDatabase.create("sqlalchemy", settings)

    assert "canary" not in "".join(traceback.format_exception(caught.value))


SECRET_ADDRESSES = [
    "postgresql+asyncpg://u:{}@h/db",
    "mysql+asyncmy://u:{}@h/db",
    "mysql+asyncmy://:{}@h/db",
    "mysql+asyncmy://h/db?password={}",
    "mysql+asyncmy://h/db?passwd={}",
    "mysql+asyncmy://h/db?p%61sswd={}",
    "mysql+asyncmy://h/db?pwd={}",
    "mysql+asyncmy://h/db?auth={}",
    "postgresql+psycopg://h/db?sslmode=require&sslpassword={}",
    "postgresql+asyncpg://h/db?dsn=postgresql%3A%2F%2Fu%3A{}%40h",
    "postgresql+asyncpg://h/db?other=postgresql%3A%2F%2Fu%3A{}%40h",
]


@pytest.mark.parametrize(
    "secret", ["c4nary", "c4n/ary", "c4n%2Fary", "c4n?ary", "c4n:ary", "c4n@ary", "c4n#ary"]
)
@pytest.mark.parametrize("address", SECRET_ADDRESSES)
async def test_an_address_with_a_secret_is_not_sent_to_workers(address: str, secret: str) -> None:
    """SQLAlchemy decides where a password ends: an unescaped `/`, `?` or `#` belongs to it."""
    db = AsyncDatabase("sqlalchemy", {"address": address.format(secret)})

    with pytest.raises(ConfigError, match=r"secret address .* is not sent to workers") as caught:
        _worker_settings(db.config, None)

    shown = [str(caught.value), repr(db), repr(db.config), str(db.config.explain()), repr(db.stats)]
    assert "c4n" not in "".join(shown)
    assert "address" not in _worker_settings(db.config, "DATABASE_URL")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+asyncpg://u@h/db",
        "postgresql+asyncpg://u@/db?host=a:5432&host=b:5432",
        "mysql+asyncmy://u@h/a:b?charset=utf8mb4",
        "sqlite+aiosqlite:////tmp/a:b@c.db",
    ],
)
async def test_an_address_without_a_secret_is_sent_to_workers(address: str) -> None:
    """They need no variable for it."""
    db = AsyncDatabase("sqlalchemy", {"address": address})

    assert _worker_settings(db.config, None) == {"address": address}


async def test_a_driver_that_is_not_installed_is_named() -> None:
    """So that one knows what to install."""
    with pytest.raises(MissingExtraError, match="pip install aiomysql"):
        await AsyncDatabase.create("sqlalchemy", {"url": "mysql+aiomysql://root@127.0.0.1/test"})


async def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    """A collection is never laid over somebody else's table."""
    address = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    engine = create_async_engine(address)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE theirs (id INTEGER, name TEXT)"))
    await engine.dispose()

    with pytest.raises(ConfigError, match=r"'theirs' is not ours.*'id', 'name'"):
        await AsyncDatabase.create("sqlalchemy", {"url": address, "table": "theirs"})


async def test_a_missing_table_is_not_made_where_that_is_forbidden(tmp_path: Path) -> None:
    """`create_table=False` is for accounts that may not."""
    settings = {"url": f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", "create_table": False}

    with pytest.raises(ConfigError, match="create_table is false"):
        await AsyncDatabase.create("sqlalchemy", settings)


async def test_sqlite_has_one_isolation_level_and_says_so(tmp_path: Path) -> None:
    """What can be done depends on the database behind the URL."""
    async with await AsyncDatabase.create(
        "sqlalchemy", {"url": f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"}
    ) as db:
        assert db.capabilities.isolation == {"serializable"}


async def test_tables_of_other_databases_are_served_elsewhere(tmp_path: Path) -> None:
    """`layout="native"` of a file of SQLite is another backend's: no driver is reached."""
    bare = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"

    for settings in ({"url": bare, "layout": "native"}, {"url": f"sqlalchemy+{bare}?layout=native"}):
        with pytest.raises(ConfigError, match="layout='native' of the backends postgres and sqlite"):
            await AsyncDatabase.create("sqlalchemy", settings)
    assert not (tmp_path / "a.db").exists()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning", "ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/:memory:",
        "/%3Amemory%3A",
        "/:memory:?cache=shared",
        "/file:a?mode=memory&cache=shared&uri=true",
        "/file:a%3Fmode=memory%26cache=shared?uri=true",
        "/file::memory:?uri=true&cache=shared",
        "/file:%253Amemory%253A?uri=true&cache=shared",
        "/file:/a?vfs=memdb&uri=true",
        "/file:///a?vfs=memdb&uri=true",
        "/file:?uri=true",
        "/file://localhost?uri=true",
    ],
)
async def test_a_database_without_a_file_has_no_partitions(name: str) -> None:
    """A worker would open one of its own, which is empty: in memory, shared by name or not, or temporary."""
    async with await AsyncDatabase.create("sqlalchemy", {"address": f"sqlite+aiosqlite://{name}"}) as db:
        await db.create({"a": 1})

        with pytest.raises(UnsupportedError, match="handle's memory"):
            await db.partitions(None, 2)


@pytest.mark.parametrize("name", ["{}/a.db", "file:{}/a.db?uri=true", "file:{}/memory?mode=rwc&uri=true"])
async def test_a_database_in_a_file_has_partitions(name: str, tmp_path: Path) -> None:
    """By a URI too."""
    address = f"sqlite+aiosqlite:///{name.format(tmp_path)}"
    async with await AsyncDatabase.create("sqlalchemy", {"address": address}) as db:
        await db.create_batch([{"a": 1}, {"a": 2}, {"a": 3}])
        parts = await db.partitions(None, 2)

    rows = [await asyncio.to_thread(part.read) for part in parts]
    assert sum(map(len, rows)) == 3
