"""Reads records from JSON lines, CSV or Parquet, each with the number of its line."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from isthmus import InvalidRecordError, Record
from isthmus.cli._formats.csv import ABSENT, from_cell
from isthmus.cli._formats.parquet import ID, METADATA, read_parquet
from isthmus.cli._formats.writer import Format

_ENVELOPE = {"id", "data", "metadata", "version", "created_at", "updated_at"}


@dataclass(frozen=True, slots=True)
class Line:
    """A record of a file, or what is wrong with its line."""

    number: int
    record: Record | None = None
    error: str | None = None


def lines(file: Path, format: Format, *, id_field: str | None, plain: bool) -> Iterator[Line]:
    """Yield the lines of a file, `-` for standard input.

    A JSON line of the shape that `dump` writes is taken as such unless `plain`; any other object
    is a record's data. `id_field` names the data field that is the id.
    """
    if str(file) == "-":
        yield from _lines(sys.stdin.buffer, format, id_field, plain)
        return
    with file.open("rb") as opened:
        yield from _lines(opened, format, id_field, plain)


def _lines(file: IO[bytes], format: Format, id_field: str | None, plain: bool) -> Iterator[Line]:
    match format:
        case Format.CSV:
            rows = _csv(file)
        case Format.PARQUET:
            rows = _parquet(file)
        case _:
            rows = _jsonl(file, plain)
    for number, row in rows:
        if isinstance(row, str):
            yield Line(number, error=row)
            continue
        id, data, metadata = row
        try:
            yield Line(number, Record(data, id=_id(id, data, id_field), metadata=metadata))
        except InvalidRecordError as error:
            yield Line(number, error=str(error))


Row = tuple[Any, dict[str, Any], dict[str, Any]]


def _id(id: Any, data: dict[str, Any], id_field: str | None) -> Any:
    if id_field is None:
        return id
    value = data.get(id_field)
    if value is None:
        raise InvalidRecordError(f"there is no field {id_field!r} to be the id", path=id_field)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _jsonl(file: IO[bytes], plain: bool) -> Iterator[tuple[int, Row | str]]:
    for number, line in enumerate(file, 1):
        text = line.strip().removeprefix(b"\xef\xbb\xbf") if number == 1 else line.strip()
        if not text:
            continue
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg} (column {error.colno})"
            continue
        if not isinstance(value, dict):
            yield number, f"expected an object, got {type(value).__name__}"
        elif not plain and value.keys() <= _ENVELOPE and isinstance(value.get("data"), dict):
            metadata = value.get("metadata")
            yield number, (value.get("id"), value["data"], metadata if isinstance(metadata, dict) else {})
        else:
            yield number, (None, value, {})


def _csv(file: IO[bytes]) -> Iterator[tuple[int, Row | str]]:
    csv.field_size_limit(2**31 - 1)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    try:
        headings = next(rows, [])
        while (cells := next(rows, None)) is not None:
            if not cells:
                continue
            if len(cells) != len(headings):
                yield rows.line_num, f"{len(cells)} cells under {len(headings)} headings"
                continue
            yield rows.line_num, _csv_row(dict(zip(headings, cells, strict=True)))
    except (csv.Error, UnicodeDecodeError) as error:
        # Where the next row begins is not known any more: this is the last line.
        yield rows.line_num + 1, f"not CSV: {error}"
    finally:
        text.detach()


def _csv_row(row: dict[str, str]) -> Row:
    id = row.pop(ID, None) or None
    metadata = from_cell(row.pop(METADATA, ""))
    data = {key.removeprefix("data:"): from_cell(text) for key, text in row.items()}
    return (
        id,
        {key: value for key, value in data.items() if value is not ABSENT},
        metadata if isinstance(metadata, dict) else {},
    )


def _parquet(file: IO[bytes]) -> Iterator[tuple[int, Row | str]]:
    if not file.seekable():
        file = io.BytesIO(file.read())
    yield from enumerate(read_parquet(file), 1)
