"""The doctor reports planted problems with a fix each, and none on a sound store."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.cli.conftest import Cli
from tests.servers import server

Findings = dict[str, dict[str, str]]


def list_problems(cli: Cli, url: str, *options: object) -> Findings:
    """Return the warnings and problems that the doctor found, by check."""
    ran = cli("doctor", url, "--json", *options)
    found = ran.json
    bad = {f["check"]: f for f in found if f["level"] != "ok"}
    assert ran.code == (1 if any(f["level"] == "wrong" for f in found) else 0)
    assert all(f["mend"] for f in bad.values())
    return bad


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# SQLite


@pytest.fixture
def file(cli: Cli, tmp_path: Path) -> Path:
    """Return a sound SQLite file with records."""
    path = tmp_path / "store.db"
    for i in range(200):
        if i % 50 == 0:
            lines = "\n".join(json.dumps({"id": f"k{i + j}", "data": {"x": "y" * 500}}) for j in range(50))
            (tmp_path / "lines.jsonl").write_text(lines)
            assert cli("load", f"sqlite:///{path}", tmp_path / "lines.jsonl", "--records").code == 0
    return path


@pytest.mark.backend("sqlite")
def test_a_sound_file_has_no_problem(cli: Cli, file: Path) -> None:
    """No false alarm, and the text says the same as the JSON."""
    assert list_problems(cli, f"sqlite:///{file}") == {}
    assert "ok   lock: no other process holds it" in cli("doctor", f"sqlite:///{file}").out


def damage(path: Path) -> None:
    """Overwrite the middle of the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as opened:
        opened.seek(8192)
        opened.write(b"\xff" * 8192)


def set_newer_format(path: Path) -> None:
    """Mark the file as one of a later version of isthmus."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def replace_with_text(path: Path) -> None:
    """Replace the file by one of another kind."""
    path.write_bytes(b"These are not the bytes you are looking for. " * 100)


def leave_wal_mode(path: Path) -> None:
    """Change to a rollback journal."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = delete")


@pytest.mark.backend("sqlite")
@pytest.mark.parametrize(
    ("plant", "check", "fix"),
    [
        (damage, "connection", ".recover"),
        (set_newer_format, "collection", "upgrade isthmus"),
        (replace_with_text, "connection", "right file"),
        (leave_wal_mode, "journal", "journal_mode=wal"),
    ],
)
def test_a_planted_problem_in_a_file_is_reported(
    cli: Cli, file: Path, plant: Callable[[Path], None], check: str, fix: str
) -> None:
    """Damage, a newer format, another kind of file, a slow journal."""
    plant(file)

    found = list_problems(cli, f"sqlite:///{file}")

    assert fix in found[check]["mend"]


@pytest.mark.backend("sqlite")
def test_a_held_lock_is_reported(cli: Cli, file: Path) -> None:
    """Another connection is in a transaction."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        found = list_problems(cli, f"sqlite:///{file}")

    assert "fuser" in found["lock"]["mend"]


@pytest.mark.backend("sqlite")
def test_unsafe_writes_to_a_file_are_reported(cli: Cli, file: Path) -> None:
    """synchronous=off loses data in a power cut."""
    assert (
        "leave synchronous out"
        in list_problems(cli, f"sqlite:///{file}?synchronous=off")["durability"]["mend"]
    )


@pytest.mark.backend("sqlite")
def test_utf_16_is_reported(cli: Cli, tmp_path: Path) -> None:
    """Its sort order is not that of code points."""
    path = tmp_path / "wide.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16'")
        connection.execute("CREATE TABLE t (x)")
        connection.commit()

    assert "isthmus dump" in list_problems(cli, f"sqlite:///{path}")["encoding"]["mend"]


# PostgreSQL


def execute(url: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


@contextmanager
def postgres(cli: Cli) -> Iterator[tuple[str, str, str]]:
    """Create a role and a database with a collection; yield the role's and the admin's URL, and the name."""
    admin = server("postgres").url
    name = f"doctor_{uuid.uuid4().hex[:12]}"
    execute(admin, f"CREATE ROLE {name} LOGIN PASSWORD 'p'", f"CREATE DATABASE {name} OWNER {name}")
    parts = urlsplit(admin)
    inside = parts._replace(path=f"/{name}").geturl()
    url = f"postgres://{name}:p@{parts.hostname}:{parts.port}/{name}"
    try:
        assert cli("put", url, "a", '{"age": 1}').code == 0
        yield url, inside, name
    finally:
        execute(admin, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


# The test servers run without fsync, which the doctor reports.
KNOWN = {"durability"}


@pytest.mark.backend("postgres")
def test_a_sound_server_has_no_problem(cli: Cli) -> None:
    """No false alarm; only the test server's durability is reported."""
    with postgres(cli) as (url, _, _):
        assert list_problems(cli, url).keys() <= KNOWN


