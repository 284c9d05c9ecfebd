"""The doctor on collections that keep their changes: triggers, and what holds readers back."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.cli.conftest import Cli
from tests.cli.test_doctor import KNOWN, execute, list_problems, postgres


@pytest.mark.backend("postgres")
@pytest.mark.parametrize(
    ("statement", "seen", "fix"),
    [
        ("ALTER TABLE records DISABLE TRIGGER isthmus_changes_delete", "isthmus_changes_delete", "ENABLE"),
        ("DROP TRIGGER isthmus_changes_key ON records", "isthmus_changes_key", "index --changes"),
        ("ALTER ROLE {n} SET session_replication_role = replica", "replica", "RESET"),
    ],
)
def test_triggers_that_do_not_run_are_reported(cli: Cli, statement: str, seen: str, fix: str) -> None:
    """Disabled by hand, dropped, or skipped by the session's role; sound before that."""
    with postgres(cli) as (url, inside, name):
        assert cli("index", url, "--changes").code == 0
        assert list_problems(cli, url).keys() <= KNOWN

        execute(inside, statement.format(n=name))

        found = list_problems(cli, url)["changes"]
        assert seen in found["seen"]
        assert fix in found["mend"]


@pytest.mark.backend("postgres")
def test_the_transaction_that_holds_readers_back_is_named(cli: Cli) -> None:
    """Process, database and user, though it is in another database and of another user."""
    with postgres(cli) as (url, inside, _):
        assert cli("index", url, "--changes").code == 0
        elsewhere = urlsplit(inside)._replace(path="/postgres").geturl()

        async def work() -> tuple[int, dict[str, str]]:
            other = await asyncpg.connect(elsewhere)
            try:
                async with other.transaction():
                    await other.execute("SELECT pg_current_xact_id()")
                    await asyncio.to_thread(cli, "put", url, "b", "{}")
                    return other.get_server_pid(), (await asyncio.to_thread(list_problems, cli, url))[
                        "changes read"
                    ]
            finally:
                await other.close()

        process, found = asyncio.run(work())

        for word in (f"process {process}", "database postgres", "user postgres"):
            assert word in found["seen"]
        assert f"pg_terminate_backend({process})" in found["mend"]
        assert list_problems(cli, url).keys() <= KNOWN


@pytest.mark.backend("postgres")
def test_triggers_of_a_native_table_and_what_top_shows(cli: Cli) -> None:
    """Nothing before its owner has run the statements; then what does not run, and who holds readers back."""
    with postgres(cli) as (url, inside, role):
        native = f"{url}&layout=native&table=items" if "?" in url else f"{url}?layout=native&table=items"
        execute(inside, f"CREATE TABLE items (id text PRIMARY KEY, n int); GRANT SELECT ON items TO {role}")
        assert "changes" not in list_problems(cli, native)
        execute(inside, cli("changes", native, "--ddl").out)
        assert list_problems(cli, native)["changes read"]["seen"] == "this role may not follow"
        assert json.loads(cli("top", native, "-n", "1", "--json").out)["changes"] is None
        execute(inside, f"GRANT pg_read_all_data TO {role}")
        assert not {"changes", "changes read"} & list_problems(cli, native).keys()

        async def work() -> str:
            other = await asyncpg.connect(inside)
            try:
                async with other.transaction():
                    await other.execute("SELECT pg_current_xact_id()")
                    await asyncio.to_thread(execute, inside, "INSERT INTO items VALUES ('a', 1)")
                    shown = (await asyncio.to_thread(cli, "top", native, "-n", "1")).out
                    sample = json.loads(
                        (await asyncio.to_thread(cli, "top", native, "-n", "1", "--json")).out
                    )
                    assert sample["changes"]["held"] == 1
                    assert f"process {other.get_server_pid()}" in sample["changes"]["by"]
                    return shown
            finally:
                await other.close()

        assert "1 held back by" in asyncio.run(work())
        execute(inside, "ALTER TABLE items DISABLE TRIGGER isthmus_changes_truncate")

        found = list_problems(cli, native)["changes"]

        assert "isthmus_changes_truncate" in found["seen"]
        assert "ENABLE TRIGGER" in found["mend"]
        assert json.loads(cli("top", native, "-n", "1", "--json").out)["changes"] is None


@pytest.mark.backend("sqlite")
def test_a_trigger_that_is_missing_in_a_file_is_reported(cli: Cli, tmp_path: Path) -> None:
    """Dropped by another program; declared again all is well."""
    url = f"sqlite:///{tmp_path}/store.db"
    assert cli("put", url, "a", "{}").code == 0
    assert cli("index", url, "--changes").code == 0
    assert list_problems(cli, url) == {}
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE 'isthmus~_key~_%' ESCAPE '~'"
        )
        [name] = names.fetchone()
        connection.execute(f"DROP TRIGGER {name}")

    found = list_problems(cli, url)["changes"]

    assert name in found["seen"]
    assert "index" in found["mend"]
    assert cli("index", url, "--changes", "--drop").code == 0
    assert cli("index", url, "--changes").code == 0
    assert list_problems(cli, url) == {}
