"""Commands between files and stores: load and dump."""

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

from isthmus import AsyncDatabase, Collection, NotWrittenError, Outcomes, Record
from isthmus._values import new_id
from isthmus.cli._commands.query import built
from isthmus.cli._errors import Code, CommandError, code_of
from isthmus.cli._formats.reader import Line, lines
from isthmus.cli._formats.writer import Format, format_of, writer
from isthmus.cli._options import AsJson, Ask, CollectionName, run
from isthmus.cli._output import note, print_json
from isthmus.cli._stores import Place, opened, place

_BATCH = 2_000
_SHOWN = 20


class OnError(enum.StrEnum):
    """What a bad record does to the rest."""

    STOP = "stop"
    SKIP = "skip"


class Mode(enum.StrEnum):
    """How records are written."""

    UPSERT = "upsert"
    CREATE = "create"


Url = Annotated[str, typer.Argument(metavar="STORE", help="The store's URL; -: $ISTHMUS_URL.")]
FileFormat = Annotated[
    Format | None,
    typer.Option("--format", "-f", show_default=False, help="Else the file's suffix tells."),
]


COMMANDS = ("load", "dump")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(load)
    app.command()(dump)


@dataclass
class _Loaded:
    written: int = 0
    failed: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)
    stopped: int | None = None
    code: Code = Code.RECORDS

    def refuse(self, line: int, message: str) -> None:
        self.failed += 1
        if len(self.errors) < 1_000:
            self.errors.append((line, message))


def load(
    store: Url,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, CSV or Parquet; -: standard input.")
    ],
    format: FileFormat = None,
    id_field: Annotated[
        str | None,
        typer.Option("--id", metavar="FIELD", show_default=False, help="The data field that is the id."),
    ] = None,
    mode: Annotated[Mode, typer.Option("--mode", help="create refuses ids that exist.")] = Mode.UPSERT,
    on_error: Annotated[OnError, typer.Option("--on-error", help="What a bad line does.")] = OnError.STOP,
    collection: CollectionName = None,
    *,
    plain: Annotated[
        bool, typer.Option("--plain", help="Each line is data, also if it looks like a dumped record.")
    ] = False,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Write the records of a file into a store; bad lines are told by number.

    Ids come from a dumped record, a CSV column _id or --id; else new ones are made.
    """
    chosen = format_of(file, format, Format.JSONL)
    if chosen is Format.TABLE:
        raise CommandError("a table cannot be read", Code.USAGE)
    where = place(store, collection, ask=ask)
    if str(file) != "-":
        file.open("rb").close()  # before a store is made for nothing
    found = lines(file, chosen, id_field=id_field, plain=plain)
    loaded = _Loaded()
    try:
        run(_load(where, found, mode, on_error, loaded))
    except KeyboardInterrupt:
        note(f"{loaded.written} records were written before")
        raise
    name = "standard input" if str(file) == "-" else str(file)
    if as_json:
        errors = [{"line": line, "message": message} for line, message in loaded.errors]
        print_json(
            {"written": loaded.written, "failed": loaded.failed, "stopped": loaded.stopped, "errors": errors}
        )
    else:
        for line, message in loaded.errors[:_SHOWN]:
            note(f"{name}:{line}: {message}")
        if len(loaded.errors) > _SHOWN:
            note(f"… and {loaded.failed - _SHOWN} more")
        sys.stdout.write(f"{loaded.written} written\n")
    if loaded.stopped is not None:
        raise CommandError(
            f"stopped at line {loaded.stopped}; {loaded.written} records were written"
            " (--on-error skip goes on)",
            loaded.code,
        )
    if loaded.failed:
        raise CommandError(f"{loaded.failed} lines were refused, {loaded.written} written", Code.RECORDS)


async def _load(where: Place, found: Iterator[Line], mode: Mode, on_error: OnError, loaded: _Loaded) -> None:
    async with opened(where, writes=True) as store:
        while batch := _next_batch(found):
            good = []
            for line in batch:
                if line.error is not None or line.record is None:
                    loaded.refuse(line.number, line.error or "")
                    if on_error is OnError.STOP:
                        loaded.stopped = line.number
                        break
                else:
                    good.append(line)
            if good:
                await _write(store, good, mode, on_error, loaded)
            if loaded.stopped is not None:
                return


def _next_batch(found: Iterator[Line]) -> list[Line]:
    """Read the next lines; Ctrl-C ends a read that waits for a pipe, which asyncio's handler would not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return list(islice(found, _BATCH))
    finally:
        signal.signal(signal.SIGINT, before)


async def _write(
    store: AsyncDatabase | Collection, good: list[Line], mode: Mode, on_error: OnError, loaded: _Loaded
) -> None:
    """Write a batch, and put each refusal to its line."""
    records = [_named(line.record) for line in good if line.record is not None]
    atomic = None if on_error is OnError.STOP else False
    outcomes: Outcomes[str]
    if mode is Mode.CREATE:
        outcomes = await store.create_batch(records, on_error="collect", atomic=atomic)
    else:
        outcomes = await store.upsert_batch(records, on_error="collect", atomic=atomic)
    errors = outcomes.errors
    loaded.written += len(outcomes) - len(errors)
    for index, error in errors.items():
        if isinstance(error, NotWrittenError):
            continue
        loaded.refuse(good[index].number, str(error))
        if on_error is OnError.STOP and (loaded.stopped is None or good[index].number < loaded.stopped):
            loaded.stopped = good[index].number
            loaded.code = code_of(error)


def _named(record: Record) -> Record:
    """Return the record with an id: an upsert needs one."""
    return record if record.id is not None else Record(record.data, id=new_id(), metadata=record.metadata)


def dump(
    store: Url,
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
    ask: Ask = False,
) -> None:
    """Write matching records to a file in the order of ids, in bounded memory.

    JSON lines keep everything; CSV and Parquet keep ids, data and metadata. The file gets its
    name when it is complete.
    """
    chosen = format_of(file, format, Format.JSONL)
    where = place(store, collection, ask=ask)
    count = run(_dump(where, file, chosen, filter, select))
    if str(file) == "-":
        return
    if as_json:
        print_json({"written": count, "file": str(file)})
    else:
        sys.stdout.write(f"{count} written to {file}\n")


async def _dump(where: Place, file: Path, format: Format, filter: str | None, select: str | None) -> int:
    query = built(filter, None, 2**62, 0, select)
    async with opened(where) as store:
        with writer(file, format) as sink:
            async with store.stream(query) as records:
                async for record in records:
                    sink.add(record)
            return sink.count
