"""Which records of a log have which values of unique fields; kept apart from rows, which are evicted."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus._core.unique import Unique, key_in
from isthmus._core.unique_index import Claim, UniqueIndex, claim_of
from isthmus._values import decode
from isthmus.backends.s3.envelope import Effect, RecordRow
from isthmus.errors import InvalidRecordError


class UniqueValues:
    """An index of the values in records, and the records whose rows have to be read for it.

    About 300 bytes a record and field, in addition to `log.memory_bytes`; nothing without a declaration.
    """

    def __init__(self, declared: Iterable[Unique] = ()) -> None:
        self.index = UniqueIndex(declared)
        self.unread: set[str] = set()
        """Records that were evicted when the fields were declared: their values are not known yet."""
        self.refused: dict[str, InvalidRecordError] = {}
        """Records with a value that a unique field cannot have, written before the declaration."""

    def apply(self, effects: Iterable[Effect]) -> None:
        """Note the values of records that were written or deleted."""
        if not self.index:
            return
        for id, row in effects:
            self.unread.discard(id)
            self.refused.pop(id, None)
            self.index.store(id, () if row is None else self._claims(row))

    def clear(self) -> None:
        """Forget all records."""
        self.index.clear()
        self.unread.clear()
        self.refused.clear()

    def _claims(self, row: RecordRow) -> tuple[Claim, ...]:
        data = decode(row.data)
        claims = []
        for unique in self.index.declared:
            try:
                key = key_in(data, unique)
            except InvalidRecordError as error:
                error.record_id = row.id
                self.refused[row.id] = error
                continue
            if key is not None:
                claims.append(claim_of(unique, key))
        return tuple(claims)
