"""Writes records as a table, JSON lines, CSV or Parquet, to a file or to standard output."""

from __future__ import annotations

import contextlib
import csv
import enum
import io
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import orjson

from isthmus import Record, UsageError
from isthmus.cli._formats.csv import ABSENT, to_cell
from isthmus.cli._formats.parquet import ID, METADATA, arrow, write_parquet
from isthmus.cli._formats.spill import Spill
from isthmus.cli._output import envelope, out, print_table


class Format(enum.StrEnum):
    """How records are written or read."""

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


def format_of(file: Path | None, chosen: Format | None, default: Format) -> Format:
    """Return the chosen format, or the one that a file's suffix tells."""
    if chosen is not None:
        return chosen
    if file is None or str(file) == "-":
        return default
    found = _SUFFIXES.get(file.suffix.lower())
    if found is None:
        raise UsageError(f"{file}: its suffix tells no format; say --format jsonl, csv or parquet")
    return found


class Writer(ABC):
    """Takes records one by one; `close` completes the output."""

    count = 0

    @abstractmethod
    def add(self, record: Record) -> None:
        """Take a record."""

    @abstractmethod
    def close(self) -> None:
        """Write what was held back."""


class _Lines(Writer):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, record: Record) -> None:
        self._file.write(orjson.dumps(envelope(record)) + b"\n")
        self.count += 1

    def close(self) -> None:
        self._file.flush()


class _Spilled(Writer):
    def __init__(self, file: IO[bytes], format: Format) -> None:
        self._file = file
        self._format = format
        self._spill = Spill()
        if format is Format.PARQUET:
            arrow()  # if it is missing, say so before the work

    def add(self, record: Record) -> None:
        self._spill.add(record)
        self.count += 1

    def close(self) -> None:
        try:
            if self._format is Format.PARQUET:
                write_parquet(self._spill, self._file)
            else:
                _write_csv(self._spill, self._file)
        finally:
            self._spill.close()


def _write_csv(spill: Spill, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    keys = list(spill.columns)
    own = [ID, METADATA] if spill.has_metadata else [ID]
    # A data key that looks like one of ours or begins with "data:" is marked.
    headings = [f"data:{key}" if key in (ID, METADATA) or key.startswith("data:") else key for key in keys]
    writer.writerow(own + headings)
    for id, data, metadata in spill.rows():
        first = [id, to_cell(metadata) if metadata else ""] if spill.has_metadata else [id]
        writer.writerow(first + [to_cell(data.get(key, ABSENT)) for key in keys])
    text.detach()


class _Table(Writer):
    """Holds its rows: a table is for a screen."""

    def __init__(self, first: Sequence[str]) -> None:
        self._records: list[Record] = []
        self._first = first

    def add(self, record: Record) -> None:
        self._records.append(record)
        self.count += 1

    def close(self) -> None:
        if not self._records:
            return
        there = dict.fromkeys(key for record in self._records for key in record.data)
        keys = list(dict.fromkeys([*(key for key in self._first if key in there), *there]))
        fitting = max(1, (out().width - 14) // 14)
        shown = keys[:fitting]
        rows = [[record.id, *(record.data.get(key, ...) for key in shown)] for record in self._records]
        print_table([ID, *shown], rows)
        if len(keys) > len(shown):
            rest = ", ".join(keys[fitting : fitting + 8])
            out().print(f"… and {len(keys) - len(shown)} more fields: {rest}", style="dim", markup=False)


@contextlib.contextmanager
def writer(file: Path | None, format: Format, first: Sequence[str] = ()) -> Iterator[Writer]:
    """Open a writer; a file gets its name only when it is complete.

    A table's columns begin with the `first` ones.
    """
    if file is None or str(file) == "-":
        if format is Format.PARQUET and sys.stdout.isatty():
            raise UsageError("Parquet is not for a screen: say --out FILE")
        sink = _Table(first) if format is Format.TABLE else _sink(sys.stdout.buffer, format)
        yield sink
        sink.close()
        sys.stdout.flush()
        return
    if format is Format.TABLE:
        raise UsageError("a table goes to the screen; for a file say --format jsonl, csv or parquet")
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as opened:
            sink = _sink(opened, format)
            yield sink
            sink.close()
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(file)
        part.unlink(missing_ok=True)
        raise


def _sink(file: IO[bytes], format: Format) -> Writer:
    return _Lines(file) if format is Format.JSONL else _Spilled(file, format)
