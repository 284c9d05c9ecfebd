"""Records in a temporary file, and the columns that a table of them needs.

CSV and Parquet name their columns before the first row. So the records are spilled to disk in one
pass and written in a second one, in bounded memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import orjson

from isthmus import Record
from isthmus.backends.files.formats.dump import ID, METADATA
from isthmus.cli._formats.column_type import ColumnType

__all__ = ["ID", "METADATA", "Spill"]


class Spill:
    """Records on disk; `columns` are their keys in the order of first appearance."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="isthmus-")  # noqa: SIM115 - closed by close()
        self.columns: dict[str, ColumnType] = {}
        self.count = 0
        self.has_metadata = False

    def add(self, record: Record) -> None:
        """Append a record."""
        self.count += 1
        self.has_metadata = self.has_metadata or bool(record.metadata)
        for key, value in record.data.items():
            column = self.columns.get(key)
            if column is None:
                column = self.columns[key] = ColumnType()
            column.add(value)
        self._file.write(orjson.dumps([record.id, record.data, record.metadata]) + b"\n")

    def rows(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield id, data and metadata of each record."""
        self._file.seek(0)
        for line in self._file:
            id, data, metadata = orjson.loads(line)
            yield id, data, metadata

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
