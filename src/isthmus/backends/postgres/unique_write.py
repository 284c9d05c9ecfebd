"""Writes of tables with unique fields: the fast statements first, item by item if one is violated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from isthmus._core.apply import has_repeated_ids
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import is_deadlock, is_field_violation
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.unique import write_apart
from isthmus.backends.postgres.write import insert_coalesced, write
from isthmus.errors import AlreadyExistsError, ConflictError, NotFoundError

_ATTEMPTS = 10
_REFUSED = (AlreadyExistsError, NotFoundError, ConflictError)


async def write_unique(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply mutations as `write` does; a violated unique field is the item's `AlreadyExistsError`."""
    if kind is WriteKind.DELETE:
        return await write(connection, table, kind, mutations, atomic=atomic)
    for attempt in range(_ATTEMPTS):
        try:
            return await _write(connection, table, kind, mutations, atomic=atomic)
        except Exception as error:
            # Two batches that claim the same values in another order wait for each other. The server
            # has undone this one; in a transaction that is the caller's to repeat.
            again = is_deadlock(error) and not connection.is_in_transaction() and attempt < _ATTEMPTS - 1
            if not (again and table.has_unique):
                raise
    raise AssertionError("the last attempt returns or raises")


async def _write(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    if table.has_unique and has_repeated_ids(mutations):
        # The statement stores the last state of a record, and an earlier one may have to be refused.
        return await write_apart(connection, table, kind, mutations, atomic=atomic)
    try:
        async with guard_statement(connection, table):
            results = await write(connection, table, kind, mutations, atomic=atomic)
    except Exception as error:
        # The class of the exception depends on the driver; its SQLSTATE does not.
        if not is_field_violation(error):
            raise
        return await write_apart(connection, table, kind, mutations, atomic=atomic)
    if atomic and table.has_unique and len(mutations) > 1 and any(isinstance(r, _REFUSED) for r in results):
        # Nothing is written, so that no value was checked: other items may be refused as well.
        return await write_apart(connection, table, kind, mutations, atomic=atomic)
    return results


async def create_unique(
    connection: Connection, table: Table, mutations: Sequence[Mutation]
) -> list[ItemResult]:
    """Apply creates of several callers as `insert_coalesced` does."""
    try:
        return await insert_coalesced(connection, table, mutations)
    except Exception as error:
        if not is_field_violation(error):
            raise
    return await write_apart(connection, table, WriteKind.CREATE, mutations, atomic=False)


def guard_statement(connection: Connection, table: Table) -> AbstractAsyncContextManager[Any]:
    """Return a savepoint in a transaction whose statement may violate a unique field."""
    if table.has_unique and connection.is_in_transaction():
        return connection.transaction()
    return nullcontext()
