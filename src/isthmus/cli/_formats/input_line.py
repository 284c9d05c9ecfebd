"""Lines of the files of `load`, and the formats: apart from the reader, which takes time to import."""

from __future__ import annotations

import enum
from typing import NamedTuple

from isthmus import Record


class InputFormat(enum.StrEnum):
    """The formats of files that are loaded."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    ARROW = "arrow"


class InputLine(NamedTuple):
    """A record of a file, or the reason why its line has none; without lines, the number of its row."""

    file: str
    number: int
    record: Record | None = None
    error: str | None = None
