"""Writes records as a table, JSON lines, CSV or Parquet, to a file or to standard output."""

from __future__ import annotations

import contextlib
import enum
import itertools
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import orjson
from rich.cells import cell_len

from isthmus import Record, UsageError
from isthmus.cli._formats.csv import CSVStyle, write_csv
from isthmus.cli._formats.output_file import is_stdout, open_output
from isthmus.cli._formats.parquet import import_pyarrow, write_parquet
from isthmus.cli._formats.spill import ID, Spill
from isthmus.cli._output import find_cut_mark, format_value, make_console, print_table, record_to_json


class Format(enum.StrEnum):
    """The formats of records."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSONL,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
}
_GAP = 2
_NARROW = 12
"""The width that a column of long values has at least."""
_SHORT = 12
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DEFAULT_STYLE = CSVStyle()
_COMPRESSED = (".gz", ".zst")
_FILE_FORMATS = "use --format jsonl, csv or parquet"


def choose_format(file: Path | None, format: Format | None, default: Format) -> Format:
    """Return `format`, or else the one that the file's suffix implies, or else the default."""
    if file is not None and file.suffix.lower() in _COMPRESSED:
        raise UsageError(f"{file}: output is not compressed; write {file.with_suffix('')} and compress it")
    if format is not None:
        return format
    if file is None or is_stdout(file):
        return default
    implied = _SUFFIXES.get(file.suffix.lower())
    if implied is None:
        raise UsageError(f"{file}: unknown suffix; {_FILE_FORMATS}")
    return implied


class RecordWriter(ABC):
    """Writes records; `finish` completes the output."""

    count = 0

    @abstractmethod
    def add(self, record: Record) -> None:
        """Write a record, or keep it until `finish`."""

    @abstractmethod
    def finish(self) -> None:
        """Write what `add` kept."""


class _JsonLinesWriter(RecordWriter):
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def add(self, record: Record) -> None:
        self._stream.write(orjson.dumps(record_to_json(record)) + b"\n")
        self.count += 1

    def finish(self) -> None:
        self._stream.flush()


class _SpillingWriter(RecordWriter):
    def __init__(self, stream: IO[bytes], format: Format, style: CSVStyle) -> None:
        if format is Format.PARQUET:
            import_pyarrow()  # fail before the records are read
        self._stream = stream
        self._format = format
        self._style = style
        self._spill = Spill()

    def add(self, record: Record) -> None:
        self._spill.add(record)
        self.count += 1

    def finish(self) -> None:
        with contextlib.closing(self._spill):
            if self._format is Format.PARQUET:
                write_parquet(self._spill, self._stream)
            else:
                write_csv(self._spill, self._stream, self._style)


class _TableWriter(RecordWriter):
    """Keeps its records in memory: a table has few."""

    def __init__(self, columns: Sequence[str], *, full_ids: bool) -> None:
        self._columns = columns
        self._full_ids = full_ids
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        self._records.append(record)
        self.count += 1

    def finish(self) -> None:
        if not self._records:
            return
        present = dict.fromkeys(key for record in self._records for key in record.data)
        keys = list(dict.fromkeys([*(key for key in self._columns if key in present), *present]))
        columns = {key: [record.data.get(key, ...) for record in self._records] for key in keys}
        needs = {key: _GAP + min(_NARROW, _measure(key, cells)) for key, cells in columns.items()}
        console = make_console()
        ids = [record.id or "" for record in self._records]
        if not self._full_ids and _measure(ID, ids) + sum(needs.values()) > console.width:
            ids = _shorten(ids, mark=find_cut_mark(console.encoding))
        most = console.width if self._full_ids else console.width // 2
        left = console.width - max(_NARROW, min(most, _measure(ID, ids)))
        ends = itertools.accumulate(needs.values())
        fitting = max(1, sum(end <= left for end in ends))
        shown, hidden = keys[:fitting], keys[fitting:]
        cells = zip(ids, *(columns[key] for key in shown), strict=True)
        print_table([ID, *shown], list(cells), whole_first=self._full_ids)
        if hidden:
            console.print(
                f"… and {len(hidden)} more fields: {', '.join(hidden[:8])}", style="dim", markup=False
            )


def _measure(heading: str, cells: Iterable[Any]) -> int:
    return max(cell_len(heading), *(cell_len(format_value(cell)) for cell in cells))


def _shorten(ids: list[str], *, mark: str) -> list[str]:
    """Return the ends of generated ids, which tell them apart; other ids stay as they are."""
    if not all(map(_UUID.fullmatch, ids)):
        return ids
    short = [mark + id[-_SHORT:] for id in ids]
    return short if len(set(short)) == len(ids) else ids


@contextlib.contextmanager
def open_writer(
    file: Path | None,
    format: Format,
    columns: Sequence[str] = (),
    style: CSVStyle = DEFAULT_STYLE,
    *,
    full_ids: bool = False,
) -> Iterator[RecordWriter]:
    """Yield a writer to a file, or to standard output for None or `-`.

    A regular file changes only when the output is complete. A table begins with these columns, and
    has the ends of generated ids where it is narrow, unless `full_ids`. Raises
    `UsageError` for a style of CSV with another format.
    """
    if style != DEFAULT_STYLE and format is not Format.CSV:
        raise UsageError(f"--{'plain' if style.plain else 'null'} is for CSV, not for {format}")
    if file is None or is_stdout(file):
        if format is Format.PARQUET and sys.stdout.isatty():
            raise UsageError("Parquet cannot be printed on a terminal; use --out FILE")
        writer: RecordWriter
        if format is Format.TABLE:
            writer = _TableWriter(columns, full_ids=full_ids)
        else:
            writer = _make_writer(sys.stdout.buffer, format, style)
        yield writer
        writer.finish()
        sys.stdout.flush()
        return
    if format is Format.TABLE:
        raise UsageError(f"a table cannot be written to a file; {_FILE_FORMATS}")
    with open_output(file) as stream:
        writer = _make_writer(stream, format, style)
        yield writer
        writer.finish()
        stream.flush()


def _make_writer(stream: IO[bytes], format: Format, style: CSVStyle) -> RecordWriter:
    return _JsonLinesWriter(stream) if format is Format.JSONL else _SpillingWriter(stream, format, style)
