"""Writes of the five kinds on one table, inside a transaction that the caller has opened.

The writer's lock is held: rows are looked up first and written afterwards, and nobody comes between.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count, islice, repeat
from typing import Any

import orjson

from isthmus._core.apply import apply_in_order, merge_documents, refuse_batch
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch
from isthmus._ids import new_version
from isthmus._values import decode
from isthmus.backends.sqlite.schema import ORDER_COLUMN, Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import quote_name
from isthmus.errors import InvalidRecordError

# Rows that are held in memory at once, and after which a batch looks whether its caller was cancelled.
_CHUNK = 1_000
_AT_ONCE, _AT_ONCE_CHARACTERS = 100, 1 << 18
"""The rows of one INSERT, as every SQLite takes 999 arguments, and the characters that fill one."""

Row = tuple[Any, ...]
"""What a statement stores: id, data, metadata, version, time; the order where changes are kept."""


class NothingWrittenError(Exception):
    """An item of an atomic batch failed: the transaction is to be rolled back.

    `results` has the error of each item.
    """

    def __init__(self, results: list[ItemResult]) -> None:
        super().__init__("an item of an atomic batch failed")
        self.results = results


def write(
    session: SQLiteSession, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply mutations one after another and return one result for each.

    Raises `NothingWrittenError` if an item of an atomic batch failed. A single item, and an atomic
    batch of creates or upserts, is first written without a lookup, a statement for each row. An
    update, and all that this refuses, takes a lookup for each thousand rows before that.
    """
    if len(mutations) == 1:
        result = _write_one(session, table, kind, mutations[0])
        if result is not None:
            return [result]
    elif atomic and kind in (WriteKind.CREATE, WriteKind.UPSERT):
        results = _insert_all(session, table, kind, mutations)
        if results is not None:
            return results
    results = []
    for start in range(0, len(mutations), _CHUNK):
        session.check()
        chunk = mutations[start : start + _CHUNK]
        rows = _ChunkRows(session, table, kind, [mutation.id for mutation in chunk])
        results += apply_in_order(rows, kind, chunk)
        rows.flush()
    refused = refuse_batch(mutations, results) if atomic else None
    if refused is not None:
        raise NothingWrittenError(refused)
    return results


class _ChunkRows:
    """The rows of a chunk, as `apply_in_order` reads and writes them; `flush` stores them."""

    def __init__(self, session: SQLiteSession, table: Table, kind: WriteKind, ids: list[str]) -> None:
        self._session = session
        self._table = table
        self._kind = kind
        self._now = _now()
        self._puts: dict[str, Row] = {}
        self._deletes: list[tuple[str]] = []
        # Only an update needs the stored data.
        columns = "id, version, data, metadata" if kind is WriteKind.UPDATE else "id, version, NULL, NULL"
        text = f"SELECT {columns} FROM {quote_name(table.name)}"
        if len(ids) == 1:
            found = session.execute(f"{text} WHERE id = ?1", ids)
        else:
            found = session.execute(
                f"{text} WHERE id IN (SELECT value FROM json_each(?1))", (orjson.dumps(ids).decode(),)
            )
        self._rows = {id: (version, data, metadata) for id, version, data, metadata in found}

    def version(self, id: str) -> str | None:
        row = self._rows.get(id)
        return None if row is None else str(row[0])

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        version = new_version()
        row = (version, data.decode(), metadata.decode())
        self._rows[id] = row
        self._puts[id] = (id, *row[1:], version, self._now)
        return str(version)

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        _, old_data, old_metadata = self._rows[id]
        return self.put(id, *merge_documents(decode(old_data), decode(old_metadata), data, metadata))

    def delete(self, id: str) -> None:
        del self._rows[id]
        self._deletes.append((id,))

    def flush(self) -> None:
        """Run the statements that store what was put and deleted."""
        if self._puts:
            rows = _with_order(self._session, self._table, self._puts.values())
            if self._kind in (WriteKind.REPLACE, WriteKind.UPDATE):
                self._session.run_many(_update(self._table, "?6"), rows)
            else:
                _insert_many(self._session, self._table, _upsert, rows)
        if self._deletes:
            self._session.run_many(_delete(self._table), self._deletes)


def _write_one(
    session: SQLiteSession, table: Table, kind: WriteKind, mutation: Mutation
) -> ItemResult | None:
    """Write one item without a lookup; return None, and write nothing, if it may be refused."""
    if kind is WriteKind.UPDATE:  # it needs the stored data
        return None
    id = mutation.id
    expected = () if mutation.if_version is None else (mutation.if_version,)
    if kind is WriteKind.DELETE:
        condition = " AND CAST(version AS TEXT) = ?2" if expected else ""
        return True if session.execute(_delete(table) + condition, (id, *expected)).rowcount else None
    try:
        data, metadata = mutation.encode().decode(), mutation.encode_metadata().decode()
    except InvalidRecordError:
        return None
    version = new_version()
    if kind is WriteKind.CREATE:
        text, expected = f"{_insert(table, _one_row(table))} ON CONFLICT DO NOTHING", ()
    elif kind is WriteKind.UPSERT and not expected:
        text = _upsert(table, _one_row(table))
    else:
        text = _update(table, table.order) + (" AND CAST(version AS TEXT) = ?6" if expected else "")
    if not session.execute(text, (id, data, metadata, version, _now(), *expected)).rowcount:
        return None
    return id if kind is WriteKind.CREATE else str(version)


