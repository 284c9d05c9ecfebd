"""Writes the lines of a file to a store in batches, and counts what the store did with each."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from isthmus import AlreadyExistsError, Applied, Collection, IsthmusError, NotWrittenError, Record
from isthmus._batch import Outcomes
from isthmus._ids import new_id
from isthmus._values import canonical, same
from isthmus.cli._errors import CommandError, ExitCode, choose_exit_code
from isthmus.cli._formats.reader import InputLine
from isthmus.cli._output import print_json, print_note

_MAX_ERRORS = 1_000
_MAX_NOTES = 20
_FINISH_SECONDS = 10.0


@dataclass
class Loader:
    """Writes lines in batches; each line is created, replaced or refused.

    Whether a record was there before is the store's answer: a batch is first created, and what
    exists already is then replaced. A batch that the user interrupts is finished, and the store is
    asked about a batch whose outcome is unknown.
    """

    create_only: bool
    """Whether an id that exists is refused."""
    skip_refused: bool
    """Whether to continue after a refused line."""
    batch_size: int = 2_000
    read: int = 0
    created: int = 0
    replaced: int = 0
    refused: int = 0
    uncertain: int = 0
    """Records of which it is unknown whether they were written, because the store did not answer."""
    errors: list[tuple[int, str]] = field(default_factory=list)
    """Line number and message of the first refused lines."""
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
            numbers, records = [], []
            for line in batch:
                self.read += 1
                if line.record is not None:
                    numbers.append(line.number)
                    records.append(line.record if line.record.id is not None else _add_id(line.record))
                    continue
                self._refuse(line.number, line.error or "")
                if not self.skip_refused:
                    self.stopped = line.number
                    break
            if records:
                await _finish(self._write(target, numbers, records))

    async def _write(self, target: Collection, numbers: list[int], records: list[Record]) -> None:
        atomic = not self.skip_refused and target.capabilities.atomic_batch
        self.uncertain = len(records)
        try:
            outcomes = await target.create_batch(records, on_error="collect", atomic=atomic)
            existing = [i for i, e in outcomes.errors.items() if isinstance(e, AlreadyExistsError)]
            if self.create_only or not existing:
                await self._count(target, numbers, records, outcomes)
                return
            if not atomic:
                # The others are written or refused; only those that exist are left.
                rest = [i for i in range(len(records)) if i not in set(existing)]
                outcome = Outcomes(outcomes[i] for i in rest)
                await self._count(target, [numbers[i] for i in rest], [records[i] for i in rest], outcome)
                numbers, records = [numbers[i] for i in existing], [records[i] for i in existing]
                existing = list(range(len(records)))
            outcomes = await target.upsert_batch(records, on_error="collect", atomic=atomic)
            await self._count(target, numbers, records, outcomes, frozenset(existing))
        except IsthmusError as error:
            if error.applied is Applied.NO:
                self.uncertain = 0
            else:
                await self._ask(target, records)
            raise

    async def _count(
        self,
        target: Collection,
        numbers: Sequence[int],
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
            number = numbers[index]
            self._refuse(number, str(error))
            if error.applied is Applied.MAYBE:
                unknown.append(records[index])
            if not self.skip_refused and (self.stopped is None or number < self.stopped):
                self.stopped = number
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

    def _refuse(self, number: int, message: str) -> None:
        self.refused += 1
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append((number, message))

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the refused lines; `written` and `failed` are their sums' older names."""
        uncertain = {"uncertain": self.uncertain} if self.uncertain else {}
        return {
            "read": self.read,
            "created": self.created,
            "replaced": self.replaced,
            "refused": self.refused,
            **uncertain,
            "written": self.written,
            "failed": self.refused,
            "stopped": self.stopped,
            "errors": [{"line": number, "message": message} for number, message in self.errors],
        }

    def report(self, name: str, *, as_json: bool) -> None:
        """Print the counts, and notes on the first refused lines of file `name`."""
        if as_json:
            print_json(self.to_json())
            return
        self._note_refused(name)
        sys.stdout.write(f"{self._format_counts()}\n")

    def report_failure(self, name: str, reason: str, *, as_json: bool) -> None:
        """Print what was written before the load ended for this reason."""
        if as_json:
            print_json(self.to_json())
            return
        self._note_refused(name)
        text = f"{reason} after {self.written} records were written: {self._format_counts()}"
        if self.uncertain:
            text += f"; {self.uncertain} more may have been written"
        print_note(text)

    def _note_refused(self, name: str) -> None:
        for number, message in self.errors[:_MAX_NOTES]:
            print_note(f"{name}:{number}: {message}")
        if len(self.errors) > _MAX_NOTES:
            print_note(f"… and {self.refused - _MAX_NOTES} more")

    def _format_counts(self) -> str:
        return f"{self.read} read, {self.created} created, {self.replaced} replaced, {self.refused} refused"

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


def _add_id(record: Record) -> Record:
    """Return the record with a generated id: an upsert needs one."""
    return Record(record.data, id=new_id(), metadata=record.metadata)
