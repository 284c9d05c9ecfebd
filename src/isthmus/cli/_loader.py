"""Writes the lines of a file to a store in batches, and counts what the store did with each."""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TypeGuard

from isthmus import (
    AlreadyExistsError,
    Applied,
    Collection,
    IsthmusError,
    NotWrittenError,
    Record,
)
from isthmus._batch import Outcomes
from isthmus._core.mutation_batch import EncodedRecords
from isthmus._ids import new_id
from isthmus._values import canonical, same
from isthmus.cli._errors import choose_exit_code
from isthmus.cli._formats.input_line import EncodedLines, InputLine, LineBatches
from isthmus.cli._json import format_json
from isthmus.cli._load_journal import LoadJournal, LoadProgress, RowIds
from isthmus.cli._load_report import LoadReport, RefusedLines

_FINISH_SECONDS = 10.0


class OnClash(enum.StrEnum):
    """What is done with a record whose id exists already."""

    REPLACE = "replace"
    UPDATE = "update"
    SKIP = "skip"
    FAIL = "fail"


@dataclass
class Loader(LoadReport):
    """Writes lines in batches; each line is created, replaced, skipped or refused.

    Whether a record was there before is the store's answer: a batch is first created, and `on_clash`
    is then done with what exists already. A batch that the user interrupts is finished, and the store
    is asked about a batch whose outcome is unknown. With a journal each batch is acknowledged; the
    first batch of a resumed load may have been written already, in part or as a whole.
    """

    on_clash: OnClash
    skip_refused: bool
    """Whether to continue after a refused line."""
    rejects: IO[bytes] | None = None
    """Where each refused line is written as JSON: its file, number, reason, and its record or its row."""
    batch_size: int = 2_000
    journal: LoadJournal | None = None
    on_batch: Callable[[int], None] = lambda _: None
    """Called with the number of rows read, after each batch."""
    ids: RowIds = field(default_factory=lambda: RowIds(new_id()), init=False)
    _fresh: RefusedLines = field(default_factory=RefusedLines, init=False)
    """Lines refused since the last acknowledgement."""
    _ambiguous: bool = field(default=False, init=False)
    """Whether an earlier run may have written some of the next batch."""
    _existing: frozenset[str] | None = field(default=None, init=False)
    """Of that batch, ids that the store had before it; None if it was not begun."""

    def __post_init__(self) -> None:
        """Choose the words of the report."""
        if self.on_clash is OnClash.UPDATE:
            self.replaced_word = "updated"

    def resume(self, journal: LoadJournal, progress: LoadProgress) -> None:
        """Go on after the rows that the journal acknowledges."""
        self.journal, self.ids, self.batch_size = journal, journal.ids, journal.batch_size
        self.set_counts(progress.counts)
        self.lines.extend(progress.refused)
        self._ambiguous, self._existing = progress.resumed, progress.existing

    async def load(
        self, target: Collection, lines: Iterator[InputLine | EncodedLines], *, ahead: bool = False
    ) -> None:
        """Write lines, which have ids, until they end or one is refused that stops the load.

        `ahead` reads the next batch while one is written.
        """
        batches = LineBatches(lines, self.batch_size)
        batch = _read_batch(batches)
        while batch and self.stopped is None:
            write = asyncio.ensure_future(self._load_batch(target, batch))
            try:
                if ahead:
                    await asyncio.sleep(0)
                    batch = _read_batch(batches)
                await asyncio.shield(write)
                self.on_batch(self.read)
                if not ahead and self.stopped is None:
                    batch = _read_batch(batches)
            except BaseException:
                # Of a batch that the user interrupts the outcome is to be known.
                if not write.done():
                    await asyncio.wait({write}, timeout=_FINISH_SECONDS)
                    write.cancel()
                elif not write.cancelled():
                    write.exception()
                raise
        if self.journal is not None and self.stopped is None:
            self.journal.complete()

    async def _load_batch(self, target: Collection, batch: Sequence[InputLine]) -> None:
        """Write a batch up to a line that stops the load, and acknowledge it if there is none."""
        readable = batch
        if not isinstance(batch, EncodedLines) and any(line.record is None for line in batch):
            readable = self._refuse_unreadable(batch)
        else:
            self.read += len(batch)
        if readable and self._ambiguous:
            readable = await self._adopt(target, readable)
        elif readable and self.journal is not None:
            await self._note_existing(target, self.journal, readable)
        self._ambiguous = False
        if readable:
            await self._write(target, readable)
        if self.journal is not None and self.stopped is None:
            self.journal.acknowledge(self.get_counts(), self._fresh)
            self._fresh = RefusedLines()

    def _refuse_unreadable(self, batch: Sequence[InputLine]) -> list[InputLine]:
        """Refuse the lines without a record; return the others, up to a line that stops the load."""
        readable = []
        for line in batch:
            self.read += 1
            if line.record is not None:
                readable.append(line)
                continue
            self._refuse(line, line.error or "")
            if not self.skip_refused:
                self.stopped = line.number
                break
        return readable

    async def _note_existing(
        self, target: Collection, journal: LoadJournal, lines: Sequence[InputLine]
    ) -> None:
        """Note which ids of the lines exist, unless all of them are made of the journal's own id."""
        records = _records_of(lines)
        ids = records.ids if isinstance(records, EncodedRecords) else [record.id for record in records]
        given = list(dict.fromkeys(id for id in ids if self._is_given(id)))
        if given:
            found = await target.exists_batch(given)
            journal.begin_batch([id for id, exists in zip(given, found, strict=True) if exists])

    async def _adopt(self, target: Collection, lines: Sequence[InputLine]) -> list[InputLine]:
        """Count as created what an earlier run created of this batch; return the lines left to write.

        That is what has an id of this load, or one that the store did not have before the batch.
        """
        if self._existing is None and self.journal is not None:
            await self._note_existing(target, self.journal, lines)
        first: dict[str, int] = {}
        for index, line in enumerate(lines):
            id = None if line.record is None else line.record.id
            if not self._is_given(id):
                if id is not None and self.ids.owns(id):
                    first[id] = index
            elif self._existing is not None and id not in self._existing:
                first.setdefault(id, index)
        stored = dict(zip(first.values(), await target.get_batch(first), strict=True)) if first else {}
        changed, done = [], set()
        for index, found in stored.items():
            record = lines[index].record
            if found is None or record is None:
                continue
            if self.ids.owns(record.id or "") or _equal(record, found):
                self.created += 1
                done.add(index)
            elif self.on_clash in (OnClash.REPLACE, OnClash.UPDATE):
                # A later line of the batch has the same id, or another writer changed the record.
                changed.append(index)
                done.add(index)
        if changed:
            records = [record for index in changed if (record := lines[index].record) is not None]
            written = [lines[index] for index in changed]
            atomic = self._is_atomic(target)
            await self._write_existing(target, written, records, atomic=atomic, created=True)
        return [line for index, line in enumerate(lines) if index not in done]

    def _is_given(self, id: str | None) -> TypeGuard[str]:
        """Return whether an id comes from the files."""
        return id is not None and not self.ids.owns(id)

    async def _write(self, target: Collection, lines: Sequence[InputLine]) -> None:
        """Create records, and treat those whose ids exist as `on_clash` says."""
        atomic = self._is_atomic(target)
        records = _records_of(lines)
        outcomes = await self._send(target, target.create_batch, records, atomic=atomic)
        existing = [i for i, e in outcomes.errors.items() if isinstance(e, AlreadyExistsError)]
        if self.on_clash is OnClash.FAIL or not existing:
            await self._count(target, lines, records, outcomes)
            return
        if atomic and self.on_clash is OnClash.REPLACE:
            outcomes = await self._send(target, target.upsert_batch, records, atomic=True)
            await self._count(target, lines, records, outcomes, frozenset(existing))
            return
        known = set(existing)
        rest = [i for i in range(len(records)) if i not in known]
        if atomic and rest:
            await self._write(target, [lines[i]._replace(record=records[i]) for i in rest])
        elif not atomic:
            # The others are written or refused; only those that exist are left.
            others = [lines[i] for i in rest], [records[i] for i in rest]
            await self._count(target, *others, Outcomes(outcomes[i] for i in rest))
        if self.stopped is None:
            lines, records = [lines[i] for i in existing], [records[i] for i in existing]
            await self._write_existing(target, lines, records, atomic=atomic)

    async def _write_existing(
        self,
        target: Collection,
        lines: list[InputLine],
        records: list[Record],
        *,
        atomic: bool,
        created: bool = False,
    ) -> None:
        """Do with records that exist what `on_clash` says; `created` ones are this load's own."""
        if self.on_clash is OnClash.SKIP:
            self.skipped += len(records)
            self.uncertain = 0
            return
        write = target.update_batch if self.on_clash is OnClash.UPDATE else target.upsert_batch
        outcomes = await self._send(target, write, records, atomic=atomic)
        existing = frozenset[int]() if created else frozenset(range(len(records)))
        await self._count(target, lines, records, outcomes, existing)

    def _is_atomic(self, target: Collection) -> bool:
        return not self.skip_refused and target.capabilities.atomic_batch

    async def _send(
        self, target: Collection, write: Callable[..., Any], records: Sequence[Record], *, atomic: bool
    ) -> Outcomes[str]:
        """Write a batch; if its outcome is unknown, ask the store what it has before the error is raised."""
        self.uncertain = len(records)
        try:
            outcomes: Outcomes[str] = await write(records, on_error="collect", atomic=atomic)
        except IsthmusError as error:
            if error.applied is Applied.NO:
                self.uncertain = 0
            else:
                await self._ask(target, records)
            raise
        return outcomes

    async def _count(
        self,
        target: Collection,
        lines: Sequence[InputLine],
        records: Sequence[Record],
        outcomes: Outcomes[str],
        existing: frozenset[int] = frozenset(),
    ) -> None:
        """Count outcomes; the records at the indexes `existing` were there before."""
        errors = outcomes.errors
        self.replaced += sum(index not in errors for index in existing)
        self.created += len(outcomes) - len(errors.keys() | existing)
        unknown = []
        for index, error in errors.items():
            if isinstance(error, NotWrittenError):
                continue
            self._refuse(lines[index]._replace(record=records[index]), str(error))
            if error.applied is Applied.MAYBE:
                unknown.append(records[index])
            if not self.skip_refused and (self.stopped is None or lines[index].number < self.stopped):
                self.stopped = lines[index].number
                self.exit_code = choose_exit_code(error)
        self.uncertain -= len(outcomes) - len(unknown)
        if unknown:
            await self._ask(target, unknown)

    async def _ask(self, target: Collection, records: Sequence[Record]) -> None:
        """Count the records that are in the store although their write failed.

        They stay uncertain if the store does not answer this question either.
        """
        try:
            found = await target.get_batch([record.id or "" for record in records])
        except IsthmusError:
            return
        self.uncertain -= len(records)
        for record, stored in zip(records, found, strict=True):
            if stored is None or not _equal(record, stored):
                continue
            if stored.created_at == stored.updated_at:
                self.created += 1
            else:
                self.replaced += 1

    def _refuse(self, line: InputLine, message: str) -> None:
        self.refused += 1
        for lines in (self.lines, self._fresh):
            lines.add(line.file, line.number, message)
        if self.rejects is not None:
            document = {"file": line.file, "line": line.number, "message": message, **_describe(line)}
            self.rejects.write(format_json(document) + b"\n")

    def _shows_skipped(self) -> bool:
        return self.on_clash is OnClash.SKIP


def _describe(line: InputLine) -> dict[str, Any]:
    """Return what is known of a refused line: its record, or the row as it was read."""
    if line.record is None:
        return {"row": line.row}
    metadata = {"metadata": line.record.metadata} if line.record.metadata else {}
    return {"id": line.record.id, "data": line.record.data, **metadata}


def _equal(record: Record, stored: Record) -> bool:
    return same(canonical(record.data), stored.data) and same(canonical(record.metadata), stored.metadata)


def _records_of(lines: Sequence[InputLine]) -> Sequence[Record]:
    """Return the records of lines that have one each."""
    if isinstance(lines, EncodedLines):
        return lines.records
    return [line.record for line in lines if line.record is not None]


def _read_batch(batches: LineBatches) -> Sequence[InputLine]:
    """Read the next lines.

    asyncio's handler of Ctrl-C would wait for a read from a pipe to end; Python's own interrupts it.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return batches.read()
    finally:
        signal.signal(signal.SIGINT, previous)
