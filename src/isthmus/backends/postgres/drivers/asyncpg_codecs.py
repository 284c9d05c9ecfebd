"""isthmus's own statements on an asyncpg connection whose codecs a user's hook has replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg.cursor import CursorFactory
from asyncpg.utils import _quote_ident as quote

from isthmus.backends.postgres.drivers.protocol import Cursor, DriverTransaction, Row, Rows


class OwnCodecs:
    """The methods of `protocol.Connection` with asyncpg's built-in codecs.

    asyncpg prepares its own queries in this way (`ignore_custom_codec`). It does not reach the elements
    of arrays: of these only `text[]` is safe, whose codec cannot be replaced.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: asyncpg.Connection) -> None:
        self._raw = raw

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run one statement, or without arguments several; return the last status."""
        raw = self._raw
        if not args:  # the simple protocol: no codec takes part
            return str(await raw.execute(query, timeout=timeout))
        _, status, _ = await raw._execute(
            query, args, 0, timeout, return_status=True, ignore_custom_codec=True
        )
        return str(status, "utf-8")

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Row]:
        """Return all rows."""
        rows: list[Row] = await self._raw._execute(query, args, 0, timeout, ignore_custom_codec=True)
        return rows

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Row | None:
        """Return the first row or None."""
        rows = await self._raw._execute(query, args, 1, timeout, ignore_custom_codec=True)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """Return one column of the first row or None."""
        row = await self.fetchrow(query, *args, timeout=timeout)
        return None if row is None else row[column]

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Rows,
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """COPY rows into a table; the rows may come from a generator. Return `COPY n`."""
        raw = self._raw
        table = quote(table_name) if schema_name is None else f"{quote(schema_name)}.{quote(table_name)}"
        names = ", ".join(map(quote, columns)) if columns else ""
        # asyncpg takes the encoders of the columns from a statement that reads them.
        statement = await raw._get_statement(
            f"SELECT {names or '*'} FROM {table} LIMIT 1",
            timeout,
            named=raw._stmt_cache_enabled,
            ignore_custom_codec=True,
        )
        copy = f"COPY {table}{f'({names})' if names else ''} FROM STDIN (FORMAT binary)"
        return str(await raw._protocol.copy_in(copy, None, None, records, statement, timeout))

    async def cursor(self, query: str, *args: Any) -> Cursor:
        """Return a server-side cursor; needs a transaction."""
        raw = self._raw
        statement = await raw._get_statement(query, None, named=True, ignore_custom_codec=True)
        cursor: Cursor = await CursorFactory(raw, query, statement, args, None, None, None)
        return cursor

    def transaction(self, *, isolation: Any = None, readonly: bool = False) -> DriverTransaction:
        """Return a transaction, or inside of one a savepoint; isolation such as `repeatable_read`."""
        transaction: DriverTransaction = self._raw.transaction(isolation=isolation, readonly=readonly)
        return transaction

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open, a failed one included."""
        return bool(self._raw.is_in_transaction())

    def is_closed(self) -> bool:
        """Return whether the session is known to be over; no I/O."""
        return bool(self._raw.is_closed())
