"""Printing for people and programs: tables, facts, notes, JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isthmus import Record
from isthmus.cli._json import format_json

_GAP = 2
"""The number of blanks between two columns."""
_MIN_CELL = 10
_CHARACTER = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})|.", re.DOTALL)
"""A character, or the escape of one that an encoding lacks."""


def make_console() -> Console:
    """Return a console on standard output; without colour if it is not a terminal."""
    return Console(highlight=False, soft_wrap=False)


def print_note(message: str) -> None:
    """Print a message to standard error."""
    sys.stderr.write(message + "\n")


def write_stdout(document: bytes) -> None:
    """Write bytes to standard output, after the text that was written before them.

    A document for programs is UTF-8 whatever the terminal's encoding.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(document)
    sys.stdout.buffer.flush()


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    write_stdout(format_json(value) + b"\n")


def build_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Collection[str] = (),
    whole_first: bool = False,
) -> Table:
    """Return a table that truncates its cells to the width of the terminal, the first column last.

    Columns of numbers, and those whose headings are in `right`, are aligned to the right. `whole_first`
    leaves the others what the first column does not need.
    """
    console = make_console()
    names = [_escape(format_value(heading), console.encoding) for heading in headings]
    cells = [[_escape(format_value(value), console.encoding) for value in row] for row in rows]
    longest = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    available = console.width - _GAP * (len(longest) - 1)
    widths = _fit_widths(longest, available, available if whole_first else None)
    mark = find_cut_mark(console.encoding)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        kinds = {type(row[index]) for row in rows} - {type(None), type(...)}
        numeric = heading in right or (bool(kinds) and kinds <= {int, float})
        justify: Literal["left", "right"] = "right" if numeric else "left"
        name = _cut(names[index], widths[index], mark)
        table.add_column(Text(name), overflow="crop", no_wrap=True, justify=justify, width=widths[index])
    for row in cells:
        table.add_row(*(Text(_cut(cell, width, mark)) for cell, width in zip(row, widths, strict=True)))
    return table


def find_cut_mark(encoding: str) -> str:
    """Return what ends a text that is cut: an ellipsis, or three dots where the encoding has none."""
    try:
        "…".encode(encoding)
    except UnicodeError:
        return "..."
    return "…"


def _cut(text: str, width: int, mark: str) -> str:
    """Return text of at most so many cells, its end replaced by the mark; an escape is cut as a whole."""
    if cell_len(text) <= width:
        return text
    mark = mark[:width]
    room, end = width - len(mark), 0
    for found in _CHARACTER.finditer(text):
        room -= cell_len(found.group())
        if room < 0:
            break
        end = found.end()
    return text[:end] + mark


def choose_columns(headings: Sequence[str], rows: Sequence[Sequence[Any]], least: Sequence[str]) -> list[int]:
    """Return the indexes of the columns to show: those in `least`, in this order, go where room is short.

    A heading is never cut, and a value has at least 10 characters.
    """
    needs = {
        heading: max([len(heading), *(min(cell_len(format_value(row[at])), _MIN_CELL) for row in rows)])
        for at, heading in enumerate(headings)
    }
    available = make_console().width + _GAP
    for heading in least:
        if sum(needs.values()) + _GAP * len(needs) > available:
            del needs[heading]
    return [at for at, heading in enumerate(headings) if heading in needs]


def _escape(text: str, encoding: str) -> str:
    """Return text as the stream will show it, so that escapes of other characters have their width."""
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def _fit_widths(longest: Sequence[int], available: int, first: int | None = None) -> list[int]:
    """Return the widths of columns whose cells are at most so long.

    The first column, which names the row, has up to `first`, by default half of the line, or what the
    others leave. Those share the rest equally, except that none is wider than its cells.
    """
    most = available // 2 if first is None else min(first, available - len(longest) + 1)
    first = min(longest[0], max(most, available - sum(longest[1:])))
    widths = [first] * len(longest)
    left = available - first
    others = sorted(range(1, len(longest)), key=longest.__getitem__)
    for position, index in enumerate(others):
        widths[index] = max(1, min(longest[index], left // (len(others) - position)))
        left -= widths[index]
    return widths


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Collection[str] = (),
    whole_first: bool = False,
) -> None:
    """Print rows under headings; see `build_table`."""
    make_console().print(build_table(headings, rows, right=right, whole_first=whole_first))


def build_facts(facts: Iterable[tuple[str, Any]]) -> Table:
    """Return a table with a name and a value on each line; long values wrap."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", overflow="fold", max_width=max(20, make_console().width // 2))
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name), Text(format_value(value)))
    return table


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Print a name and a value on each line."""
    make_console().print(build_facts(facts))


def format_value(value: Any) -> str:
    """Return a value as a table shows it: text as it is, anything else as JSON, on one line.

    None and `...`, which stands for an absent field, are empty.
    """
    if value is None or value is ...:
        return ""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
    if isinstance(value, float | int | bool | dict | list):
        return format_json(value).decode()
    return str(value)


def quote_empty(value: Any) -> Any:
    """Return a value for a table in which empty text must not look like none."""
    return '""' if value == "" else value


def record_to_json(record: Record) -> dict[str, Any]:
    """Return the JSON object of a record: id, data, metadata if there is any, version and times."""
    metadata = {"metadata": record.metadata} if record.metadata else {}
    return {
        "id": record.id,
        "data": record.data,
        **metadata,
        "version": record.version,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
    }
