"""Which columns a set of records has, found while they are put aside on disk.

CSV and Parquet have to say their columns before the first row, so records are spilled to a
temporary file in one pass and written in a second one; memory stays bounded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from isthmus import Record


@dataclass(slots=True)
class Column:
    """What the values of one top-level key are."""

    kinds: set[str] = field(default_factory=set)
    """Of bool, int, float, text, null, json."""
    count: int = 0
    wide: bool = False
    """Whether an integer is beyond what a float holds exactly."""


_KINDS = {bool: "bool", int: "int", float: "float", str: "text", type(None): "null"}


class Spill:
    """Records on disk, and their columns in the order in which they were first seen."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="isthmus-")  # noqa: SIM115 - closed by close()
        self.columns: dict[str, Column] = {}
        self.count = 0
        self.has_metadata = False

    def add(self, record: Record) -> None:
        """Put a record aside."""
        self.count += 1
        self.has_metadata = self.has_metadata or bool(record.metadata)
        for key, value in record.data.items():
            column = self.columns.get(key)
            if column is None:
                column = self.columns[key] = Column()
            column.count += 1
            column.kinds.add(_KINDS.get(type(value), "json"))
            if type(value) is int and abs(value) > 2**53:
                column.wide = True
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
