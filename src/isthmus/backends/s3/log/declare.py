"""Declarations of unique fields: an entry of the log, so that every later entry is written under them.

A writer must have applied all entries before its own. So a writer after a declaration knows it,
whatever its config, and no record that it contradicts can come between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from isthmus._core.changes import missing_changes
from isthmus._core.unique import Duplicate, Unique, has_duplicates, missing_unique
from isthmus._core.unique_index import DuplicateSearch
from isthmus._values import decode
from isthmus.backends.s3.envelope import new_token
from isthmus.backends.s3.log.batch import EntryPlan
from isthmus.backends.s3.log.entry import NO_CHANGES, KeptChanges
from isthmus.backends.s3.log.reader import LogReader, MovedError
from isthmus.backends.s3.log.state import LogState
from isthmus.backends.s3.log.write import ATTEMPTS, Committer
from isthmus.errors import UnavailableError

_CHUNK = 1_000

Mark: TypeAlias = Callable[[], Awaitable[None]]
"""Writes the collection's marker in the format of one with unique fields, before the entry."""


async def declare_when_empty(
    committer: Committer, collection: str, wanted: frozenset[Unique], mark: Mark
) -> None:
    """Make fields unique in a log without records.

    Costs nothing if they are. Raises `ConfigError` for a log with records.
    """

    async def add(state: LogState) -> frozenset[Unique]:
        declared = frozenset(state.unique.index.declared)
        if state.locations and not wanted <= declared:
            raise missing_unique(collection, wanted - declared)
        return declared | wanted

    await _declare(committer, add, mark)


async def declare(committer: Committer, collection: str, unique: Unique, mark: Mark) -> None:
    """Make fields unique in a log that may have records.

    Reads the records that are not in memory. Raises `ConfigError` that names duplicates, and
    `InvalidRecordError` for a record with a value that no unique field can have.
    """

    async def add(state: LogState) -> frozenset[Unique]:
        declared = frozenset(state.unique.index.declared)
        if unique in declared:
            return declared
        await _check_values(committer.log, state, collection, unique)
        return declared | {unique}

    await _declare(committer, add, mark)


async def end(committer: Committer, unique: Unique) -> None:
    """End a declaration; a missing one is not an error."""
    committer.wanted -= {unique}

    async def remove(state: LogState) -> frozenset[Unique]:
        return frozenset(state.unique.index.declared) - {unique}

    await _declare(committer, remove)


async def end_all(committer: Committer) -> None:
    """End all declarations of a log, as dropping it does."""

    async def none(state: LogState) -> frozenset[Unique]:
        return frozenset()

    await _declare(committer, none)
    await end_changes(committer)


async def keep_changes_when_empty(committer: Committer, collection: str, keep: float, mark: Mark) -> None:
    """Let a log without records keep its changes; costs nothing if it does.

    Raises `ConfigError` for a log with records.
    """
    state = await committer.log.current()
    if state.changes is None and state.locations:
        raise missing_changes(collection)
    await keep_changes(committer, keep, mark)


async def keep_changes(committer: Committer, keep: float, mark: Mark) -> None:
    """Let a log, which may have records, keep its changes from now on, each for `keep` seconds."""
    await _declare_changes(committer, KeptChanges(new_token(), keep), mark)


async def end_changes(committer: Committer) -> None:
    """Let a log keep no changes; one that keeps none is not an error."""
    await _declare_changes(committer, NO_CHANGES, None)


async def _declare_changes(committer: Committer, changes: KeptChanges, mark: Mark | None) -> None:
    log = committer.log
    for attempt in range(ATTEMPTS):
        state = await log.current()
        if (state.changes is not None) == bool(changes.making):
            return
        seq = state.seq
        if mark is not None:
            await mark()
        if state is not log.state or state.seq != seq:
            continue
        if await committer.put_entry(state, EntryPlan(state, {}, changes=changes)):
            return
        await committer.back_off(attempt)
    raise UnavailableError(
        f"{log.prefix}: other writers were faster in each of {ATTEMPTS} attempts to declare changes"
    )


async def find_duplicates(log: LogReader, state: LogState, unique: Unique) -> list[Duplicate]:
    """Return values that several records have, each with some of their ids; 20 values at most.

    Reads all records, some at a time, and keeps their values in memory.
    """
    search = DuplicateSearch(unique)
    ids = list(state.ids())
    for start in range(0, len(ids), _CHUNK):
        for id, row in (await log.rows(state, ids[start : start + _CHUNK])).items():
            search.add(id, decode(row.data))
    return search.duplicates()


async def _check_values(log: LogReader, state: LogState, collection: str, unique: Unique) -> None:
    """Raise the reason why the records of a state cannot be unique by fields, if there is one."""
    while True:
        # Kept up to date by the state, so that busy writers do not make this begin again.
        values = state.next_unique
        if values is None or values.index.declared != (unique,):
            values = state.next_unique = state.values_of([unique])
        await log.complete(state, values)
        if values.refused:
            raise next(iter(values.refused.values()))
        if values.index.is_consistent():
            return
        found = await find_duplicates(log, state, unique)
        if found:
            raise has_duplicates(collection, unique, found)
        state.next_unique = None  # they were written since: count once more


async def _declare(
    committer: Committer, change: Callable[[LogState], Awaitable[frozenset[Unique]]], mark: Mark | None = None
) -> None:
    """Write an entry with the declarations that `change` makes of a state, unless they are that already."""
    log = committer.log
    for attempt in range(ATTEMPTS):
        state = await log.current()
        try:
            declared = await change(state)
        except MovedError:
            await log.reload()
            continue
        if declared == frozenset(state.unique.index.declared):
            return
        seq = state.seq
        if mark is not None:
            await mark()
        if state is not log.state or state.seq != seq:
            continue
        if await committer.put_entry(state, EntryPlan(state, {}, declared)):
            state.next_unique = None
            return
        await committer.back_off(attempt)
    raise UnavailableError(
        f"{log.prefix}: other writers were faster in each of {ATTEMPTS} attempts to declare unique fields"
    )
