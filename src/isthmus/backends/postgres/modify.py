"""Modifications as one statement each, where SQL is exact."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from isthmus._core.modify import Modification
from isthmus._core.offload import compile_statement
from isthmus._ids import new_version
from isthmus._query.ast import Predicate
from isthmus._query.changes import FieldChange
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import is_field_violation, sqlstate_of
from isthmus.backends.postgres.single_write import version_number
from isthmus.backends.postgres.sql.modify import DIVISION_BY_ZERO, update_one, update_where
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.unique_write import guard_statement


async def modify(connection: Connection, table: Table, modification: Modification) -> str | None:
    """Change part of one row and return its new version; None if it is left to the core."""
    version = new_version()
    given = modification.if_version
    expected = None if given is None else version_number(given)
    statement = update_one(table, modification, version, expected)
    if statement is None:
        return None
    try:
        async with guard_statement(connection, table):
            status = await connection.execute(statement.text, *statement.args)
    except Exception as error:
        # The class of the exception depends on the driver; its SQLSTATE does not.
        if not is_field_violation(error):
            raise
        return None
    return None if status.endswith(" 0") else str(version)


async def modify_where(
    connection: Connection, table: Table, where: Predicate, changes: tuple[FieldChange, ...]
) -> int | None:
    """Change the matching rows and return how many; None, and no row is changed, if left to the core."""
    statement = await compile_statement(where, lambda: update_where(table, where, changes, new_version()))
    if statement is None:
        return None
    try:
        async with _savepoint(connection):
            status = await connection.execute(statement.text, *statement.args)
    except Exception as error:
        if sqlstate_of(error) != DIVISION_BY_ZERO and not is_field_violation(error):
            raise
        return None
    return int(status.rpartition(" ")[2])


def _savepoint(connection: Connection) -> AbstractAsyncContextManager[Any]:
    """Return a savepoint inside a transaction; outside, a statement is rolled back as a whole anyway."""
    return connection.transaction() if connection.is_in_transaction() else nullcontext()
