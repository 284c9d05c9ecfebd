"""Reads records from JSON lines, CSV or Parquet, each with its line number."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
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
    return contextlib.nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb")


def read_lines(
    stream: IO[bytes], format: Format, *, id_field: str | None, plain: bool
) -> Iterator[InputLine]:
    """Yield the lines of a file.

    A JSON line as `dump` writes it is a whole record unless `plain`; any other object is the data of
    a record. `id_field` names the data field that holds the id.
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
            id = id if id_field is None else _find_id(data, id_field)
            yield InputLine(number, Record(data, id=id, metadata=metadata))
        except InvalidRecordError as error:
            yield InputLine(number, error=str(error))


def _find_id(data: dict[str, Any], id_field: str) -> str:
    value = data.get(id_field)
    if value is None:
        raise InvalidRecordError(f"there is no field {id_field!r} for the id", path=id_field)
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
