"""Reads records from JSON lines, CSV or Parquet, each with its line number."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from isthmus import InvalidRecordError, Record
from isthmus.cli._formats.csv import Row, read_csv
from isthmus.cli._formats.parquet import read_parquet
from isthmus.cli._formats.writer import Format
from isthmus.cli._json import format_json, parse_json

_RECORD_KEYS = {"id", "data", "metadata", "version", "created_at", "updated_at"}


@dataclass(frozen=True, slots=True)
class InputLine:
    """A record of a file, or the reason why its line has none."""

    number: int
    record: Record | None = None
    error: str | None = None


def open_input(file: Path) -> AbstractContextManager[IO[bytes]]:
    """Open a file, `-` for standard input; once, because a FIFO can be read only once."""
    return contextlib.nullcontext(sys.stdin.buffer) if is_stdin(file) else file.open("rb")


def is_stdin(file: Path) -> bool:
    """Return whether a command's file is standard input."""
    return str(file) == "-"


def read_lines(
    stream: IO[bytes], format: Format, *, id_fields: Sequence[str], plain: bool
) -> Iterator[InputLine]:
    """Yield the lines of a file.

    A JSON line as `dump` writes it is a whole record unless `plain`; any other object is the data of
    a record. `id_fields` name the data fields that hold the id; of several it is a JSON list as text.
    """
    rows: Iterator[tuple[int, Row | str]]
    match format:
        case Format.CSV:
            rows = read_csv(stream)
        case Format.PARQUET:
            rows = enumerate(read_parquet(stream if stream.seekable() else io.BytesIO(stream.read())), 1)
        case _:
            rows = _read_json_lines(stream, plain)
    for number, row in rows:
        if isinstance(row, str):
            yield InputLine(number, error=row)
            continue
        id, data, metadata = row
        try:
            id = _find_id(data, id_fields) if id_fields else id
            yield InputLine(number, Record(data, id=id, metadata=metadata))
        except InvalidRecordError as error:
            yield InputLine(number, error=str(error))


def _find_id(data: dict[str, Any], id_fields: Sequence[str]) -> str:
    missing = next((name for name in id_fields if data.get(name) is None), None)
    if missing is not None:
        raise InvalidRecordError(f"there is no field {missing!r} for the id", path=missing)
    values = [data[name] for name in id_fields]
    value = values[0] if len(values) == 1 else values
    return value if isinstance(value, str) else format_json(value).decode()


def _read_json_lines(stream: IO[bytes], plain: bool) -> Iterator[tuple[int, Row | str]]:
    for number, line in enumerate(stream, 1):
        text = line.strip().removeprefix(b"\xef\xbb\xbf") if number == 1 else line.strip()
        if not text:
            continue
        try:
            value = parse_json(text)
        except orjson.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg} (column {error.colno})"
            continue
        if not isinstance(value, dict):
            yield number, f"expected an object, got {type(value).__name__}"
        elif not plain and value.keys() <= _RECORD_KEYS and isinstance(value.get("data"), dict):
            metadata = value.get("metadata")
            yield number, (value.get("id"), value["data"], metadata if isinstance(metadata, dict) else {})
        else:
            yield number, (None, value, {})
