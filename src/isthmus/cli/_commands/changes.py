"""The command changes: what changes in a collection, as JSON lines."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus import Change, ChangeStream, QueryError, Record, UnsupportedError
from isthmus._core.changes import SupportsChangeStatements
from isthmus.cli._commands.query import build_query
from isthmus.cli._formats.output_file import open_output
from isthmus.cli._json import format_json
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, Store
from isthmus.cli._output import print_json, record_to_json, write_stdout
from isthmus.cli._store_files import require_other_files
from isthmus.cli._stores import StoreAddress, open_collection, open_database, resolve_store


def changes(
    store: Store = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="FILTER", show_default=False, help="No record of others."),
    ] = None,
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="now, start, or a position.")] = "now",
    position: Annotated[
        Path | None,
        typer.Option(
            "--position",
            metavar="FILE",
            show_default=False,
            help="Continue after the position in FILE.",
        ),
    ] = None,
    poll: Annotated[
        float, typer.Option("--poll", metavar="S", min=0.01, help="Seconds between looks for changes.")
    ] = 1.0,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", metavar="N", min=1, show_default=False, help="Exit after N changes."),
    ] = None,
    collection: CollectionName = None,
    *,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Exit when there is no further change.")] = False,
    ddl: Annotated[
        bool, typer.Option("--ddl", help="Print the statements that a native table needs.")
    ] = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Print the changes of a collection as JSON lines, as they come; Ctrl-C exits.

    They are kept with changes=true, or after `isthmus index --changes`. The
    record is null if it is gone or does not match.
    """
    address = resolve_store(store, collection, prompt=prompt)
    if ddl:
        asyncio.run(_print_statements(address, as_json=as_json))
        return
    require_other_files(address, {"--position": position})
    query, start = build_query(where), _read_position(position) or since

    async def follow() -> None:
        async with open_collection(address) as followed, followed.changes(query, start, poll) as stream:
            _keep_position(position, stream)
            await _print_changes(stream, position, number, wait=not no_wait)

    asyncio.run(follow())


async def _print_statements(address: StoreAddress, *, as_json: bool) -> None:
    """Print what the owner of a table runs once; raises `UnsupportedError` for other stores."""
    async with open_database(address, {}, writes=False) as db:
        await db._ensure_open()
        backend = db._backend
        if not isinstance(backend, SupportsChangeStatements):
            raise UnsupportedError(
                "--ddl is for tables that others made (layout=native); `isthmus index URL --changes`"
                " declares changes of others",
                capability="changes",
            )
        statements = await backend.change_statements(db.collection_name)
    if as_json:
        print_json(statements)
        return
    for statement in statements:
        typer.echo(f"{statement};")


async def _print_changes(
    stream: ChangeStream[Record], file: Path | None, number: int | None, *, wait: bool
) -> None:
    """Print changes, and after each page of them keep the position in the file."""
    printed = 0
    while number is None or printed < number:
        found = await stream.read(None if number is None else number - printed, wait=wait)
        if not found:
            return
        write_stdout(b"".join(format_json(_to_json(change)) + b"\n" for change in found))
        _keep_position(file, stream)
        printed += len(found)


def _to_json(change: Change[Record]) -> dict[str, Any]:
    return {
        "id": change.id,
        "order": change.order,
        "version": change.version,
        "record": None if change.record is None else record_to_json(change.record),
        "position": change.position,
    }


def _read_position(file: Path | None) -> str | None:
    """Return the position in a file; None if there is no file yet."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not text:
        raise QueryError(f"{file} has no position; delete it to begin with --since")
    return text


def _keep_position(file: Path | None, stream: ChangeStream[Record]) -> None:
    """Replace the file by one with the stream's position: whole, or as it was."""
    if file is None or stream.position is None:
        return
    with open_output(file) as output:
        output.write(stream.position.encode("ascii") + b"\n")
