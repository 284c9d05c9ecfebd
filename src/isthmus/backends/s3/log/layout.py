"""Layout `log`: batches as entries of one ordered log, with its state in memory."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus._core.executor import MORE, After, ItemResult, Mutation, Page, PageRequest, WriteKind
from isthmus._core.offload import LONG, run_in_thread
from isthmus._core.unique import Duplicate, Unique
from isthmus._path import Path
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.patterns import effort
from isthmus._record import Record
from isthmus.backends.s3.column_values import ColumnValue
from isthmus.backends.s3.config import LogConfig
from isthmus.backends.s3.envelope import RecordRow, RowRecord, record_of
from isthmus.backends.s3.id_filter import IdRange, id_range
from isthmus.backends.s3.layout import end_of, start_id
from isthmus.backends.s3.log.batch import Batch
from isthmus.backends.s3.log.checkpoint import compact, drop_log
from isthmus.backends.s3.log.declare import (
    Mark,
    declare,
    declare_when_empty,
    end,
    end_all,
    end_changes,
    find_duplicates,
    keep_changes,
    keep_changes_when_empty,
)
from isthmus.backends.s3.log.filter import build_columns, paths_of, select_positions
from isthmus.backends.s3.log.reader import LogReader
from isthmus.backends.s3.log.state import LogState
from isthmus.backends.s3.log.write import Committer
from isthmus.backends.s3.transport.conditional_put_probe import ConditionalPutProbe
from isthmus.backends.s3.transport.requests import Requests
from isthmus.errors import UnexpectedError

_CHUNK = 1000
_LONG_CHUNK = 5 * LONG


class LogLayout:
    """Reads from the states of logs and writes through their committers."""

    def __init__(self, requests: Requests, probe: ConditionalPutProbe, config: LogConfig) -> None:
        self._requests = requests
        self._probe = probe
        self._config = config
        self._committers: dict[str, Committer] = {}
        requests.closing.append(self)

    def committer(self, prefix: str) -> Committer:
        """Return the committer of the log under a prefix."""
        committer = self._committers.get(prefix)
        if committer is None:
            log = LogReader(self._requests, prefix, self._config)
            committer = self._committers[prefix] = Committer(log)
        return committer

    async def read(self, prefix: str, ids: Sequence[str]) -> list[Record | None]:
        """Return records by id. Costs one GET, and more if other handles wrote."""
        log = self.committer(prefix).log

        async def work(state: LogState) -> list[Record | None]:
            rows = await log.rows(state, ids)
            return [record_of(rows[id]) if id in rows else None for id in ids]

        return await log.run(work)

    async def page(self, prefix: str, request: PageRequest) -> Page:
        """Return a page by id; pages in any order come by id as well."""
        log = self.committer(prefix).log
        after, end = start_id(request), end_of(request)

        async def work(state: LogState) -> Page:
            rows = await find_rows(log, state, request.where, after, None if end is None else end + 1)
            records = RowRecord.wrap(rows[request.offset : end])
            if end is None or len(rows) <= end:
                return Page([*records], None)
            return Page([*records], MORE if request.order is not None else After((records[-1].id,)))

        return await log.run(work)

    async def count(self, prefix: str, where: Predicate) -> int:
        """Return how many records match."""
        log = self.committer(prefix).log

        async def work(state: LogState) -> int:
            return (
                len(state.locations) if where == TRUE else len(await find_rows(log, state, where, None, None))
            )

        return await log.run(work)

    async def write(
        self, prefix: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations in one entry."""
        await self._probe.require_conditional_put()
        return await self.committer(prefix).write(Batch(kind, mutations, atomic=atomic))

    async def clear(self, prefix: str) -> int:
        """Write an entry that deletes all records and return how many there were."""
        await self._probe.require_conditional_put()
        [removed] = await self.committer(prefix).write(Batch(None, (), atomic=True))
        return int(str(removed))

    async def drop(self, prefix: str) -> None:
        """Delete all records, then the log's objects; see `drop_log` for the few that stay."""
        committer = self.committer(prefix)
        if (await committer.log.current()).seq:
            await self.clear(prefix)
            await end_all(committer)
            await committer.checkpointer.close()
            await drop_log(committer.log)

    def want_unique(self, prefix: str, unique: frozenset[Unique]) -> None:
        """Let fields become unique with the first record of the log, if it has none."""
        self.committer(prefix).wanted |= unique

    async def declare(self, prefix: str, collection: str, unique: frozenset[Unique], mark: Mark) -> None:
        """Make fields unique in a log without records; see `declare_when_empty`."""
        await self._probe.require_conditional_put()
        await declare_when_empty(self.committer(prefix), collection, unique, mark)

    async def make_unique(self, prefix: str, collection: str, unique: Unique, mark: Mark) -> None:
        """Make fields unique in a log that may have records; see `declare`."""
        await self._probe.require_conditional_put()
        await declare(self.committer(prefix), collection, unique, mark)

    async def end_unique(self, prefix: str, unique: Unique) -> None:
        """End a declaration; a missing one is not an error."""
        await self._probe.require_conditional_put()
        await end(self.committer(prefix), unique)

    # Changes

    async def keep_changes_when_empty(self, prefix: str, collection: str, keep: float, mark: Mark) -> None:
        """Let a log without records keep its changes; see `declare.keep_changes_when_empty`."""
        committer = self.committer(prefix)
        committer.keep = keep
        if (await committer.log.current()).changes is None:  # else credentials that only read will do
            await self._probe.require_conditional_put()
            await keep_changes_when_empty(committer, collection, keep, mark)

    async def keep_changes(self, prefix: str, keep: float, mark: Mark) -> None:
        """Let a log, which may have records, keep its changes from now on."""
        await self._probe.require_conditional_put()
        await keep_changes(self.committer(prefix), keep, mark)

    async def end_changes(self, prefix: str) -> None:
        """Let a log keep no changes."""
        await self._probe.require_conditional_put()
        committer = self.committer(prefix)
        committer.keep = None
        await end_changes(committer)

    async def compact(self, prefix: str) -> tuple[bool, int]:
        """Write a checkpoint and remove what it and earlier ones replaced.

        Return whether a checkpoint was written, and how many objects were removed. Safe beside
        readers and writers, and may be interrupted and called again.
        """
        await self._probe.require_conditional_put()
        return await compact(self.committer(prefix).log)

    async def find_duplicates(self, prefix: str, unique: Unique) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        log = self.committer(prefix).log
        return await log.run(lambda state: find_duplicates(log, state, unique))

    async def close(self) -> None:
        """Wait for entries that are being sent; stop checkpoints."""
        for committer in self._committers.values():
            await committer.close()

    def discard(self) -> None:
        """Do nothing: the tasks died with their loop."""


