"""Layout `log`: batches as entries of one ordered log, with a view of it in memory.

Every write of a loop goes through one committer: what waits while an entry is on its way becomes
the next entry. Conditions are judged against the view; the entry's own condition (its number is
free) proves that the view was current.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from isthmus._core.executor import MORE, After, ItemResult, Mutation, Page, PageRequest, WriteKind
from isthmus._query.ast import TRUE, Predicate
from isthmus._record import Record
from isthmus.backends.s3.config import Log as LogConfig
from isthmus.backends.s3.envelope import RecordRow, record_of, records_of
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.layout import NO_LIMIT, end_of, start_id
from isthmus.backends.s3.log.batch import Batch, EntryPlan, plan_entry
from isthmus.backends.s3.log.checkpoint import Checkpointer
from isthmus.backends.s3.log.entry import Entry, entry_key, entry_token
from isthmus.backends.s3.log.reader import LogReader, MovedError, is_stale, read_clocks
from isthmus.backends.s3.log.search import matching_rows
from isthmus.backends.s3.log.state import LogState
from isthmus.backends.s3.transport.conditional_put_probe import ConditionalPutProbe
from isthmus.backends.s3.transport.requests import Requests
from isthmus.errors import (
    Applied,
    IsthmusError,
    UnavailableError,
    UnexpectedError,
)

_ATTEMPTS = 60
_GROUP = 1000
_GROUP_BYTES = 16 * 2**20


class LogLayout:
    """Reads from views, writes through a committer; one for each place and loop."""

    def __init__(self, requests: Requests, probe: ConditionalPutProbe, config: LogConfig) -> None:
        self._requests = requests
        self._probe = probe
        self._config = config
        self._writers: dict[str, Committer] = {}
        requests.closing.append(self)

    def _writer(self, prefix: str) -> Committer:
        writer = self._writers.get(prefix)
        if writer is None:
            log = LogReader(self._requests, prefix, self._config)
            writer = self._writers[prefix] = Committer(log)
        return writer

    async def read(self, prefix: str, ids: Sequence[str]) -> list[Record | None]:
        """Return records from the view."""
        log = self._writer(prefix).log

        async def work(state: LogState) -> list[Record | None]:
            rows = await log.rows(state, ids)
            return [record_of(rows[id]) if id in rows else None for id in ids]

        return await log.run(work)

    async def page(self, prefix: str, request: PageRequest) -> Page:
        """Return a page by id; pages of streams come by id as well."""
        log = self._writer(prefix).log
        after = start_id(request)
        wanted = end_of(request) + 1

        async def work(state: LogState) -> Page:
            rows = await matching_rows(log, state, request.where, after, wanted)
            records = records_of(rows[request.offset : wanted - 1])
            if len(rows) < wanted:
                return Page(records, None)
            return Page(records, MORE if request.order is not None else After((records[-1].id,)))

        return await log.run(work)

    async def count(self, prefix: str, where: Predicate) -> int:
        """Return how many records match."""
        log = self._writer(prefix).log

        async def work(state: LogState) -> int:
            if where == TRUE:
                return len(state.locations)
            return len(await matching_rows(log, state, where, None, NO_LIMIT))

        return await log.run(work)

    async def write(
        self, prefix: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply changes in one entry."""
        await self._probe.require_conditional_put()
        return await self._writer(prefix).write(Batch(kind, mutations, atomic=atomic))

    async def clear(self, prefix: str) -> int:
        """Write the entry that ends all records and return how many there were."""
        await self._probe.require_conditional_put()
        [removed] = await self._writer(prefix).write(Batch(None, (), atomic=True))
        return int(str(removed))

    async def close(self) -> None:
        """Wait for entries on their way; stop checkpoints."""
        for writer in self._writers.values():
            await writer.close()

    def discard(self) -> None:
        """Do nothing: the tasks died with their loop."""

    def healthy(self) -> bool:
        """Return True."""
        return True


