"""What a write makes of the records that are there, for both layouts."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus._core.apply import merge_documents
from isthmus._core.executor import Mutation
from isthmus._record import Record
from isthmus._values import trim
from isthmus.backends.s3.envelope import Effect, RecordRow, creation_time, new_token, record_of
from isthmus.backends.s3.layout import MAX_RECORD_BYTES
from isthmus.errors import InvalidRecordError


class RowChanges:
    """The records that a write touches, as `isthmus._core.apply` reads and changes them.

    Nothing is sent: `effects` holds the rows to store, in order. `now` is the time of the write.
    """

    def __init__(self, records: Mapping[str, Record], now: str) -> None:
        self.effects: list[Effect] = []
        self._records: dict[str, Record | None] = {**records}
        self._now = now

    def version(self, id: str) -> str | None:
        """Return the version of a record; None if there is none."""
        record = self._records.get(id)
        return None if record is None else record.version

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        """Write a whole record and return its new version.

        Raises `InvalidRecordError` if data and metadata together exceed `MAX_RECORD_BYTES`.
        """
        check_size(id, data, metadata)
        old = self._records.get(id)
        created = self._now if old is None else creation_time(old)
        # The log keeps rows in memory.
        row = RecordRow(id, self.new_version(), created, self._now, trim(metadata), trim(data))
        self._records[id] = record_of(row)
        self.effects.append((id, row))
        return row.version

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        """Merge top-level keys into the record and return its new version; raises as `put` does."""
        old = self._records[id]
        assert old is not None
        return self.put(id, *merge_documents(old.data, old.metadata, data, metadata))

    def delete(self, id: str) -> None:
        """Delete a record."""
        self._records[id] = None
        self.effects.append((id, None))

    def new_version(self) -> str:
        """Return a version that no other write has."""
        return new_token()


def check_size(id: str, data: bytes, metadata: bytes) -> None:
    """Raise `InvalidRecordError` if data and metadata together exceed `MAX_RECORD_BYTES`."""
    size = len(data) + len(metadata)
    if size > MAX_RECORD_BYTES:
        raise InvalidRecordError(
            f"data: the encoded record has {size} bytes, at most {MAX_RECORD_BYTES} are stored",
            path="data",
            record_id=id,
        )


def encode_once(mutation: Mutation) -> int:
    """Encode a mutation for all attempts to write it and return its size in bytes.

    Raises `InvalidRecordError`.
    """
    mutation.raw, mutation.raw_metadata = mutation.encode(), mutation.encode_metadata()
    return len(mutation.raw) + len(mutation.raw_metadata)
