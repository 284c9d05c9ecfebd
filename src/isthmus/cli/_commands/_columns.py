"""Declared columns, for the command `index`: what they cost, adding and dropping them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from isthmus import ConfigError
from isthmus._columns import declare_columns, drop_columns, find_odd
from isthmus._core.columns import DeclaredColumn, OddRows, columns_of
from isthmus._path import parse_path
from isthmus.cli._output import print_json, print_table
from isthmus.cli._stores import StoreAddress, open_database


async def change_columns(
    address: StoreAddress, given: Sequence[str], *, check: bool, drop: bool, as_json: bool
) -> None:
    """Add, check or drop columns that are given as `FIELD=KIND`; to drop one its field is enough."""
    if drop:
        paths = [parse_path(text.partition("=")[0]) for text in given]
        async with open_database(address, {}, writes=True) as db:
            await drop_columns(db, paths)
        names = [str(path) for path in paths]
        if as_json:
            print_json({"dropped": names})
        else:
            typer.echo(f"{', '.join(names)}: no columns any more")
        return
    columns = _parse(given)
    async with open_database(address, {}, writes=not check) as db:
        found = await find_odd(db, columns)
        if as_json:
            print_json(_report(columns, found))
        else:
            _print(columns, found)
        if not check:
            await declare_columns(db, columns)
            if not as_json:
                typer.echo(f"{', '.join(str(column.path) for column in columns)}: added")


def _parse(given: Sequence[str]) -> tuple[DeclaredColumn, ...]:
    kinds: dict[str, Any] = {}
    for text in given:
        name, equals, kind = text.rpartition("=")
        if not equals or not name:
            raise ConfigError(f"--column {text}: write FIELD=KIND, such as {text.rstrip('=') or 'n'}=number")
        if kinds.setdefault(name, kind) != kind:
            raise ConfigError(f"--column: {name} is given as {kinds[name]} and as {kind}; give one kind")
    return columns_of(kinds)


def _report(columns: Sequence[DeclaredColumn], found: OddRows) -> dict[str, Any]:
    return {
        "records": found.records,
        "bytes": found.bytes,
        "columns": [
            {"field": str(column.path), "kind": column.kind, "odd": found.odd.get(str(column), 0)}
            for column in columns
        ],
    }


def _print(columns: Sequence[DeclaredColumn], found: OddRows) -> None:
    rows = [(str(column.path), column.kind, f"{found.odd.get(str(column), 0):,}") for column in columns]
    print_table(["field", "column", "records with something else"], rows)
    cost = "it is not rewritten"
    if found.bytes:
        cost = f"{found.bytes / 1e6:,.0f} MB are rewritten while others wait"
    typer.echo(
        f"To add them to {found.records:,} records, {cost}. The collection then has format 2, which"
        " isthmus 0.1.0 refuses."
    )
