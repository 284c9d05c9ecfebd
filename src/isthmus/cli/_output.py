"""Prints for people: tables, small facts, notes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from isthmus import Record


def out() -> Console:
    """Return the console of standard output; no colour where nobody sees it."""
    return Console(highlight=False, soft_wrap=False)


def note(message: str) -> None:
    """Say something beside the output."""
    sys.stderr.write(message + "\n")


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows in columns as wide as the terminal allows."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    held = [list(row) for row in rows]
    for place, heading in enumerate(headings):
        numeric = bool(held) and all(type(row[place]) in (int, float) for row in held)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(escape(heading), overflow="ellipsis", no_wrap=True, justify=justify)
    for row in held:
        table.add_row(*(escape(cell(value)) for value in row))
    out().print(table)


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, a line for each; long values wrap below themselves."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(escape(name), escape(cell(value)))
    out().print(table)


def cell(value: Any) -> str:
    """Return a value as it stands in a table: text as it is, the rest as JSON, on one line."""
    if value is None or value is ...:
        return ""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
    if isinstance(value, float | int | bool | dict | list):
        return orjson.dumps(value).decode()
    return str(value)


def envelope(record: Record) -> dict[str, Any]:
    """Return a record as the command line writes it: id, data, metadata, version and times."""
    shape: dict[str, Any] = {"id": record.id, "data": record.data}
    if record.metadata:
        shape["metadata"] = record.metadata
    shape["version"] = record.version
    shape["created_at"] = record.created_at
    shape["updated_at"] = record.updated_at
    return shape
