"""Commands between a file and a store: load and dump."""

from __future__ import annotations

import enum
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from isthmus import Collection, NotWrittenError, Record
from isthmus._ids import new_id
from isthmus.cli._commands.query import NO_LIMIT, build_query, write_matches
from isthmus.cli._errors import CommandError, ExitCode, choose_exit_code
from isthmus.cli._formats.output_file import is_stdout
from isthmus.cli._formats.reader import InputLine, open_input, read_lines
from isthmus.cli._formats.writer import Format, choose_format, open_writer
from isthmus.cli._options import AsJson, CollectionName, OnError, PromptPassword, RequiredStore
from isthmus.cli._output import print_json, print_note
from isthmus.cli._stores import resolve_store, run_on_store

_BATCH = 2_000
_MAX_ERRORS = 1_000
_MAX_NOTES = 20


class LoadMode(enum.StrEnum):
    """The write that `load` does for each record."""

    UPSERT = "upsert"
    CREATE = "create"


FileFormat = Annotated[
    Format | None, typer.Option("--format", "-f", show_default=False, help="Default: by the file's suffix.")
]
IdField = Annotated[
    str | None,
    typer.Option("--id", metavar="FIELD", show_default=False, help="Data field that holds the id."),
]
Mode = Annotated[LoadMode, typer.Option("--mode", help="create rejects existing ids.")]
LineOnError = Annotated[OnError, typer.Option("--on-error", help="On a rejected line.")]
Plain = Annotated[
    bool, typer.Option("--plain", help="Each line is data, even if it looks like a dumped record.")
]


def load(
    store: RequiredStore,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, CSV or Parquet; -: standard input.")
    ],
    format: FileFormat = None,
    id_field: IdField = None,
    mode: Mode = LoadMode.UPSERT,
    on_error: LineOnError = OnError.STOP,
    collection: CollectionName = None,
    *,
    plain: Plain = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Load the records of a file into a store; rejected lines are listed by number.

    The id comes from a dumped record, a CSV column _id or --id; otherwise it is generated.
    """
    chosen = choose_format(file, format, Format.JSONL)
    if chosen is Format.TABLE:
        raise CommandError("a table cannot be loaded", ExitCode.USAGE)
    address = resolve_store(store, collection, prompt=prompt)
    loader = _Loader(mode, on_error)
    try:
        # The file is opened first: a missing one must not leave a new store behind.
        with open_input(file) as stream:
            lines = read_lines(stream, chosen, id_field=id_field, plain=plain)
            run_on_store(address, lambda target: loader.load(target, lines), writes=True)
    except KeyboardInterrupt:
        print_note(f"interrupted after {loader.written} records were written")
        raise
    if as_json:
        loader.print_json()
    else:
        loader.print_summary("standard input" if str(file) == "-" else str(file))
    loader.raise_if_rejected()


@dataclass
class _Loader:
    """Writes lines in batches, and counts what was written and rejected."""

    mode: LoadMode
    on_error: OnError
    written: int = 0
    failed: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)
    """Line number and message of the first rejected lines."""
    stopped: int | None = None
    """The line at which loading stopped."""
    exit_code: ExitCode = ExitCode.RECORDS

    async def load(self, target: Collection, lines: Iterator[InputLine]) -> None:
        """Write lines until they end or one is rejected that stops the load."""
        while self.stopped is None and (batch := _read_batch(lines)):
            numbers, records = [], []
            for line in batch:
                if line.record is not None:
                    numbers.append(line.number)
                    records.append(line.record if line.record.id is not None else _add_id(line.record))
                    continue
                self._reject(line.number, line.error or "")
                if self.on_error is OnError.STOP:
                    self.stopped = line.number
                    break
            if records:
                await self._write(target, numbers, records)

    async def _write(self, target: Collection, numbers: list[int], records: list[Record]) -> None:
        write = target.create_batch if self.mode is LoadMode.CREATE else target.upsert_batch
        atomic = None if self.on_error is OnError.STOP else False
        outcomes = await write(records, on_error="collect", atomic=atomic)
        self.written += len(outcomes) - len(outcomes.errors)
        for index, error in outcomes.errors.items():
            if isinstance(error, NotWrittenError):
                continue
            number = numbers[index]
            self._reject(number, str(error))
            if self.on_error is OnError.STOP and (self.stopped is None or number < self.stopped):
                self.stopped = number
                self.exit_code = choose_exit_code(error)

    def _reject(self, number: int, message: str) -> None:
        self.failed += 1
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append((number, message))

    def print_json(self) -> None:
        """Print the counts and the rejected lines as JSON."""
        errors = [{"line": number, "message": message} for number, message in self.errors]
        print_json(
            {"written": self.written, "failed": self.failed, "stopped": self.stopped, "errors": errors}
        )

    def print_summary(self, name: str) -> None:
        """Print the number of written records, and notes on the first rejected lines of file `name`."""
        for number, message in self.errors[:_MAX_NOTES]:
            print_note(f"{name}:{number}: {message}")
        if len(self.errors) > _MAX_NOTES:
            print_note(f"… and {self.failed - _MAX_NOTES} more")
        sys.stdout.write(f"{self.written} written\n")

    def raise_if_rejected(self) -> None:
        """Raise `CommandError` if a line was rejected."""
        if self.stopped is not None:
            raise CommandError(
                f"stopped at line {self.stopped}; {self.written} records were written"
                " (--on-error skip continues)",
                self.exit_code,
            )
        if self.failed:
            raise CommandError(f"{self.failed} lines were rejected, {self.written} written", ExitCode.RECORDS)


def _read_batch(lines: Iterator[InputLine]) -> list[InputLine]:
    """Read the next lines.

    asyncio's handler of Ctrl-C would wait for a read from a pipe to end; Python's own interrupts it.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return list(islice(lines, _BATCH))
    finally:
        signal.signal(signal.SIGINT, previous)


def _add_id(record: Record) -> Record:
    """Return the record with a generated id: an upsert needs one."""
    return Record(record.data, id=new_id(), metadata=record.metadata)


def dump(
    store: RequiredStore,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="-: standard output.")],
    filter: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", show_default=False, help='age>=25 and city="Oslo", or JSON.'),
    ] = None,
    format: FileFormat = None,
    select: Annotated[
        str | None, typer.Option("--select", metavar="FIELDS", show_default=False, help="Only these fields.")
    ] = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Write matching records to a file in the order of their ids, in bounded memory.

    JSON lines contain everything; CSV and Parquet contain ids, data and metadata. The file appears
    under its name when it is complete.
    """
    chosen = choose_format(file, format, Format.JSONL)
    address = resolve_store(store, collection, prompt=prompt)
    query = build_query(filter, limit=NO_LIMIT, select=select)

    async def export(source: Collection) -> int:
        with open_writer(file, chosen) as writer:
            await write_matches(source, query, writer)
        return writer.count

    count = run_on_store(address, export)
    if is_stdout(file):
        return
    if as_json:
        print_json({"written": count, "file": str(file)})
    else:
        sys.stdout.write(f"{count} written to {file}\n")
