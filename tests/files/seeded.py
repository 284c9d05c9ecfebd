"""A handle on files that tests can fill: what they store is written to a file, as `isthmus dump` would."""

from __future__ import annotations

import gzip
import io
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pyarrow

from isthmus import AsyncDatabase, Record
from isthmus._values import canonical
from isthmus.cli._formats.csv import CSVStyle, write_csv
from isthmus.cli._formats.parquet import write_parquet
from isthmus.cli._formats.spill import Spill
from tests.stores import Declared, Store

FORMATS = ("jsonl", "json", "csv", "parquet", "arrow", "jsonl.gz", "csv.zst")


class SeededFiles(AsyncDatabase):
    """Reads by the backend; `upsert_batch`, `create_batch` and `clear` write the files beside it."""

    def __init__(self, folder: Path, format: str) -> None:
        super().__init__("files", {"location": str(folder), "records": True})
        self._folder = folder
        self._format = format
        self._written: dict[str, Record] = {}

    @classmethod
    async def fresh(cls, format: str) -> SeededFiles:
        """Return a handle on a new, empty folder."""
        folder = Path(tempfile.mkdtemp(prefix=f"isthmus-{secrets.token_hex(4)}-"))
        return await cls(folder, format).connect()

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the handle and remove the folder."""
        await super().close(timeout=timeout)
        shutil.rmtree(self._folder, ignore_errors=True)

    def collection(self, name: str, *arguments: Any, **further: Any) -> Any:
        """Return the handle itself, which has the one collection."""
        return self if name == self.collection_name and not arguments else super().collection(name)

    async def upsert_batch(self, records: Iterable[Any], **options: Any) -> Any:
        """Add records, and write all of them again."""
        for one in records:
            record = Record(canonical(one.data), id=one.id, metadata=canonical(one.metadata))
            self._written[record.id or ""] = record
        (self._folder / f"records.{self._format}").write_bytes(
            contents(list(self._written.values()), self._format)
        )
        return [record.id for record in self._written.values()]

    async def create_batch(self, records: Iterable[Any], **options: Any) -> Any:
        """Add records."""
        return await self.upsert_batch(records)

    async def clear(self) -> int:
        """Remove the files."""
        count = len(self._written)
        self._written.clear()
        for file in self._folder.iterdir():
            file.unlink()
        return count


class SeededStore(Store):
    """Files of one format, named by it, as a store of the differential run."""

    async def open(self, declared: Declared | None = None) -> AsyncDatabase:
        """Return a handle on a new folder."""
        return await SeededFiles.fresh(self.name)


def contents(records: list[Record], format: str) -> bytes:
    """Return the records as a file of a format."""
    base, _, compression = format.partition(".")
    lines = [orjson.dumps({"id": one.id, "data": one.data, "metadata": one.metadata}) for one in records]
    if base == "jsonl":
        plain = b"\n".join([*lines, b""])
    elif base == "json":
        plain = b"[" + b",\n".join(lines) + b"]"
    else:
        plain = _table(records, base)
    if compression == "gz":
        return gzip.compress(plain)
    return pyarrow.compress(plain, "zstd", asbytes=True) if compression == "zst" else plain


def _table(records: list[Record], format: str) -> bytes:
    spill = Spill()
    for record in records:
        spill.add(record)
    file = io.BytesIO()
    if format in ("csv",):
        write_csv(spill, file, CSVStyle())
        spill.close()
        return file.getvalue()
    write_parquet(spill, file)
    spill.close()
    if format == "parquet":
        return file.getvalue()
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(file.getvalue()))
    file = io.BytesIO()
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()
