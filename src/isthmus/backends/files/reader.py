"""Reads the rows of one file, whatever its format; runs in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from isthmus._query.ast import TRUE, Predicate
from isthmus._query.find import StoppedError, check, end_turn
from isthmus._values import canonical
from isthmus.backends.files.catalog import Catalog, File, Storage
from isthmus.backends.files.facts import CACHE, FileFacts
from isthmus.backends.files.formats import arrow_file, delimited
from isthmus.backends.files.formats.arrow_chunk import ArrowChunk
from isthmus.backends.files.formats.blocks import skip
from isthmus.backends.files.formats.choose import FileFormat, choose_format
from isthmus.backends.files.formats.column_kinds import Found, merge_files
from isthmus.backends.files.formats.compression import decompress, describe_damage
from isthmus.backends.files.formats.dialect import START, Checkpoint, Dialect
from isthmus.backends.files.formats.dump import decode_cells, decode_columns
from isthmus.backends.files.formats.encoding import find_encoding, is_wide, transcode
from isthmus.backends.files.formats.json_document import DocumentError, read_document
from isthmus.backends.files.formats.json_lines import read_json_lines
from isthmus.backends.files.parallel import map_files
from isthmus.backends.files.rows import Chunk, Refusal, Row, RowChunk
from isthmus.errors import IsthmusError

_HEAD = 4
_CSV = ("csv", "tsv")
_ARROW = ("parquet", "arrow")


class Need(NamedTuple):
    """What a call needs of each row, as far as a format can leave the rest unread."""

    columns: frozenset[str] | None = None
    """The top-level columns; None for all."""
    where: Predicate = TRUE
    """A condition; rows that do not satisfy it may be left out."""


ALL = Need()


class FileReader:
    """Opens files of a storage and yields their rows in chunks."""

    def __init__(self, storage: Storage, dialect: Dialect, format: str | None) -> None:
        self.storage = storage
        self.dialect = dialect
        self._format = format

    def format_of(self, file: File) -> FileFormat | None:
        """Return the format of a file; None if it is unknown."""
        return choose_format(file.key, self._format)

    def facts_of(self, file: File) -> FileFacts:
        """Return what is known of a file."""
        return CACHE.of((self.storage.name, file, self.dialect, self._format))

    def chunks(
        self, file: File, kinds: Mapping[str, Found], start: int = 0, need: Need = ALL
    ) -> Iterator[Chunk]:
        """Yield the rows of a file from a number on, perhaps with some before it.

        What cannot be read on from somewhere is a `Refusal` in place of the rest. Raises
        `UnavailableError` if the file changed since it was listed.
        """
        facts = self.facts_of(file)
        row = 0
        line: int | None = None
        with self.storage.open(file) as stream:
            try:
                for chunk, following in self._read(file, stream, facts, kinds, start, need):
                    self.storage.check(file, stream)
                    check()
                    if isinstance(chunk, ArrowChunk):
                        end_turn()  # Arrow leaves the interpreter to others while it works
                    row = chunk.first + len(chunk)
                    line = None
                    if following is not None:
                        line = following.line
                        facts.note(following)
                    if row > start:
                        yield chunk
                self.storage.check(file, stream)  # it may end here since it was cut
                if row > 0 or start == 0:
                    facts.rows = row
            except (DocumentError, delimited.HeadingsError, UnicodeError) as error:
                self.storage.check(file, stream)
                yield RowChunk(row, [Refusal(str(error), getattr(error, "line", None))])
            except Exception as error:  # decompressors and pyarrow have many
                damage = self._damage(file, error)
                if damage is None:
                    raise
                self.storage.check(file, stream)
                yield RowChunk(row, [Refusal(damage, line)])

    def _damage(self, file: File, error: Exception) -> str | None:
        """Return what is wrong with a file; None if the error is about something else."""
        if isinstance(error, IsthmusError | StoppedError):
            return None
        format = self.format_of(file)
        if format is not None and format.name in _ARROW:
            return arrow_file.describe_damage(error)
        return describe_damage(error)

    def _read(
        self,
        file: File,
        stream: BinaryIO,
        facts: FileFacts,
        kinds: Mapping[str, Found],
        start: int,
        need: Need,
    ) -> Iterator[tuple[Chunk, Checkpoint | None]]:
        format = self.format_of(file)
        assert format is not None
        if format.name in _CSV:
            layout = self._layout(stream, facts, format)
            source, checkpoint = self._source(stream, format, layout.encoding, facts, start, layout.start)
            for cells, following in delimited.read_delimited(source, layout, kinds, self.dialect, checkpoint):
                yield (_map_rows(cells, _take_record) if self.dialect.records else cells), following
        elif format.name == "jsonl":
            source, checkpoint = self._source(stream, format, "utf-8", facts, start, START)
            yield from read_json_lines(source, checkpoint)
        elif format.name in _ARROW:
            yield from ((chunk, None) for chunk in self._read_arrow(stream, format, facts, start, need))
        else:
            plain = decompress(stream, format.compression)
            geojson = ".geojson" in file.key.lower()
            for chunk in read_document(plain, self.dialect.path, geojson=geojson):
                yield chunk, None

    def _read_arrow(
        self, stream: BinaryIO, format: FileFormat, facts: FileFacts, start: int, need: Need
    ) -> Iterator[Chunk]:
        if format.compression is not None:
            raise DocumentError(f"{format.name} in {format.compression} is not read: unpack it")
        need = ALL if self.dialect.records else need
        if format.name == "arrow":
            for chunk in arrow_file.read_arrow(stream, self.dialect, need.columns):
                yield self._whole_records(chunk)
            return
        found = arrow_file.read_parquet(stream, facts.footer, self.dialect, start, need.columns, need.where)
        for chunk, facts.footer in found:
            yield self._whole_records(chunk)

    def _whole_records(self, chunk: ArrowChunk) -> Chunk:
        """Return the rows as records where each is one."""
        if not self.dialect.records:
            return chunk
        marks = arrow_file.marks_of(chunk.schema)

        def convert(row: dict[str, Any]) -> Row:
            return _make_record(*decode_columns(row, marks))

        return RowChunk(chunk.first, chunk.rows()).map(convert)

    def count_rows(self, file: File) -> int | None:
        """Return the number of rows where a format states it; None if they have to be read."""
        format = self.format_of(file)
        if format is None or format != FileFormat("parquet"):
            return None
        facts = self.facts_of(file)
        if facts.footer is None:
            with self.storage.open(file) as stream:
                try:
                    facts.footer = arrow_file.read_footer(stream)
                except Exception as error:  # pyarrow has many; a scan reports it
                    if isinstance(error, IsthmusError) or arrow_file.describe_damage(error) is None:
                        raise
                    return None
                self.storage.check(file, stream)
        return int(facts.footer.metadata.num_rows)

    def find_rows(self, file: File, kinds: Mapping[str, Found]) -> int:
        """Return the number of rows; reads a file to its end where nothing states it."""
        stated = self.count_rows(file)
        if stated is not None:
            return stated
        facts = self.facts_of(file)
        if facts.rows is None:
            return sum(len(chunk) for chunk in self.chunks(file, kinds, need=Need(frozenset())))
        return facts.rows

    def is_csv(self, file: File) -> bool:
        """Return whether the types of a file's columns are found by reading it."""
        format = self.format_of(file)
        return format is not None and format.name in _CSV

    def _source(
        self,
        stream: BinaryIO,
        format: FileFormat,
        encoding: str,
        facts: FileFacts,
        start: int,
        first: Checkpoint,
    ) -> tuple[BinaryIO, Checkpoint]:
        """Return the text of a file at the last known place before a row, and that place."""
        checkpoint = facts.nearest(start) or first
        stream.seek(0)
        wide = is_wide(encoding)
        source = transcode(decompress(stream, format.compression), encoding)
        skip(source, checkpoint.offset, seekable=format.compression is None and not wide)
        return source, checkpoint

    def _layout(self, stream: BinaryIO, facts: FileFacts, format: FileFormat) -> delimited.CsvLayout:
        if facts.layout is None:
            plain = decompress(stream, format.compression)
            encoding = find_encoding(plain.read(_HEAD), self.dialect.encoding)
            stream.seek(0)
            source = transcode(decompress(stream, format.compression), encoding)
            facts.layout = delimited.find_layout(source, encoding, self.dialect, tabs=format.name == "tsv")
        return facts.layout

    # The types of columns

    def find_kinds(self, catalog: Catalog) -> dict[str, Found]:
        """Return the types of the columns of all CSV files; reads those that are new at this version."""
        if self.dialect.all_text:
            return {}
        tables = [file for file in catalog.files if self.is_csv(file)]
        known = [self.facts_of(file).kinds for file in tables]
        if None not in known:
            return merge_files(kinds for kinds in known if kinds is not None)
        return merge_files(map_files(tables, lambda index: self._kinds_of(tables[index])))

    def _kinds_of(self, file: File) -> dict[str, Found]:
        facts, format = self.facts_of(file), self.format_of(file)
        assert format is not None
        if facts.kinds is not None:
            return facts.kinds
        kinds: dict[str, Found] = {}
        with self.storage.open(file) as stream:
            try:
                layout = self._layout(stream, facts, format)
                kinds = dict.fromkeys(layout.headings, "empty")
                source, _ = self._source(stream, format, layout.encoding, facts, 0, layout.start)
                for found, following in delimited.find_kinds(source, layout, self.dialect):
                    kinds = found
                    check()
                    if following is not None:
                        facts.note(following)
            except (delimited.HeadingsError, UnicodeError):
                pass  # reported when the rows are read
            except Exception as error:  # as in `chunks`
                if self._damage(file, error) is None:
                    raise
            self.storage.check(file, stream)
        facts.kinds = kinds
        return kinds


def _map_rows(chunk: Chunk, convert: Callable[[dict[str, Any]], Row]) -> RowChunk:
    if isinstance(chunk, ArrowChunk):
        pairs = list(chunk.enumerate_rows())
        chunk = RowChunk(chunk.first, [row for _, row in pairs], [line for line, _ in pairs])
    assert isinstance(chunk, RowChunk)
    return chunk.map(convert)


def _take_record(cells: dict[str, Any]) -> Row:
    """Return a row of CSV that `isthmus dump` wrote as a record."""
    return _make_record(*decode_cells(cells))


def _make_record(id: Any, data: dict[str, Any], metadata: dict[str, Any]) -> Row:
    return {"id": id, "data": canonical(data), "metadata": canonical(metadata)}
