"""Layout `log`: batches as entries of one ordered log, with a view of it in memory.

Every write of a loop goes through one committer: what waits while an entry is on its way becomes
the next entry. Conditions are judged against the view; the entry's own condition (its number is
free) proves that the view was current.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import repeat

from isthmus._changes import Changes, together
from isthmus._executor import MORE, Change, Kind, Page, PageRequest, Result, not_written
from isthmus._query.ast import TRUE, Predicate
from isthmus._record import Record
from isthmus.backends.s3 import MAX_RECORD_BYTES
from isthmus.backends.s3.checkpoint import Checkpointer
from isthmus.backends.s3.conditions import Conditions
from isthmus.backends.s3.config import Log as LogConfig
from isthmus.backends.s3.envelope import Row, made_row, new_lines, now, record_of, records_of, token
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.log import Log, MovedError, moment, unconfirmed
from isthmus.backends.s3.log_entry import Effect, Entry, entry_body, entry_key, entry_token, headed
from isthmus.backends.s3.log_search import matching_rows
from isthmus.backends.s3.log_view import View
from isthmus.backends.s3.object_layout import judge_version, rewritten
from isthmus.backends.s3.requests import Requests
from isthmus.errors import (
    AlreadyExistsError,
    Applied,
    InvalidRecordError,
    IsthmusError,
    RecordError,
    UnavailableError,
    UnexpectedError,
)

_ATTEMPTS = 60
_GROUP = 1000
_GROUP_BYTES = 16 * 2**20


class Batch:
    """One caller's write, waiting to be part of an entry; None as kind clears."""

    def __init__(self, kind: Kind | None, changes: Sequence[Change], *, atomic: bool) -> None:
        self.kind = kind
        self.changes = changes
        self.atomic = atomic
        self.done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.together: list[str] | None = None
        """The data of plain records that are all valid: nothing else of them needs a look."""
        self._texts: list[tuple[bytes, bytes] | InvalidRecordError] = []
        if kind is not None and kind is not Kind.DELETE:
            plain = changes.plain if isinstance(changes, Changes) else None
            self.together = together(plain, MAX_RECORD_BYTES) if plain else None
            if self.together is None:
                self._texts = list(map(_encoded, changes))
        self.size = sum(map(len, self.together or ()))
        self.size += sum(len(text[0]) + len(text[1]) for text in self._texts if isinstance(text, tuple))

    def texts(self, at: int) -> tuple[bytes, bytes]:
        """Return a change's data and metadata, or raise why it has none."""
        if self.together is not None:
            return self.together[at].encode(), b"{}"
        texts = self._texts[at]
        if isinstance(texts, InvalidRecordError):
            raise texts
        return texts

    def needs_rows(self) -> bool:
        """Return whether judging it needs more than ids."""
        if self.kind is Kind.DELETE:
            return any(c.if_version for c in self.changes)
        return self.kind in {Kind.UPDATE, Kind.REPLACE, Kind.UPSERT}


class Plan:
    """What an entry would do: the effects in order, and each batch's results."""

    def __init__(self) -> None:
        self.cleared = False
        self.effects: list[Effect] = []
        self.ahead: dict[str, Row | None] = {}
        self.results: list[list[Result]] = []
        self.token = token()
        """The entry's token; its records' versions are this and a number."""

    def version(self) -> str:
        """Return a version that no other write has."""
        return f"{self.token}{len(self.effects):x}"

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write."""
        return not self.effects and not self.cleared

    def body(self, seq: int) -> bytes:
        """Return the entry's body."""
        return entry_body(seq, self.token, self.effects, cleared=self.cleared)

    async def finish(self) -> None:
        """Make what only the view needs, while the entry is on its way."""


class Creation(Plan):
    """The plan of one batch of plain records, all new: a third of the work of judging each."""

    def __init__(self, ids: list[str], texts: list[str]) -> None:
        super().__init__()
        self.results = [list(ids)]
        self._ids, self._texts, self._stamp = ids, texts, now()
        self._versions = [f"{self.token}{place:x}" for place in range(len(ids))]

    @property
    def idle(self) -> bool:
        """Return False: such a batch is not empty."""
        return False

    def body(self, seq: int) -> bytes:
        """Return the entry's body."""
        lines = new_lines(self._ids, self._versions, self._stamp, self._texts)
        return headed(seq, self.token, len(self._ids), lines, cleared=False)

    async def finish(self) -> None:
        """Make the rows."""
        stamps, data = repeat(self._stamp), map(str.encode, self._texts)
        rows = map(
            made_row, zip(self._ids, self._versions, stamps, stamps, repeat(b"{}"), data, strict=False)
        )
        self.effects = list(zip(self._ids, rows, strict=True))