def _insert_all(
    session: SQLiteSession, table: Table, kind: WriteKind, mutations: Sequence[Mutation]
) -> list[ItemResult] | None:
    """Create or upsert all items without looking; return None, and write nothing, if that does not do."""
    if not isinstance(mutations, MutationBatch) and any(item.if_version is not None for item in mutations):
        return None
    batch = MutationBatch.of(mutations)
    creates = kind is WriteKind.CREATE
    first = new_version()
    versions = range(first, first + len(batch))
    session.execute("SAVEPOINT isthmus_batch")
    try:
        rows = _with_order(session, table, _encode_rows(session, batch, versions))
        _insert_many(session, table, _create if creates else _upsert, rows)
    except (sqlite3.IntegrityError, InvalidRecordError):
        # An id is taken, or a record is invalid: the caller finds out which items are to be refused.
        session.execute("ROLLBACK TO isthmus_batch")
        return None
    session.execute("RELEASE isthmus_batch")
    return list(batch.ids) if creates else list(map(str, versions))


def _encode_rows(session: SQLiteSession, batch: MutationBatch, versions: Iterable[int]) -> Iterator[Row]:
    """Yield rows to insert, each encoded when it is asked for, so that memory stays flat."""
    now = repeat(_now())
    metadata: Iterator[str] = batch.metadata_texts() or repeat("{}")
    # The first two have an end.
    rows = zip(batch.ids, batch.texts(), metadata, versions, now, strict=False)
    for _ in range(0, len(batch), _CHUNK):
        session.check()
        yield from islice(rows, _CHUNK)


def _with_order(session: SQLiteSession, table: Table, rows: Iterable[Row]) -> Iterable[Row]:
    """Return the rows, each with its order where the table keeps its changes."""
    if not table.order:
        return rows
    # Nobody else draws a number meanwhile: one look-up for all, which the trigger of each row confirms.
    [first] = session.execute(f"SELECT {table.order}").fetchone()
    return ((*row, order) for row, order in zip(rows, count(first), strict=False))


def _insert_many(
    session: SQLiteSession, table: Table, statement: Callable[[Table, str], str], rows: Iterable[Row]
) -> None:
    """Run `_create` or `_upsert` on rows, many in one step.

    After each step the thread waits for the interpreter's lock, which a busy event loop holds for 5 ms:
    beside one 200,000 rows took two minutes with a step for each, and take seven seconds so.
    """
    values = f"({', '.join('?' * (7 if table.order else 6))})"
    for group in _group(rows):
        text = statement(table, ", ".join([values] * len(group)))
        # Times of creation and of the last change are the same.
        arguments = chain.from_iterable((*row[:5], *row[4:]) for row in group)
        session.execute(text, list(arguments))


def _group(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield rows in groups of a bounded number and length, so that memory stays flat."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row[1]) + len(row[2])
        if len(group) == _AT_ONCE or size >= _AT_ONCE_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


# In a table that keeps its changes each row has an order.


def _one_row(table: Table) -> str:
    """Return the values of one row, whose order is drawn."""
    return f"(?1, ?2, ?3, ?4, ?5, ?5{f', {table.order}' if table.order else ''})"


def _insert(table: Table, values: str) -> str:
    columns = "id, data, metadata, version, created_at, updated_at"
    if table.order:
        columns = f"{columns}, {ORDER_COLUMN}"
    return f"INSERT INTO {quote_name(table.name)} ({columns}) VALUES {values}"


def _create(table: Table, values: str) -> str:
    # A clash undoes the batch anyway. To undo a row SQLite would keep copies of what its triggers write to.
    return _insert(table, values).replace("INSERT", "INSERT OR FAIL", 1)


def _upsert(table: Table, values: str) -> str:
    return (
        f"{_insert(table, values)} ON CONFLICT(id) DO UPDATE SET data = excluded.data,"
        " metadata = excluded.metadata, version = excluded.version, updated_at = excluded.updated_at"
        + (f", {ORDER_COLUMN} = excluded.{ORDER_COLUMN}" if table.order else "")
    )


def _update(table: Table, order: str) -> str:
    return (
        f"UPDATE {quote_name(table.name)} SET data = ?2, metadata = ?3, version = ?4, updated_at = ?5"
        f"{f', {ORDER_COLUMN} = {order}' if table.order else ''} WHERE id = ?1"
    )


def _delete(table: Table) -> str:
    return f"DELETE FROM {quote_name(table.name)} WHERE id = ?1"


def _now() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000