@pytest.mark.backend("postgres")
@pytest.mark.parametrize(
    ("statements", "options", "check", "seen", "fix"),
    [
        ([], "?pool.max_size=1000", "pool size", "1000", "set pool.max_size to"),
        (["ALTER ROLE {n} CONNECTION LIMIT 4"], "?pool.max_size=10", "pool size", "4", "PgBouncer"),
        (["ALTER DATABASE {n} SET default_transaction_read_only = on"], "", "writable", "read-only", "RESET"),
        (
            ["ALTER TABLE records OWNER TO postgres", "GRANT SELECT ON records TO {n}"],
            "",
            "privileges",
            "may not insert",
            "GRANT INSERT, UPDATE, DELETE",
        ),
        (
            [
                "CREATE INDEX broken_age ON records (updated_at)",
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken_age'::regclass",
            ],
            "",
            "indexes",
            "broken_age",
            "REINDEX INDEX CONCURRENTLY",
        ),
        (["ALTER TABLE records SET (autovacuum_enabled = false)"], "", "vacuum", "off", "RESET"),
        (
            ["ALTER ROLE {n} SET statement_timeout = '50ms'"],
            "",
            "timeouts",
            "50 ms",
            "RESET statement_timeout",
        ),
        (
            ["ALTER ROLE {n} SET synchronous_commit = off"],
            "",
            "durability",
            "off",
            "RESET synchronous_commit",
        ),
        ([], "?pooler=transaction", "pooler", "no pooler", "leave pooler=transaction out"),
        ([], "&c=nothere", "collection", "no collection", "first write creates it"),
        (
            ["DROP TABLE records", "CREATE TABLE records (x int)"],
            "",
            "collection",
            "records",
            "another collection",
        ),
        (
            ["COMMENT ON TABLE records IS 'isthmus {{\"format\": 99}}'"],
            "",
            "collection",
            "99",
            "upgrade isthmus",
        ),
        (
            [
                "CREATE SCHEMA liar",
                "CREATE FUNCTION liar.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
                " AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$",
                "GRANT USAGE ON SCHEMA liar TO {n}",
                "ALTER ROLE {n} SET search_path = liar, pg_catalog, public",
            ],
            "",
            "clock",
            "3600 s ahead",
            "time server",
        ),
    ],
)
def test_a_planted_problem_in_postgres_is_reported(
    cli: Cli, statements: list[str], options: str, check: str, seen: str, fix: str
) -> None:
    """Pool size, privileges, durability, table and indexes, clock."""
    with postgres(cli) as (url, inside, name):
        execute(inside, *(statement.format(n=name) for statement in statements))
        extra = []
        if options.startswith("&c="):
            extra, options = ["-c", options[3:]], ""

        found = list_problems(cli, url + options, *extra)

        assert seen in found[check]["seen"].replace("INSERT", "insert")
        assert fix in found[check]["mend"]