class Committer:
    """The committer of one log."""

    def __init__(self, log: LogReader) -> None:
        self.log = log
        self._queue: list[Batch] = []
        self._task: asyncio.Task[None] | None = None
        self._checkpointer = Checkpointer(log)

    async def write(self, batch: Batch) -> list[ItemResult]:
        """Queue a batch and return its results; a caller that is cancelled does not undo it."""
        self._queue.append(batch)
        if self._task is None:
            self._task = asyncio.ensure_future(self._commit_all())
        return await asyncio.shield(batch.done)

    async def _commit_all(self) -> None:
        try:
            while self._queue:
                group = self._group()
                try:
                    await self._commit(group)
                except Exception as error:  # each caller gets it; none is left waiting
                    for batch in group:
                        if not batch.done.done():
                            batch.done.set_exception(_copy_error(error))
                            batch.done.exception()  # seen, even if its caller has gone
        finally:
            self._task = None

    def _group(self) -> list[Batch]:
        """Take what becomes one entry off the queue: any number of small batches, or one large one."""
        size, count = 0, 0
        for batch in self._queue[:_GROUP]:
            size += batch.size
            if count and size > _GROUP_BYTES:
                break
            count += 1
        group, self._queue = self._queue[:count], self._queue[count:]
        return group

    async def _commit(self, group: Sequence[Batch]) -> None:
        for attempt in range(_ATTEMPTS):
            state = await self.log.load()
            try:
                rows = await self._rows(state, group)
            except MovedError:
                await self.log.catch_up()
                continue
            seq = state.seq
            plan = plan_entry(group, state, rows)
            if plan.idle:
                # Nothing to write, so nothing proves the view current but another look.
                state = await self.log.current()
                if state.seq != seq:
                    continue
            elif not await self._put_entry(state, plan):
                await self._back_off(attempt)
                continue
            for batch, results in zip(group, plan.results, strict=True):
                if not batch.done.done():
                    batch.done.set_result(results)
            self._checkpointer.start_if_due()
            return
        raise UnavailableError(f"{self.log.prefix}: {_ATTEMPTS} attempts met another writer's entry")

    async def _back_off(self, attempt: int) -> None:
        """Take in the entry that was first, and step back a little from a crowd."""
        await self.log.catch_up()
        if attempt > 2:
            await self.log.requests.pause(min(attempt, 6) - 5)

    async def _rows(self, state: LogState, group: Sequence[Batch]) -> dict[str, RecordRow]:
        ids = dict.fromkeys(
            mutation.id for batch in group if batch.needs_rows() for mutation in batch.mutations
        )
        return await self.log.rows(state, ids) if ids else {}

    async def _put_entry(self, state: LogState, plan: EntryPlan) -> bool:
        """Write the entry as the next one; False if another writer was first."""
        seq, mark = state.seq + 1, plan.token
        if is_stale(state, self.log.config):
            before = state.seq
            if (await self.log.catch_up()).seq != before:
                return False
        begun = read_clocks()
        key = entry_key(self.log.prefix, seq)
        put = self.log.requests.put_if(key, plan.body(seq), lambda found: entry_token(found) == mark)
        try:
            await asyncio.gather(put, plan.finish())
        except PreconditionError:
            return False
        if is_stale(state, self.log.config) and not await self._part_of_log(seq, mark, key):
            return False
        self.log.apply(state, Entry(seq, mark, plan.cleared, plan.effects))
        state.confirmed = max(state.confirmed, begun)
        return True

    async def _part_of_log(self, seq: int, mark: str, key: str) -> bool:
        counts = await self.log.is_part_of_log(seq, mark)
        if counts is None:
            raise UnexpectedError(
                f"{key}: written so late that it may not be part of the log", applied=Applied.MAYBE
            )
        if not counts:
            await self.log.requests.delete_many([key])
        return counts

    async def close(self) -> None:
        """Wait for the queue, stop the checkpoint, end the looks at the log."""
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._checkpointer.close()
        looking = list(self.log.tasks())
        for task in looking:
            task.cancel()
        if looking:
            await asyncio.wait(looking)


def _copy_error(error: Exception) -> Exception:
    """Return an error for one of several callers, so that tracebacks do not grow together."""
    if isinstance(error, IsthmusError):
        made, (cls, message, state) = error.__reduce__()
        return made(cls, message, state)  # type: ignore[no-any-return]
    return error