class LogLayout:
    """Reads from views, writes through a committer; one for each place and loop."""

    def __init__(self, requests: Requests, conditions: Conditions, config: LogConfig) -> None:
        self._requests = requests
        self._conditions = conditions
        self._config = config
        self._writers: dict[str, _Writer] = {}
        requests.closing.append(self)

    def _writer(self, place: str) -> _Writer:
        writer = self._writers.get(place)
        if writer is None:
            log = Log(self._requests, place, self._config)
            writer = self._writers[place] = _Writer(log)
        return writer

    async def read(self, place: str, ids: Sequence[str]) -> list[Record | None]:
        """Return records from the view."""
        log = self._writer(place).log

        async def work(view: View) -> list[Record | None]:
            rows = await log.rows(view, ids)
            return [record_of(rows[id]) if id in rows else None for id in ids]

        return await log.reading(work)

    async def page(self, place: str, request: PageRequest) -> Page:
        """Return a page by id; pages of streams come by id as well."""
        log = self._writer(place).log
        after = request.after[-1] if request.after else None
        wanted = request.offset + request.size + 1

        async def work(view: View) -> Page:
            rows = await matching_rows(log, view, request.where, after, wanted)
            records = records_of(rows[request.offset : wanted - 1])
            if len(rows) < wanted:
                return Page(records, None)
            return Page(records, MORE if request.order is not None else (records[-1].id,))

        return await log.reading(work)

    async def count(self, place: str, where: Predicate) -> int:
        """Return how many records match."""
        log = self._writer(place).log

        async def work(view: View) -> int:
            if where == TRUE:
                return len(view.slots)
            return len(await matching_rows(log, view, where, None, 2**62))

        return await log.reading(work)

    async def write(self, place: str, kind: Kind, changes: Sequence[Change], *, atomic: bool) -> list[Result]:
        """Apply changes in one entry."""
        await self._conditions.require_conditional_put()
        return await self._writer(place).write(Batch(kind, changes, atomic=atomic))

    async def clear(self, place: str) -> int:
        """Write the entry that ends all records and return how many there were."""
        await self._conditions.require_conditional_put()
        [removed] = await self._writer(place).write(Batch(None, (), atomic=True))
        return int(str(removed))

    async def close(self) -> None:
        """Wait for entries on their way; stop checkpoints."""
        for writer in self._writers.values():
            await writer.close()

    def abandon(self) -> None:
        """Do nothing: the tasks died with their loop."""

    def healthy(self) -> bool:
        """Return True."""
        return True


