"""The footer of a Parquet file, read once for each version of the file."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from isthmus.backends.files.formats.arrow_library import arrow

_LARGE = 8 << 20
"""Bytes of a part of a column above which it is read in pieces."""
_DISTINCT = 3
"""The most bytes of a row's value in a column of few distinct ones: more says that many are stored."""


class Footer(NamedTuple):
    """The metadata of a file, and what follows from them."""

    metadata: Any
    repetitive: frozenset[str]
    """The columns of text that are stored as a few distinct values in every row group.

    They are read as those values and an index for each row: a condition looks at each value once.
    """
    has_large_parts: bool
    """Whether a part of a column is too large to be read whole."""
    indexes: dict[str, int]
    """The numbers of columns that are not nested; a column `a.b` that looks like a part of `a` has none."""
    int96: frozenset[str]
    """Those of times in 96 bits, which Arrow reads as 64 bits of nanoseconds: the years 1678 to 2262."""

    def first_rows(self) -> list[int]:
        """Return the number of the first row of each row group."""
        rows, first = [], 0
        for group in range(self.metadata.num_row_groups):
            rows.append(first)
            first += self.metadata.row_group(group).num_rows
        return rows


def describe_footer(file: Any) -> Footer:
    """Return the footer of an open `ParquetFile`."""
    types, schema, metadata = arrow().types, file.schema_arrow, file.metadata
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    once = {path for path, count in Counter(paths).items() if count == 1}
    indexes = {path: index for index, path in enumerate(paths) if path in once and path in schema.names}
    texts = {
        name: index
        for name, index in indexes.items()
        if types.is_string(schema.field(name).type) or types.is_large_string(schema.field(name).type)
    }
    large = False
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        parts = [group.column(index) for index in range(group.num_columns)]
        large = large or any(part.total_compressed_size > _LARGE for part in parts)
        if group.num_rows:
            texts = {name: index for name, index in texts.items() if _repeats(parts[index])}
    int96 = (name for name, at in indexes.items() if metadata.schema.column(at).physical_type == "INT96")
    return Footer(metadata, frozenset(texts), large, indexes, frozenset(int96))


def _repeats(part: Any) -> bool:
    return bool(part.has_dictionary_page and part.total_uncompressed_size <= _DISTINCT * part.num_values)
