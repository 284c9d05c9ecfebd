"""Checks of a table of SQLite that others made: how it is served, and which index would serve."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

from isthmus.cli._doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from isthmus.backends.sqlite.config import SQLiteConfig


def check_native(connection: sqlite3.Connection, config: SQLiteConfig) -> Iterator[Finding]:
    """Say how the default table is served; nothing of one that cannot be, which another check reports."""
    from isthmus.backends.sqlite.native.columns import Affinity
    from isthmus.backends.sqlite.native.table import read_table
    from isthmus.backends.sqlite.statement import quote_name
    from isthmus.errors import ConfigError

    name = config.table
    try:
        table = read_table(
            connection, config.path, name, key=config.key_of(name), version=config.version_of(name)
        )
    except ConfigError:
        return
    key = ", ".join(table.key)
    if table.read_only:
        yield ok("table", f"read-only, {table.read_only}; its key is {key}")
    else:
        version = "none" if table.version is None else table.version
        yield ok("table", f"made by others; its key is {key}, the version of a row {version}")
    begun = {columns[0] for _, columns in table.indexes if columns} - table.leading
    slow = [
        column.name
        for column in table.cells
        if column.name in begun and column.affinity in (Affinity.TEXT, Affinity.NONE)
    ]
    if slow:
        names = ", ".join(slow)
        yield warning(
            "indexes",
            f"no index has the order of these texts, by code point: {names}; = and in use any index",
            "for ranges, prefixes and sorting:"
            f" CREATE INDEX … ON {quote_name(name)} ({quote_name(slow[0])} COLLATE BINARY)",
        )