class _Writer:
    """The committer of one log."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._queue: list[Batch] = []
        self._task: asyncio.Task[None] | None = None
        self._checkpointer = Checkpointer(log)

    async def write(self, batch: Batch) -> list[Result]:
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
                            batch.done.set_exception(_own(error))
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
            view = await self.log.known()
            try:
                rows = await self._rows(view, group)
            except MovedError:
                await self.log.catch_up()
                continue
            seq = view.seq
            plan = judged(group, view, rows)
            if plan.idle:
                # Nothing to write, so nothing proves the view current but another look.
                view = await self.log.current()
                if view.seq != seq:
                    continue
            elif not await self._written(view, plan):
                await self._lost(attempt)
                continue
            for batch, results in zip(group, plan.results, strict=True):
                if not batch.done.done():
                    batch.done.set_result(results)
            self._checkpointer.consider()
            return
        raise UnavailableError(f"{self.log.place}: {_ATTEMPTS} attempts met another writer's entry")

    async def _lost(self, attempt: int) -> None:
        """Take in the entry that was first, and step back a little from a crowd."""
        await self.log.catch_up()
        if attempt > 2:
            await self.log.requests.pause(min(attempt, 6) - 5)

    async def _rows(self, view: View, group: Sequence[Batch]) -> dict[str, Row]:
        ids = dict.fromkeys(change.id for batch in group if batch.needs_rows() for change in batch.changes)
        return await self.log.rows(view, ids) if ids else {}

    async def _written(self, view: View, plan: Plan) -> bool:
        """Write the entry as the next one; False if another writer was first."""
        seq, mark = view.seq + 1, plan.token
        if unconfirmed(view, self.log.config):
            before = view.seq
            if (await self.log.catch_up()).seq != before:
                return False
        begun = moment()
        key = entry_key(self.log.place, seq)
        put = self.log.requests.put_if(key, plan.body(seq), lambda found: entry_token(found) == mark)
        try:
            await asyncio.gather(put, plan.finish())
        except PreconditionError:
            return False
        if unconfirmed(view, self.log.config) and not await self._part_of_log(seq, mark, key):
            return False
        self.log.took(view, Entry(seq, mark, plan.cleared, plan.effects))
        view.confirmed = max(view.confirmed, begun)
        return True

    async def _part_of_log(self, seq: int, mark: str, key: str) -> bool:
        counts = await self.log.counts(seq, mark)
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


def judged(group: Sequence[Batch], view: View, rows: dict[str, Row]) -> Plan:
    """Return what batches do one after another to the records of a view."""
    creation = _creation(group[0], view) if len(group) == 1 else None
    if creation is not None:
        return creation
    plan = Plan()
    stamp = now()
    for batch in group:
        if batch.kind is None:
            plan.results.append([str(_clear(plan, view))])
            continue
        # A single change that fails has no effects to undo.
        undo = (len(plan.effects), dict(plan.ahead) if batch.atomic and len(batch.changes) > 1 else None)
        results = [_judge(batch, at, plan, view, rows, stamp) for at in range(len(batch.changes))]
        if batch.atomic and any(isinstance(result, IsthmusError) for result in results):
            results = [
                result if isinstance(result, IsthmusError) else not_written(change)
                for result, change in zip(results, batch.changes, strict=True)
            ]
            del plan.effects[undo[0] :]
            plan.ahead = plan.ahead if undo[1] is None else undo[1]
        plan.results.append(results)
    return plan


def _creation(batch: Batch, view: View) -> Creation | None:
    if batch.kind is not Kind.CREATE or batch.together is None:
        return None
    ids = Changes.of(batch.changes).ids
    new = len(set(ids)) == len(ids) and view.slots.keys().isdisjoint(ids)
    return Creation(ids, batch.together) if new else None


def _clear(plan: Plan, view: View) -> int:
    there = sum(1 for id in view.slots if not plan.cleared and id not in plan.ahead)
    there += sum(1 for row in plan.ahead.values() if row is not None)
    if there:
        plan.cleared = True
        plan.effects.clear()
        plan.ahead.clear()
    return there


def _judge(batch: Batch, at: int, plan: Plan, view: View, rows: dict[str, Row], stamp: str) -> Result:
    change = batch.changes[at]
    id = change.id
    exists = plan.ahead[id] is not None if id in plan.ahead else not plan.cleared and id in view.slots
    row = plan.ahead[id] if id in plan.ahead else rows.get(id) if exists else None
    try:
        match batch.kind:
            case Kind.DELETE:
                judge_version(change, _versioned(row) if change.if_version else None)
                if exists:
                    _note(plan, id, None)
                return exists
            case Kind.CREATE:
                data, metadata = batch.texts(at)
                if exists:
                    raise AlreadyExistsError(f"a record with the id {id!r} is there already")
                _note(plan, id, Row(id, plan.version(), stamp, stamp, metadata, data))
                return id
            case Kind.REPLACE | Kind.UPDATE | Kind.UPSERT:
                data, metadata = batch.texts(at)
                current = None if row is None else record_of(row)
                made = rewritten(batch.kind, change, current, data, metadata, stamp)
                if len(made.data) + len(made.metadata) > MAX_RECORD_BYTES:
                    raise _too_large(change, len(made.data) + len(made.metadata))
                _note(plan, id, made)
                return made.version
            case _:
                raise AssertionError(batch.kind)
    except RecordError as error:
        error.record_id = id
        return error


def _note(plan: Plan, id: str, row: Row | None) -> None:
    plan.ahead[id] = row
    plan.effects.append((id, row))


def _versioned(row: Row | None) -> Record | None:
    return None if row is None else record_of(row)


def _encoded(change: Change) -> tuple[bytes, bytes] | InvalidRecordError:
    try:
        data, metadata = change.encoded(), change.encoded_metadata()
    except InvalidRecordError as error:
        return error
    size = len(data) + len(metadata)
    return _too_large(change, size) if size > MAX_RECORD_BYTES else (data, metadata)


def _too_large(change: Change, size: int) -> InvalidRecordError:
    return InvalidRecordError(
        f"data: the encoded record has {size} bytes, at most {MAX_RECORD_BYTES} are stored",
        path="data",
        record_id=change.id,
    )


def _own(error: Exception) -> Exception:
    """Return an error for one of several callers, so that tracebacks do not grow together."""
    if isinstance(error, IsthmusError):
        made, (cls, message, state) = error.__reduce__()
        return made(cls, message, state)  # type: ignore[no-any-return]
    return error
