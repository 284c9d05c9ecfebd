"""`modify_in_order`, which is the meaning of modifications for backends."""

from __future__ import annotations

from isthmus import field
from isthmus._query.changes import FieldChange
from isthmus.errors import AlreadyExistsError
from isthmus.spi import Modification, Record, clash, modify_in_order, unique_of


class _UniqueRows:
    """One record; any other value clashes with that of the record `a`."""

    def record(self, id: str) -> Record | None:
        return Record.stored(id, b'{"email":"y"}', None, "1", 0, 0)

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        [unique] = unique_of([["email"]])
        raise clash(unique, "a")


def test_a_clash_names_the_record_that_has_the_value() -> None:
    """Not the one that was to be modified, as of a write."""
    change: FieldChange = field("email").set("x")

    [result] = modify_in_order(_UniqueRows(), [Modification("c", (change,))])

    assert isinstance(result, AlreadyExistsError)
    assert (result.field, result.record_id) == ("email", "a")
