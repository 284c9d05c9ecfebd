"""The command `index`: indexes, unique fields, and declared columns."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from isthmus import ConfigError, QueryError, UnsupportedError
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
        bool,
        typer.Option(
            "--check",
            help="Only look for records with equal values, or with values that do not fit the columns.",
        ),
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=KIND",
            show_default=False,
            help="Add a typed column instead: number, text or bool. May be repeated.",
        ),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="End the declaration of unique fields, or drop the columns.")
    ] = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Build indexes, which make filters and sorts on their fields fast.

    To keep an index, name its field in the configuration too (indexes=...).
    With --unique no two records may have the same values of the fields; the
    collection then has format 2, which isthmus 0.1.0 refuses. It binds every
    program until --drop. --check names the records that stand in its way, and
    its exit code is 1 if there are any.
    With --column the collection gets a typed column of a field, by which
    filters, sorts and aggregates are as fast as on a table of that shape; it
    then has format 2 too. What that costs is said before it begins, and by
    --check, which changes nothing.
    """
    address = resolve_store(store, collection, prompt=prompt)
    if columns:
        if fields or unique or check + drop > 1:
            raise QueryError("--column goes with one of --check and --drop at most, and without fields")
        asyncio.run(change_columns(address, columns, check=check, drop=drop, as_json=as_json))
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


def _tell(text: str, shape: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(shape)
    else:
        typer.echo(text)
