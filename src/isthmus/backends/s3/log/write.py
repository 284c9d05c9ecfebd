"""The committer of one log: all writes of a loop go through it, many in one entry.

Batches that wait while an entry is being sent become the next entry. Conditions such as
`if_version` are evaluated against the state in memory; the entry's own condition, that its number
is free, proves that the state was current.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from isthmus._core.executor import ItemResult
from isthmus._core.unique import Unique
from isthmus.backends.s3.envelope import RecordRow
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.log.batch import Batch, EntryPlan, plan_entry
from isthmus.backends.s3.log.checkpoint import Checkpointer
from isthmus.backends.s3.log.entry import Entry, entry_key, entry_token
from isthmus.backends.s3.log.reader import LogReader, MovedError, is_stale, read_clocks
from isthmus.backends.s3.log.state import LogState
from isthmus.errors import Applied, IsthmusError, UnavailableError, UnexpectedError

ATTEMPTS = 60
_GROUP = 1000
_GROUP_BYTES = 16 * 2**20


class Committer:
    """Writes the entries of one log and starts its checkpoints; one for each prefix and loop."""

    def __init__(self, log: LogReader) -> None:
        self.log = log
        self._queue: list[Batch] = []
        self._task: asyncio.Task[None] | None = None
        self.checkpointer = Checkpointer(log)
        self.wanted: frozenset[Unique] = frozenset()
        """The fields that handles of this loop declare: a log without records gets them with its first."""
        self.keep: float | None = None
        """For how long handles of this loop let a log without records keep its changes; None: not at all."""

    async def write(self, batch: Batch) -> list[ItemResult]:
        """Queue a batch and return its results; cancelling the caller does not undo it.

        Costs one PUT for a group of batches, and one GET more for each entry that another process
        wrote first. Raises a `StoreError` whose `applied` tells whether the batch may be stored.
        """
        self._queue.append(batch)
        if self._task is None:
            self._task = asyncio.ensure_future(self._commit_all())
        return await asyncio.shield(batch.done)

    async def _commit_all(self) -> None:
        try:
            while self._queue:
                group = self._take_group()
                try:
                    await self._commit(group)
                except Exception as error:  # every caller of the group gets it; none keeps waiting
                    for batch in group:
                        if not batch.done.done():
                            batch.done.set_exception(_copy_error(error))
                            batch.done.exception()  # retrieved, even if the caller was cancelled
        finally:
            self._task = None

    def _take_group(self) -> list[Batch]:
        """Take the batches of one entry off the queue: any number of small ones, or one large one."""
        size, count = 0, 0
        for batch in self._queue[:_GROUP]:
            size += batch.size
            if count and size > _GROUP_BYTES:
                break
            count += 1
        group, self._queue = self._queue[:count], self._queue[count:]
        return group

    async def _commit(self, group: Sequence[Batch]) -> None:
        for attempt in range(ATTEMPTS):
            state = await self.log.load()
            try:
                rows = await self._load_rows(state, group)
                await self.log.complete(state, state.unique)
            except MovedError:
                await self.log.reload()
                continue
            seq = state.seq
            plan = plan_entry(group, state, rows, self.wanted, self.keep)
            if plan.empty:
                # No entry proves that the state was current, so read the log's end again.
                state = await self.log.current()
                if state.seq != seq:
                    continue
            elif not await self.put_entry(state, plan):
                await self.back_off(attempt)
                continue
            for batch, results in zip(group, plan.results, strict=True):
                if not batch.done.done():
                    batch.done.set_result(results)
            self.checkpointer.start_if_due()
            return
        raise UnavailableError(
            f"{self.log.prefix}: other writers were faster in each of {ATTEMPTS} attempts to add an entry"
        )

    async def _load_rows(self, state: LogState, group: Sequence[Batch]) -> dict[str, RecordRow]:
        ids = dict.fromkeys(id for batch in group for id in batch.ids_to_load())
        return await self.log.rows(state, ids) if ids else {}

    async def put_entry(self, state: LogState, plan: EntryPlan) -> bool:
        """Write the plan as the next entry; return False if another writer was first."""
        seq, token = state.seq + 1, plan.token
        if is_stale(state, self.log.config):
            before = state.seq
            if (await self.log.catch_up()).seq != before:
                return False
        start = read_clocks()
        key = entry_key(self.log.prefix, seq)
        put = self.log.requests.put_if(key, plan.body(seq), lambda body: entry_token(body) == token)
        try:
            await asyncio.gather(put, plan.finish())
        except PreconditionError:
            return False
        if is_stale(state, self.log.config) and not await self._verify_entry(seq, token, key):
            return False
        self.log.apply(state, Entry(seq, token, plan.cleared, plan.effects, plan.unique, plan.changes))
        state.confirmed = max(state.confirmed, start)
        return True

    async def _verify_entry(self, seq: int, token: str, key: str) -> bool:
        """Return whether a late entry is part of the log; remove it if not."""
        part_of_log = await self.log.is_part_of_log(seq, token)
        if part_of_log is None:
            raise UnexpectedError(
                f"{key}: written so late that it may not be part of the log", applied=Applied.MAYBE
            )
        if not part_of_log:
            await self.log.requests.delete_many([key])
        return part_of_log

    async def back_off(self, attempt: int) -> None:
        """Apply the entry that was first; after some attempts, wait a little too."""
        await self.log.catch_up()
        if attempt > 2:
            await self.log.requests.pause(min(attempt, 6) - 5)

    async def close(self) -> None:
        """Wait for the queued batches, stop the checkpoint and the reads of the log."""
        if self._task is not None:
            await asyncio.wait([self._task])
        await self.checkpointer.close()
        reads = list(self.log.tasks())
        for task in reads:
            task.cancel()
        if reads:
            await asyncio.wait(reads)


def _copy_error(error: Exception) -> Exception:
    """Return a copy for one of several callers, so that each has a traceback of its own."""
    if isinstance(error, IsthmusError):
        rebuild, (cls, message, state) = error.__reduce__()
        return rebuild(cls, message, state)  # type: ignore[no-any-return]
    return error
