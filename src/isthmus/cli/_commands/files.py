"""Commands between a file and a store: load and dump."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from isthmus import Collection
from isthmus.cli._commands.query import NO_LIMIT, build_query, write_matches
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._formats.output_file import is_stdout
from isthmus.cli._formats.reader import open_input, read_lines
from isthmus.cli._formats.writer import Format, choose_format, open_writer
from isthmus.cli._loader import Loader
from isthmus.cli._options import AsJson, CollectionName, OnError, PromptPassword, RequiredStore
from isthmus.cli._output import print_json
from isthmus.cli._stores import resolve_store, run_on_store


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
    """Load a file into a store; count the records created, replaced and refused.

    The id comes from a dumped record, a CSV column _id or --id; otherwise it is generated.
    """
    chosen = choose_format(file, format, Format.JSONL)
    if chosen is Format.TABLE:
        raise CommandError("a table cannot be loaded", ExitCode.USAGE)
    address = resolve_store(store, collection, prompt=prompt)
    loader = Loader(create_only=mode is LoadMode.CREATE, skip_refused=on_error is OnError.SKIP)
    name = "standard input" if str(file) == "-" else str(file)
    try:
        # The file is opened first: a missing one must not leave a new store behind.
        with open_input(file) as stream:
            lines = read_lines(stream, chosen, id_field=id_field, plain=plain)
            run_on_store(address, lambda target: loader.load(target, lines), writes=True)
    except (KeyboardInterrupt, Exception) as error:
        if loader.read:
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            loader.report_failure(name, reason, as_json=as_json)
        raise
    loader.report(name, as_json=as_json)
    loader.raise_if_refused()


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
