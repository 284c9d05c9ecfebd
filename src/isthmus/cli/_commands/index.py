"""The command `index`: indexes, unique fields, columns, and whether changes are kept."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from isthmus import ConfigError, QueryError, UnsupportedError
from isthmus._changes_declaration import declare_changes, end_changes
from isthmus._core.unique import json_text
from isthmus._unique import declare_unique, end_unique, find_duplicates
from isthmus.cli._commands._columns import change_columns
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._filter import parse_field
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, Store
from isthmus.cli._output import print_json, print_table
from isthmus.cli._stores import StoreAddress, open_database, resolve_store


def index(
    store: Store = None,
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD...", show_default=False, help="Fields to index; none: list the declared ones."
        ),
    ] = None,
    collection: CollectionName = None,
    *,
    unique: Annotated[
        bool, typer.Option("--unique", help="Declare the fields, together, unique instead.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: look for what stands in the way.")
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=KIND",
            show_default=False,
            help="A column: number, text or bool.",
        ),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="End what one of the others declared.")] = False,
    changes: Annotated[
        bool, typer.Option("--changes", help="Keep the collection's changes from now on.")
    ] = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Build indexes, which make filters and sorts on their fields fast.

    To keep an index, name its field in the configuration too (indexes=...).
    The others bind every program until --drop, and isthmus 0.1.0 refuses the
    collection then (format 2). --check names the records that stand in the
    way (exit code 1 if there are any), or says what columns cost.
    """
    address = resolve_store(store, collection, prompt=prompt)
    if columns:
        if fields or unique or changes or check + drop > 1:
            raise QueryError("--column goes with one of --check and --drop at most, and without fields")
        asyncio.run(change_columns(address, columns, check=check, drop=drop, as_json=as_json))
        return
    if changes:
        if fields or unique or check:
            raise QueryError("--changes is about the collection: it goes with --drop, and without fields")
        asyncio.run(_changes(address, drop=drop, as_json=as_json))
        return
    if unique or check or drop:
        if not fields or check + drop > 1:
            raise QueryError(
                "--unique, --check and --drop need fields, and one of --check and --drop at most"
            )
        asyncio.run(_unique(address, fields, check=check, drop=drop, as_json=as_json))
        return
    indexes = asyncio.run(_index(address, fields or []))
    if as_json:
        print_json(indexes)
    else:
        unused = "none now: with few records a scan is faster"
        rows = [(field, index or unused) for field, index in indexes.items()]
        print_table(["field", "index that = uses"], rows)


async def _index(address: StoreAddress, fields: list[str]) -> dict[str, str | None]:
    """Declare indexes on these fields, and return the index that an equality on each field uses."""
    paths = [parse_field(name) for name in fields]
    if not address.plugin.capabilities.indexes:
        raise UnsupportedError(f"{address.plugin.name} has no declared indexes", capability="indexes")
    settings = {"indexes": fields} if fields else {}
    async with open_database(address, settings, writes=bool(fields)) as db:
        used = {name: (await db.explain(path == 1)).index for name, path in zip(fields, paths, strict=True)}
        for name in getattr(db.config, "indexes", ()):
            used.setdefault(str(name), None)
        return used


async def _unique(
    address: StoreAddress, fields: list[str], *, check: bool, drop: bool, as_json: bool
) -> None:
    """Look for duplicates, declare fields unique, or end that."""
    names = ", ".join(fields)
    async with open_database(address, {}, writes=not check) as db:
        if drop:
            await end_unique(db, fields)
            _tell(f"{names}: not unique any more", {"unique": False}, as_json=as_json)
            return
        found = await find_duplicates(db, fields)
        if found:
            shown: list[Any] = [{"value": value, "ids": ids} for value, ids in found]
            if as_json:
                print_json({"duplicates": shown})
            else:
                rows = [(json_text(value), ", ".join(ids)) for value, ids in found]
                print_table([names, "records"], rows)
            raise CommandError(f"records have equal values of {names}", ExitCode.NO)
        if not check:
            try:
                await declare_unique(db, fields)
            except ConfigError as error:  # written since
                raise CommandError(str(error), ExitCode.NO) from error
    _tell(f"{names}: {'no duplicates' if check else 'unique'}", {"duplicates": []}, as_json=as_json)


async def _changes(address: StoreAddress, *, drop: bool, as_json: bool) -> None:
    """Declare that changes are kept, or end that."""
    async with open_database(address, {}, writes=True) as db:
        await (end_changes if drop else declare_changes)(db)
        name = address.collection or db.collection_name
    kept = "not kept any more" if drop else "kept from now on; the collection has format 2"
    _tell(
        f"{name}: changes are {kept}",
        {"changes": not drop},
        as_json=as_json,
    )


def _tell(text: str, shape: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(shape)
    else:
        typer.echo(text)
