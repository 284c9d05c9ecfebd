"""`isthmus changes --ddl`: what the owner of a table runs so that it keeps its changes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.mark.backend("sqlite")
def test_the_statements_are_printed(cli: Cli, tmp_path: Path) -> None:
    """They are all that the owner runs; then the command prints changes. Not for a table of isthmus."""
    sql = sqlite3.connect(tmp_path / "db", isolation_level=None)
    sql.execute('CREATE TABLE "odd "" name" (id INTEGER PRIMARY KEY, n INTEGER)')
    url = f"sqlite:///{tmp_path}/db?layout=native&table=odd%20%22%20name"
    refused = cli("changes", f"{url}&changes=true", "--no-wait")
    assert refused.code != 0
    assert "--ddl" in refused.err

    sql.executescript(cli("changes", url, "--ddl").out)

    sql.execute('INSERT INTO "odd "" name" VALUES (1, 2)')
    sql.close()
    printed = cli("changes", f"{url}&changes=true", "--since", "start", "--no-wait")
    assert '"id":"1"' in printed.out
    own = f"sqlite:///{tmp_path}/own.db"
    assert cli("put", own, "a", "{}").code == 0
    assert "index" in cli("changes", own, "--ddl").err
