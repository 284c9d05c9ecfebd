"""The doctor on a PostgreSQL table that others made."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from tests.cli.conftest import Cli
from tests.postgres.databases import connected, url


def execute(statement: str) -> None:
    """Run SQL on the test server."""

    async def run() -> None:
        async with connected() as sql:
            await sql.execute(statement)

    asyncio.run(run())


@pytest.mark.backend("postgres")
def test_the_doctor_says_how_a_table_of_others_is_served(cli: Cli) -> None:
    """Its key and version, what is not written or evaluated here, and the index that would serve."""
    schema = f"doctor_{secrets.token_hex(4)}"
    execute(
        f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.t"
        ' (id int PRIMARY KEY, name text COLLATE "und-x-icu", note text COLLATE "C", at time, j json)'
    )
    try:
        address = f"{url()}?layout=native&schema={schema}&table=t"
        shown = " ".join(cli("doctor", address).out.split())
        assert "made by others; its key is id" in shown
        assert "read as text and not written: at" in shown
        assert "evaluated client-side: j" in shown
        assert f'CREATE INDEX ON "{schema}"."t" ("name" COLLATE "C")' in shown
        execute(f'CREATE INDEX ON {schema}.t (name COLLATE "C")')
        assert "CREATE INDEX" not in cli("doctor", address).out
    finally:
        execute(f"DROP SCHEMA {schema} CASCADE")
