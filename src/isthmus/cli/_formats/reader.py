"""Reads the files of `load` through the files backend: records, each with its line number."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from isthmus import InvalidRecordError, Record, UsageError
from isthmus._core.mutation_batch import EncodedRecords
from isthmus._ids import check_ids
from isthmus.backends.files.catalog import Catalog, File
from isthmus.backends.files.config import FilesConfig
from isthmus.backends.files.formats.arrow_chunk import ArrowChunk
from isthmus.backends.files.formats.arrow_file import marks_of
from isthmus.backends.files.formats.choose import FileFormat, choose_format
from isthmus.backends.files.formats.column_kinds import merge_files
from isthmus.backends.files.formats.compression import (
    MARK_SIZE,
    decompress,
    describe_damage,
    find_compression,
)
from isthmus.backends.files.formats.dialect import START, Dialect
from isthmus.backends.files.formats.dump import ID, METADATA
from isthmus.backends.files.formats.json_lines import read_json_lines
from isthmus.backends.files.reader import FileReader
from isthmus.backends.files.rows import Chunk, Refusal, Row, RowChunk
from isthmus.cli._errors import name_options
from isthmus.cli._formats.input_line import EncodedLines, InputFormat, InputLine
from isthmus.cli._formats.input_storage import InputStorage
from isthmus.cli._hints import hint_at_nearest
from isthmus.cli._json import format_json

_RECORD_KEYS = {"id", "data", "metadata", "version", "created_at", "updated_at"}
_MARK = _RECORD_KEYS - {"metadata"}
"""The keys that each line of a dump has; of metadata only if there is any."""
_TABLES = ("csv", "tsv")
_HEAD = 1 << 20
_STDIN = "standard input"
_NAME_FORMAT = "without --format it is read as JSON lines"


class Input:
    """The files of one load, whose columns of text have one type over all of them.

    `settings` are those of the files backend. A line or table as `dump` marks it is made of whole
    records, unless `plain`; with `records` so is any line with an id and data. `id_fields` name the
    data fields that hold the id; of several it is a JSON list as text. Raises `OSError` for a file
    that cannot be opened, and `ConfigError` or `UsageError` for settings and suffixes.
    """

    def __init__(
        self,
        files: Sequence[Path],
        format: InputFormat | None,
        settings: Mapping[str, Any],
        *,
        id_fields: Sequence[str] = (),
        records: bool = False,
        plain: bool = False,
    ) -> None:
        self._format = format
        self._id_fields = id_fields
        self._records = records
        self._plain = plain
        self._exit = contextlib.ExitStack()
        self._storage = InputStorage()
        self._stream: BinaryIO | None = None
        self._shown: dict[str, str] = {}
        """The names of streams by their keys."""
        self._read = 0
        """The number of rows that were read."""
        dialect = Dialect.of(FilesConfig.load({"location": "-", **settings}))
        self._forced = dialect.forced
        try:
            for file in files:
                self._add(file)
        except BaseException:
            self.close()
            raise
        formats = {file.key: self._choose_format(file) for file in self._storage.list_files()}
        if not any(format.name in _TABLES for format in formats.values()):
            unused = next((name for name in ("delimiter", "encoding") if name in settings), None)
            if unused is not None:
                raise UsageError(f"--{unused} is for CSV and TSV, and no file is one")
        self._readers = {
            (name, whole): FileReader(self._storage, dialect._replace(records=whole), name)
            for name in {format.name for format in formats.values()}
            for whole in (False, True)
        }
        self._formats = formats

    def close(self) -> None:
        """Remove the temporary file of standard input."""
        self._exit.close()

    def _add(self, path: Path) -> None:
        if is_stdin(path):
            stream = sys.stdin.buffer
            is_plain = find_compression(_peek(stream)) is None
            if is_plain and self._format in (None, InputFormat.JSONL):
                self._stream = stream
            else:
                self._add_spooled(_STDIN, stream)
        elif path.exists() and not path.is_file() and not path.is_dir():  # a FIFO: it can be read once
            with path.open("rb") as stream:
                self._add_spooled(str(path), stream)
        else:
            self._storage.add(str(path), path)

    def _add_spooled(self, name: str, stream: BinaryIO) -> None:
        """Add a stream; the key of a compressed one has the suffix by which a file's name would tell it."""
        spooled = self._spool(stream)
        with spooled.open("rb") as file:
            compression = find_compression(file.read(MARK_SIZE))
        key = name
        if compression is not None and choose_format(name, "jsonl") == FileFormat("jsonl"):
            format = ".jsonl" if name == _STDIN and self._format is None else ""
            key = f"{name}{format}.{compression}"
        self._shown[key] = name
        self._storage.add(key, spooled)

    def _spool(self, stream: BinaryIO) -> Path:
        """Copy a stream to a temporary file: the types of columns take a pass of their own."""
        spooled = self._exit.enter_context(tempfile.NamedTemporaryFile(prefix="isthmus-"))  # noqa: SIM115 - closed by the stack
        shutil.copyfileobj(stream, spooled)
        spooled.flush()
        return Path(spooled.name)

    def _choose_format(self, file: File) -> FileFormat:
        chosen = choose_format(file.key, None if self._format is None else str(self._format))
        if chosen is None:
            raise UsageError(
                f"{file.key}: unknown suffix; use --format {', '.join(InputFormat)}"
                " (a suffix .gz or .zst may follow)"
            )
        if chosen.name == "json" and self._format is None and self._has_json_lines(file, chosen):
            return FileFormat("jsonl", chosen.compression)
        return chosen

    def _head(self, file: File, format: FileFormat) -> bytes:
        with self._storage.open(file) as stream:
            try:
                return decompress(stream, format.compression).read(_HEAD)
            except Exception as error:  # decompressors have many; the damage is reported with the rows
                if describe_damage(error) is None:
                    raise
                return b""

    def _has_json_lines(self, file: File, format: FileFormat) -> bool:
        """Return whether a file named `.json` holds an object on each of several lines."""
        first, _, rest = self._head(file, format).lstrip().partition(b"\n")
        try:
            return isinstance(orjson.loads(first), dict) and not rest.isspace() and rest != b""
        except orjson.JSONDecodeError:
            return False

    def describe_files(self) -> list[dict[str, Any]]:
        """Return the full name, the size and the version of each file, in the order given."""
        return self._storage.describe_files()

    def estimate_rows(self) -> int | None:
        """Return the number of rows of all files, by the bytes of those read; None for a pipe."""
        share = self._storage.find_share()
        return round(self._read / share) if share > 0 else None

    @property
    def reads_ahead(self) -> bool:
        """Whether the next lines can be read at any time: they do not come from a pipe."""
        return self._stream is None

    def lines(
        self, make_ids: Callable[[range], list[str]], skip: int = 0
    ) -> Iterator[InputLine | EncodedLines]:
        """Yield the lines of all files, in the order given, without the first `skip` ones.

        A record without an id gets that of `make_ids` for the number of its row over all files, from 0.
        """
        files = self._storage.list_files()
        whole = {file.key for file in files if self._is_whole(file)}
        kinds = merge_files(
            self._readers[name, False].find_kinds(
                Catalog(f for f in files if self._formats[f.key].name == name and f.key not in whole)
            )
            for name in _TABLES
            if (name, False) in self._readers
        )
        self._require_columns(kinds)
        row = 0
        for file in files:
            marked = file.key in whole
            for chunk in self._readers[self._formats[file.key].name, marked].chunks(file, kinds):
                start = max(skip, row)
                row += len(chunk)
                self._read = row
                if start < row:
                    rest = chunk.cut(chunk.first + start - (row - len(chunk)), None)
                    yield from self._convert_chunk(file, rest, make_ids(range(start, row)), whole=marked)
        if self._stream is not None:
            source = cast("BinaryIO", _Unbuffered(self._stream))
            for chunk, _ in read_json_lines(source, START):
                ids = make_ids(range(row, row + len(chunk)))
                yield from self._convert(_STDIN, chunk.enumerate_rows(), ids, whole=False)
                row += len(chunk)

    def _require_columns(self, headings: Collection[str]) -> None:
        """Raise `UsageError` if the settings give a type to a column that no file of text has."""
        missing = [name for name in self._forced if name not in headings] if headings else []
        if missing:
            hint = hint_at_nearest(missing[0], headings)
            raise UsageError(f"--types: there is no column {missing[0]!r}{hint}")

    def _is_whole(self, file: File) -> bool:
        """Return whether each row of a table is a whole record, by a mark of `dump` or by `records`."""
        format = self._formats[file.key]
        if self._plain or format.name in ("json", "jsonl"):
            return False
        if self._records:
            return True
        return self._is_dumped_csv(file, format) if format.name in _TABLES else self._is_dumped_arrow(file)

    def _is_dumped_csv(self, file: File, format: FileFormat) -> bool:
        """Return whether the first heading of a CSV file is `_id`, by which `dump` marks it."""
        text = self._head(file, format).decode("utf-8-sig", "replace")
        first: list[str] = next(csv.reader(text.splitlines(keepends=True)), [])
        return first[:1] == [ID]

    def _is_dumped_arrow(self, file: File) -> bool:
        """Return whether the columns of a Parquet file have the marks of `dump`, or are ids alone."""
        for chunk in self._readers[self._formats[file.key].name, False].chunks(file, {}):
            if not isinstance(chunk, ArrowChunk):
                return False
            marks = marks_of(chunk.schema)
            return any(b"isthmus.key" in mark for mark in marks.values()) or set(marks) <= {ID, METADATA}
        return False

    def _convert_chunk(
        self, file: File, chunk: Chunk, ids: list[str], *, whole: bool
    ) -> Iterator[InputLine | EncodedLines]:
        name = self._shown.get(file.key, file.key)
        if isinstance(chunk, ArrowChunk):
            records = None if whole else self._encode(chunk, ids)
            if records is not None:
                yield EncodedLines(records, [(0, name, chunk.line)])
            else:
                yield from self._convert(name, chunk.enumerate_rows(), ids, whole=False)
        elif isinstance(chunk, RowChunk):
            yield from self._convert(name, chunk.enumerate_rows(), ids, whole=whole)

    def _encode(self, chunk: ArrowChunk, ids: list[str]) -> EncodedRecords | None:
        """Return the records of cells of CSV, over their JSON; None if rows have to be made of them."""
        encoded = chunk.encode()
        if encoded is None:
            return None
        found: list[str] | None = ids
        if self._id_fields:
            found = encoded.ids(self._id_fields)
            try:
                found = None if found is None else check_ids(found)
            except InvalidRecordError:
                found = None
        return None if found is None else EncodedRecords(found, encoded.object_texts())

    def _convert(
        self, name: str, rows: Iterable[tuple[int, Row]], ids: list[str], *, whole: bool
    ) -> Iterator[InputLine]:
        for (number, row), id in zip(rows, ids, strict=True):
            if isinstance(row, Refusal):
                at, message = row.line or number, name_options(row.message)
                if at == 1 and name == _STDIN and self._format is None:
                    message += f"; {_NAME_FORMAT}"
                yield InputLine(name, at, error=message, row=row.row)
                continue
            try:
                yield InputLine(name, number, self._make_record(row, id, whole=whole))
            except InvalidRecordError as error:
                yield InputLine(name, number, error=str(error), row=row)

    def _make_record(self, row: dict[str, Any], own_id: str, *, whole: bool) -> Record:
        id: Any = None
        data: dict[str, Any] = row
        metadata: Any = {}
        if whole or (not self._plain and self._is_record(row)):
            id, data = row.get("id"), row["data"]
            metadata = row.get("metadata") or {}
            if not isinstance(metadata, dict):
                raise InvalidRecordError("metadata: expected an object", path="metadata")
        if self._id_fields:
            id = _find_id(data, self._id_fields)
        return Record(data, id=own_id if id is None else id, metadata=metadata)

    def _is_record(self, row: dict[str, Any]) -> bool:
        """Return whether a row is a record as `dump` writes it, or with `records` any with data."""
        if not isinstance(row.get("data"), dict) or not row.keys() <= _RECORD_KEYS:
            return False
        return self._records or row.keys() >= _MARK


