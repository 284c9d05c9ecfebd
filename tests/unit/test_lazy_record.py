"""A record over a store's row behaves as any other record."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
from typing import Any

import pytest

from isthmus import Record
from isthmus._core.lazy_record import LazyRecord, row_field


class TextRecord(LazyRecord):
    """A record over a tuple that holds JSON texts."""

    __slots__ = ()

    @row_field
    def id(self) -> Any:
        return self._row[0]

    @row_field
    def version(self) -> str:
        return str(self._row[3])

    @row_field
    def _raw(self) -> Any:
        return self._row[1]

    @row_field
    def _raw_metadata(self) -> Any:
        return self._row[2]

    @row_field
    def _created(self) -> int:
        return 0

    @row_field
    def _updated(self) -> int:
        return 1_000_000


class DecodedRecord(LazyRecord):
    """A record over a dict that a client has decoded."""

    __slots__ = ()
    _raw = None

    @row_field
    def id(self) -> Any:
        return self._row["id"]

    version = row_field(lambda record: "1")
    _created = _updated = row_field(lambda record: 0)

    @row_field
    def _data(self) -> Any:
        return self._row["data"]

    @row_field
    def _metadata(self) -> Any:
        return self._row["metadata"]


def text_record() -> Record:
    return TextRecord.wrap([("a", b'{"n":1}', b'{"m":2}', 7)])[0]


def test_every_attribute_is_read_from_the_row() -> None:
    """A lazy record answers as the record that was written."""
    record = text_record()

    assert (record.id, record.version) == ("a", "7")
    assert (record.data, record.metadata) == ({"n": 1}, {"m": 2})
    assert record.created_at == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert record.updated_at == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)
    assert record == Record({"n": 1}, id="a", metadata={"m": 2})


def test_decoded_fields_are_kept() -> None:
    """What a reader changes in data or metadata stays changed."""
    record = text_record()

    record.data["n"] = 2
    record.metadata["m"] = 3

    assert (record.data, record.metadata) == ({"n": 2}, {"m": 3})


def test_the_text_is_passed_on_until_its_field_is_read() -> None:
    """`raw` has the stored text of each field that nobody can have changed."""
    untouched, read_data, read_metadata = text_record(), text_record(), text_record()

    assert read_data.data
    assert read_metadata.metadata

    assert untouched.raw == (b'{"n":1}', b'{"m":2}')
    assert read_data.raw == (None, b'{"m":2}')
    assert read_metadata.raw == (b'{"n":1}', None)


def test_metadata_can_be_read_after_the_text() -> None:
    """Looking at `raw` first changes nothing."""
    record = text_record()

    assert record.raw[1] == b'{"m":2}'

    assert record.metadata == {"m": 2}


def test_rows_that_are_decoded_already_are_shared() -> None:
    """A client's own objects are the record's data and metadata, without a copy."""
    row = {"id": "b", "data": {"n": 1}, "metadata": {}}
    record = DecodedRecord.wrap([row])[0]

    record.data["n"] = 2

    assert record.data is row["data"]
    assert record == Record({"n": 2}, id="b")
    assert record.raw == (None, None)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda record: pickle.loads(pickle.dumps(record))])
def test_a_copy_is_a_record_of_its_own(duplicate: Any) -> None:
    """Copying and pickling give a plain record with the same contents."""
    record = text_record()

    other = duplicate(record)

    assert other == record
    assert (other.version, other.created_at) == (record.version, record.created_at)


@pytest.mark.parametrize("name", ["id", "version", "data", "_row"])
def test_attributes_cannot_be_set(name: str) -> None:
    """A lazy record is as read-only as any other."""
    with pytest.raises(AttributeError):
        setattr(text_record(), name, "8")