# Searches: by columns of values while every row is in memory, else by rows, some at a time.


async def find_rows(
    log: LogReader, state: LogState, where: Predicate, after: str | None, limit: int | None
) -> list[RecordRow]:
    """Return up to `limit` matching rows (None: all) with ids beyond `after`, by id.

    Raises `MovedError` if an object is gone that must be read again.
    """
    ids_wanted = id_range(where)
    if ids_wanted.only is not None:
        ids = sorted(id for id in ids_wanted.only if id in state.locations and (after is None or id > after))
        return (await _filter_rows(log, state, where, ids))[:limit]
    found: list[RecordRow] = []
    size = _CHUNK
    while limit is None or len(found) < limit:
        ids = state.ids()  # writes may have changed them since the last chunk
        begin, end = _bounds(ids, ids_wanted, after)
        # Rows that must be read again are few at a time, for they take memory beyond the bound.
        missing = _CHUNK * 8 if limit is None else min(limit - len(found), _CHUNK * 8)
        count = max(size, missing) if state.complete else _CHUNK
        chunk = ids[begin : min(end, begin + count)]
        if not chunk:
            break
        if where == TRUE and limit is not None:
            chunk = chunk[: limit - len(found)]
        found += await _find_in_chunk(log, state, where, chunk, begin)
        after = chunk[-1]
        size *= 4
    return found[:limit]


def _bounds(ids: Sequence[str], wanted: IdRange, after: str | None) -> tuple[int, int]:
    begin = bisect.bisect_left(ids, wanted.low) if wanted.low else 0
    if after is not None:
        begin = max(begin, bisect.bisect_right(ids, after))
    return begin, len(ids) if wanted.high is None else bisect.bisect_right(ids, wanted.high)


async def _find_in_chunk(
    log: LogReader, state: LogState, where: Predicate, chunk: Sequence[str], begin: int
) -> list[RecordRow]:
    """Return the matching rows of ids that begin at an index of `state.ids()`."""
    try:
        columns = None if where == TRUE else state.columns(paths_of(where))
        if columns is None:
            return await _filter_rows(log, state, where, chunk)
        end = begin + len(chunk)
        part = {path: column[begin:end] for path, column in columns.items()}
        if not _is_long(where, part):
            positions = select_positions(where, chunk, part, range(len(chunk)))
            return [state.row(chunk[position]) for position in positions]
        rows = [state.row(id) for id in chunk]  # as they are now: a write may change the state meanwhile
        positions = await run_in_thread(lambda: select_positions(where, chunk, part, range(len(chunk))))
    except ValueError as error:
        raise UnexpectedError(f"{log.prefix}: a record of the log is damaged ({error})") from None
    return [rows[position] for position in positions]


async def _filter_rows(
    log: LogReader, state: LogState, where: Predicate, ids: Sequence[str]
) -> list[RecordRow]:
    """Return the matching rows of ids without the state's columns."""
    held = await log.rows(state, ids)
    rows = [held[id] for id in ids if id in held]
    if where == TRUE or not rows:
        return rows
    columns = build_columns(rows, paths_of(where))
    found = [row.id for row in rows]
    if _is_long(where, columns):
        positions = await run_in_thread(lambda: select_positions(where, found, columns, range(len(rows))))
    else:
        positions = select_positions(where, found, columns, range(len(rows)))
    return [rows[position] for position in positions]


def _is_long(where: Predicate, columns: Mapping[Path, Sequence[ColumnValue]]) -> bool:
    """Return whether a search in the texts of the columns may hold up the event loop."""
    total = sum(len(value) for column in columns.values() for value in column if type(value) is str)
    lists = sum(map(_text_length, (v for column in columns.values() for v in column if type(v) is tuple)))
    return effort(where) * (total + lists) > _LONG_CHUNK


def _text_length(values: tuple[Any, ...]) -> int:
    return sum(len(value) for value in values if type(value) is str)
