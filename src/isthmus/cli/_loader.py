"""Writes the lines of a file to a store in batches, and counts what the store did with each."""

from __future__ import annotations

import asyncio
import enum
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any

from isthmus import AlreadyExistsError, Applied, Collection, IsthmusError, NotWrittenError, Record
from isthmus._batch import Outcomes
from isthmus._ids import new_id
from isthmus._values import canonical, same
from isthmus.cli._errors import CommandError, ExitCode, choose_exit_code
from isthmus.cli._formats.input_line import InputLine
from isthmus.cli._json import format_json
from isthmus.cli._output import print_json, print_note

_MAX_ERRORS = 1_000
_MAX_NOTES = 20
_FINISH_SECONDS = 10.0
_VALUES = re.compile(r"""'[^']*'|"[^"]*"|\d+""")
"""What differs in messages of one kind: quoted text and numbers."""


class OnClash(enum.StrEnum):
    """What is done with a record whose id exists already."""

    REPLACE = "replace"
    UPDATE = "update"
    SKIP = "skip"
    FAIL = "fail"


@dataclass
class Loader:
    """Writes lines in batches; each line is created, replaced, skipped or refused.

    Whether a record was there before is the store's answer: a batch is first created, and `on_clash`
    is then done with what exists already. A batch that the user interrupts is finished, and the store
    is asked about a batch whose outcome is unknown.
    """

    on_clash: OnClash
    skip_refused: bool
    """Whether to continue after a refused line."""
    rejects: IO[bytes] | None = None
    """Where each refused line is written as JSON: its file, number, reason, and its record if it has one."""
    batch_size: int = 2_000
    read: int = 0
    created: int = 0
    replaced: int = 0
    """Records that were there, and were replaced or updated."""
    skipped: int = 0
    refused: int = 0
    uncertain: int = 0
    """Records of which it is unknown whether they were written, because the store did not answer."""
    errors: list[tuple[str, int, str]] = field(default_factory=list)
    """File, line number and message of the first refused lines."""
    notes: dict[str, str] = field(default_factory=dict)
    """The first refused line of each kind of message, and its message."""
    kinds: Counter[str] = field(default_factory=Counter)
    """How many lines were refused by messages of each kind."""
    stopped: int | None = None
    """The line at which loading stopped."""
    exit_code: ExitCode = ExitCode.RECORDS

    @property
    def written(self) -> int:
        """The number of lines whose record is in the store."""
        return self.created + self.replaced

    async def load(self, target: Collection, lines: Iterator[InputLine]) -> None:
        """Write lines until they end or one is refused that stops the load."""
        while self.stopped is None and (batch := _read_batch(lines, self.batch_size)):
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
            if readable:
                await _finish(self._write(target, readable))

    async def _write(self, target: Collection, lines: list[InputLine]) -> None:
        """Create records, and treat those whose ids exist as `on_clash` says."""
        atomic = not self.skip_refused and target.capabilities.atomic_batch
        records = [_with_id(line.record) for line in lines if line.record is not None]
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
            await self._write(target, [replace(lines[i], record=records[i]) for i in rest])
        elif not atomic:
            # The others are written or refused; only those that exist are left.
            others = [lines[i] for i in rest], [records[i] for i in rest]
            await self._count(target, *others, Outcomes(outcomes[i] for i in rest))
        if self.stopped is None:
            lines, records = [lines[i] for i in existing], [records[i] for i in existing]
            await self._write_existing(target, lines, records, atomic=atomic)

    async def _write_existing(
        self, target: Collection, lines: list[InputLine], records: list[Record], *, atomic: bool
    ) -> None:
        if self.on_clash is OnClash.SKIP:
            self.skipped += len(records)
            self.uncertain = 0
            return
        write = target.update_batch if self.on_clash is OnClash.UPDATE else target.upsert_batch
        outcomes = await self._send(target, write, records, atomic=atomic)
        await self._count(target, lines, records, outcomes, frozenset(range(len(records))))

    async def _send(
        self, target: Collection, write: Callable[..., Any], records: list[Record], *, atomic: bool
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
            self._refuse(replace(lines[index], record=records[index]), str(error))
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
        kind = _VALUES.sub("", message)
        self.kinds[kind] += 1
        if len(self.notes) < _MAX_NOTES:
            self.notes.setdefault(kind, f"{line.file}:{line.number}: {message}")
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append((line.file, line.number, message))
        if self.rejects is not None:
            record = line.record
            data = {} if record is None else {"id": record.id, "data": record.data}
            document = {"file": line.file, "line": line.number, "message": message, **data}
            self.rejects.write(format_json(document) + b"\n")

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the refused lines; `written` and `failed` are their sums' older names."""
        uncertain = {"uncertain": self.uncertain} if self.uncertain else {}
        return {
            "read": self.read,
            "created": self.created,
            "replaced": self.replaced,
            "skipped": self.skipped,
            "refused": self.refused,
            **uncertain,
            "written": self.written,
            "failed": self.refused,
            "stopped": self.stopped,
            "errors": [{"file": name, "line": number, "message": text} for name, number, text in self.errors],
        }

    def report(self, *, as_json: bool) -> None:
        """Print the counts, and a note on each kind of refused lines."""
        if as_json:
            print_json(self.to_json())
            return
        self._note_refused()
        sys.stdout.write(f"{self._format_counts()}\n")

    def report_failure(self, reason: str, *, as_json: bool) -> None:
        """Print what was written before the load ended for this reason."""
        if as_json:
            print_json(self.to_json())
            return
        self._note_refused()
        text = f"{reason} after {self.written} records were written: {self._format_counts()}"
        if self.uncertain:
            text += f"; {self.uncertain} more may have been written"
        print_note(text)

    def _note_refused(self) -> None:
        """Print the first line of each kind of message, with the number of lines."""
        for kind, note in self.notes.items():
            more = self.kinds[kind] - 1
            others = f" (and {more} more such line{'' if more == 1 else 's'})" if more else ""
            print_note(f"{note}{others}")
        if len(self.kinds) > _MAX_NOTES:
            print_note(f"… and {len(self.kinds) - _MAX_NOTES} more kinds of refused lines")

    def _format_counts(self) -> str:
        skipped = f"{self.skipped} skipped, " if self.on_clash is OnClash.SKIP else ""
        return (
            f"{self.read} read, {self.created} created, {self.replaced} {self._verb}, {skipped}"
            f"{self.refused} refused"
        )

    @property
    def _verb(self) -> str:
        return "updated" if self.on_clash is OnClash.UPDATE else "replaced"

    def raise_if_refused(self) -> None:
        """Raise `CommandError` if a line was refused."""
        if self.stopped is not None:
            raise CommandError(
                f"stopped at line {self.stopped}; {self.written} records were written"
                " (--on-error skip continues)",
                self.exit_code,
            )
        if self.refused:
            raise CommandError(
                f"{self.refused} lines were rejected, {self.written} written", ExitCode.RECORDS
            )


async def _finish(write: Any) -> None:
    """Run a write to its end even if the user interrupts it, so that its outcome is known."""
    task = asyncio.ensure_future(write)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_FINISH_SECONDS)
        task.cancel()
        raise


def _equal(record: Record, stored: Record) -> bool:
    return same(canonical(record.data), stored.data) and same(canonical(record.metadata), stored.metadata)


def _read_batch(lines: Iterator[InputLine], size: int) -> list[InputLine]:
    """Read the next lines.

    asyncio's handler of Ctrl-C would wait for a read from a pipe to end; Python's own interrupts it.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return list(islice(lines, size))
    finally:
        signal.signal(signal.SIGINT, previous)


def _with_id(record: Record) -> Record:
    """Return the record, with a generated id if it has none: an upsert needs one."""
    return record if record.id is not None else Record(record.data, id=new_id(), metadata=record.metadata)