@pytest.mark.backend("postgres")
def test_a_database_that_is_not_utf8_is_reported(cli: Cli) -> None:
    """SQL_ASCII stores bytes, not characters."""
    admin = server("postgres").url
    name = f"ascii_{uuid.uuid4().hex[:12]}"
    execute(
        admin, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        found = list_problems(cli, urlsplit(admin)._replace(path=f"/{name}").geturl())

        assert "UTF8" in found["encoding"]["mend"]
    finally:
        execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.backend("postgres")
def test_an_unreachable_server_is_reported(cli: Cli) -> None:
    """Nothing listens on the port."""
    found = list_problems(cli, f"postgres://127.0.0.1:{closed_port()}/x")

    assert "host and port" in found["connection"]["mend"]


@pytest.mark.backend("postgres")
def test_a_role_that_may_not_connect_is_reported(cli: Cli) -> None:
    """The server runs and refuses the login."""
    parts = urlsplit(server("postgres").url)

    found = list_problems(cli, f"postgres://nobody_here:x@{parts.hostname}:{parts.port}/postgres")

    assert "user and password" in found["connection"]["mend"]


@pytest.mark.backend("postgres")
@pytest.mark.parametrize(("mode", "fix"), [("disable", "verify-full"), ("require", "verify-full")])
def test_tls_without_protection_is_reported(cli: Cli, mode: str, fix: str) -> None:
    """Plain text and unverified names are reported for hosts other than loopback, without connecting."""
    found = list_problems(cli, f"postgres://192.0.2.1:1/x?ssl={mode}&connect_timeout=0.2")

    assert fix in found["tls"]["mend"]


@pytest.mark.backend("sqlite")
def test_an_invalid_setting_is_reported(cli: Cli, file: Path) -> None:
    """A mistyped option in a URL."""
    found = list_problems(cli, f"sqlite:///{file}?synchronus=off")

    assert "synchronous" in found["settings"]["seen"]


# Elasticsearch


def request(method: str, url: str, body: object = None) -> None:
    text = None if body is None else json.dumps(body).encode()
    prepared = urllib.request.Request(url, text, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(prepared, timeout=30) as response:
        response.read()


@pytest.mark.backend("elasticsearch")
@pytest.mark.parametrize(
    ("settings", "check", "seen", "fix"),
    [
        ({"index.number_of_replicas": 1}, "health", "copies have no node", "replicas=0"),
        ({"index.blocks.read_only_allow_delete": True}, "disk", "read_only_allow_delete", "watermark"),
        ({"index.blocks.write": True}, "writable", "blocks.write", "_settings"),
        ({"index.refresh_interval": "-1"}, "refresh", "-1", "refresh_interval"),
    ],
)
def test_a_planted_problem_in_an_index_is_reported(
    cli: Cli, settings: dict[str, object], check: str, seen: str, fix: str
) -> None:
    """Health, blocks, and an index without refresh."""
    host = server("elasticsearch").url.rstrip("/")
    name = f"doctor-{uuid.uuid4().hex[:12]}"
    url = f"es+{host}/{name}"
    try:
        assert cli("put", f"{url}?replicas=0", "a", '{"age": 1}').code == 0
        assert list_problems(cli, url) == {}
        request("PUT", f"{host}/{name}/_settings", settings)

        found = list_problems(cli, url)

        assert seen in found[check]["seen"]
        assert fix in found[check]["mend"]
    finally:
        request("PUT", f"{host}/{name}/_settings", {"index.blocks.write": None})
        request("DELETE", f"{host}/{name}")


@pytest.mark.backend("elasticsearch")
def test_an_index_from_elsewhere_is_reported(cli: Cli) -> None:
    """Its mapping does not support exact results."""
    host = server("elasticsearch").url.rstrip("/")
    name = f"doctor-{uuid.uuid4().hex[:12]}"
    try:
        request("PUT", f"{host}/{name}", {"settings": {"number_of_replicas": 0}})

        found = list_problems(cli, f"es+{host}/{name}")

        assert "copy it into an index created by isthmus" in found["mapping"]["mend"]
    finally:
        request("DELETE", f"{host}/{name}")


# S3


@pytest.mark.backend("s3")
def test_planted_problems_in_s3_are_reported(cli: Cli) -> None:
    """A missing bucket and invalid keys; none on a sound store."""
    url = server("s3").url
    parts = urlsplit(url)
    prefix = f"doctor-{uuid.uuid4().hex[:12]}"
    well = f"s3://{parts.netloc}/{prefix}?{parts.query}"
    assert cli("put", well, "a", '{"age": 1}').code == 0

    assert list_problems(cli, well) == {}
    missing = list_problems(cli, f"s3://no-such-bucket-{uuid.uuid4().hex[:8]}/x?{parts.query}")
    refused = list_problems(cli, f"{well}&aws_access_key_id=wrong&aws_secret_access_key=wrong")

    assert "create_bucket" in missing["connection"]["mend"]
    assert "aws_access_key_id" in refused["connection"]["mend"]
