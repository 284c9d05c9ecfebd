"""asyncpg's COPY methods for a psycopg connection."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from psycopg import sql

from isthmus.backends.postgres.drivers.protocol import Rows

if TYPE_CHECKING:
    from psycopg import AsyncRawCursor

_BLOCK = 1 << 19


class _Session(Protocol):
    def call(self, work: Coroutine[Any, Any, str], timeout: float | None) -> Awaitable[str]: ...

    def new_cursor(self) -> AsyncRawCursor[Any]: ...


class CopyMethods:
    """COPY in and out, with asyncpg's arguments."""

    __slots__ = ()

    async def copy_records_to_table(
        self: _Session,
        table_name: str,
        *,
        records: Rows,
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
        timeout: float | None = None,
        where: str | None = None,
    ) -> str:
        """COPY rows into a table; the rows may come from a generator. Return `COPY n`."""
        statement = f"COPY {_table(table_name, schema_name, columns)} FROM STDIN"
        if where:
            statement += f" WHERE {where}"
        return await self.call(_records_in(self, statement, records), timeout)

    async def copy_from_table(
        self: _Session,
        table_name: str,
        *,
        output: Any,
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> str:
        """COPY a table to a path, a file or a coroutine function that takes bytes."""
        statement = f"COPY {_table(table_name, schema_name, columns)} TO STDOUT{_options(options)}"
        return await self.call(_copy_out(self, statement, (), output), timeout)

    async def copy_from_query(
        self: _Session, query: str, *args: Any, output: Any, timeout: float | None = None, **options: Any
    ) -> str:
        """COPY a query's rows to a path, a file or a coroutine function that takes bytes."""
        statement = f"COPY ({query}) TO STDOUT{_options(options)}"
        return await self.call(_copy_out(self, statement, args, output), timeout)

    async def copy_to_table(
        self: _Session,
        table_name: str,
        *,
        source: Any,
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
        timeout: float | None = None,
        where: str | None = None,
        **options: Any,
    ) -> str:
        """COPY the bytes of a path, a file or an async iterable into a table."""
        statement = f"COPY {_table(table_name, schema_name, columns)} FROM STDIN{_options(options)}"
        if where:
            statement += f" WHERE {where}"
        return await self.call(_blocks_in(self, statement, source), timeout)


async def _records_in(session: _Session, statement: str, records: Rows) -> str:
    cursor = session.new_cursor()
    async with cursor.copy(statement) as copy:
        write = copy.write_row
        if isinstance(records, AsyncIterable):
            async for record in records:
                await write(record)
        else:
            for record in records:
                await write(record)
    return f"COPY {cursor.rowcount}"


async def _blocks_in(session: _Session, statement: str, source: Any) -> str:
    cursor = session.new_cursor()
    async with cursor.copy(statement) as copy:
        async for block in _blocks(source):
            await copy.write(block)
    return f"COPY {cursor.rowcount}"


async def _copy_out(session: _Session, statement: str, args: Sequence[Any], output: Any) -> str:
    if args:  # COPY takes no parameters: they become literals, which asyncpg has the server do
        statement = _inline_literals(session, statement, args)
    cursor = session.new_cursor()
    with contextlib.ExitStack() as stack:
        if isinstance(output, str | os.PathLike):
            output = stack.enter_context(Path(output).open("wb"))  # noqa: ASYNC230
        write = output.write if hasattr(output, "write") else output
        async with cursor.copy(statement) as copy:
            async for block in copy:
                written = write(bytes(block))
                if inspect.isawaitable(written):
                    await written
    return f"COPY {cursor.rowcount}"


def _inline_literals(session: Any, statement: str, args: Sequence[Any]) -> str:
    """Return a statement with `$1` … replaced by literals."""

    def literal(match: re.Match[str]) -> str:
        return str(sql.Literal(args[int(match[1]) - 1]).as_string(session.raw))

    # A `$1` inside of a literal or a quoted name is text.
    pattern = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\d+)""")
    return pattern.sub(lambda match: literal(match) if match[1] else match[0], statement)


async def _blocks(source: Any) -> AsyncIterator[bytes]:
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:  # noqa: ASYNC230
            while block := file.read(_BLOCK):
                yield block
    elif hasattr(source, "read"):
        while True:
            block = source.read(_BLOCK)
            if inspect.isawaitable(block):
                block = await block
            if not block:
                return
            yield block
    elif hasattr(source, "__aiter__"):
        async for block in source:
            yield block
    else:
        for block in source:
            yield block


def _table(name: str, schema: str | None, columns: Sequence[str] | None) -> str:
    text = _quote(name) if schema is None else f"{_quote(schema)}.{_quote(name)}"
    return text if not columns else f"{text} ({', '.join(_quote(column) for column in columns)})"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _options(options: dict[str, Any]) -> str:
    """Return asyncpg's keyword options as COPY options."""
    words = []
    for key, value in options.items():
        if value is None:
            continue
        if key in ("format", "encoding") or key in ("delimiter", "null", "quote", "escape"):
            words.append(f"{key.upper()} {_text(value)}")
        elif key in ("oids", "freeze", "header"):
            words.append(f"{key.upper()} {'TRUE' if value else 'FALSE'}")
        elif key in ("force_quote", "force_not_null", "force_null"):
            names = "*" if value is True else f"({', '.join(_quote(name) for name in value)})"
            if value:
                words.append(f"{key.upper()} {names}")
        else:
            raise TypeError(f"COPY has no option {key!r}")
    return f" ({', '.join(words)})" if words else ""


def _text(value: Any) -> str:
    text = str(value)
    # Only in E'' does a backslash mean the same under all server settings.
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
