"""The format of a file, by the setting or by its suffix."""

from __future__ import annotations

from typing import NamedTuple

from isthmus.backends.files.formats.compression import SUFFIXES as COMPRESSIONS

SUFFIXES = {
    ".json": "json",
    ".geojson": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}


class FileFormat(NamedTuple):
    """A format and the compression around it."""

    name: str
    compression: str | None = None


def choose_format(key: str, setting: str | None) -> FileFormat | None:
    """Return the format of a file; None if neither the setting nor the suffix tells it."""
    name = key.rpartition("/")[2].lower()
    stem, dot, suffix = name.rpartition(".")
    compression = COMPRESSIONS.get(dot + suffix) if dot else None
    if compression is not None:
        _, dot, suffix = stem.rpartition(".")
    known = SUFFIXES.get(dot + suffix) if dot else None
    chosen = setting or known
    return None if chosen is None else FileFormat(chosen, compression)