class _Unbuffered:
    """A pipe whose `read` returns what has come, so that lines are written as they come."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return bytes(self._stream.read1(size))


def _peek(stream: BinaryIO) -> bytes:
    """Return the bytes with which a stream begins, and leave them in it."""
    return stream.peek(MARK_SIZE) if isinstance(stream, io.BufferedReader) else b""


def is_stdin(file: Path) -> bool:
    """Return whether a command's file is standard input."""
    return str(file) == "-"


def _find_id(data: dict[str, Any], id_fields: Sequence[str]) -> str:
    values = []
    for name in id_fields:
        value = _find_value(data, name)
        if value is ...:
            hint = hint_at_nearest(name, data)
            raise InvalidRecordError(f"there is no field {name!r} for the id{hint}", path=name)
        if value is None:
            raise InvalidRecordError(f"the field {name!r} for the id is null", path=name)
        values.append(value)
    value = values[0] if len(values) == 1 else values
    return value if isinstance(value, str) else format_json(value).decode()


def _find_value(data: dict[str, Any], name: str) -> Any:
    """Return the value of a field, or at a path with dots; `...` if there is none."""
    value: Any = data
    for key in [name] if name in data else name.split("."):
        if not isinstance(value, dict) or key not in value:
            return ...
        value = value[key]
    return value
