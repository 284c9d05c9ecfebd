"""Record: an id, data, metadata, a version and two times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._ids import check_id
from isthmus._times import from_micros
from isthmus._values import JSON, canonical, decode, decode_numeric

if TYPE_CHECKING:
    import datetime as dt

_PENDING: Any = object()


class Record:
    """One document with its id, metadata, version and times.

    `Record(data, id=…, metadata=…)` is written; a record that was read also has `version` (an opaque
    token that changes on every write), `created_at` and `updated_at`. Attributes are read-only;
    `record["name"]`, `in`, `len`, iteration and `.get` read the data. The contents of data and
    metadata may be changed, and the record written as it is then. Two records are equal if their
    ids, data and metadata are.

    A record from a store keeps the JSON text until it is accessed, so counting, routing or copying
    records decodes nothing.
    """

    __slots__ = (
        "_created",
        "_data",
        "_decode",
        "_metadata",
        "_raw",
        "_raw_metadata",
        "_updated",
        "id",
        "version",
    )

    id: str | None
    version: str | None
    _data: Any
    _metadata: Any
    _raw: Any
    _raw_metadata: bytes | str | None
    _created: Any
    _updated: Any
    _decode: Callable[[bytes | str], Any]

    def __init__(
        self,
        data: Mapping[str, Any] | Any,
        *,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        _set_id(self, None if id is None else check_id(id))
        _set_version(self, None)
        _set_data(self, data)
        if metadata is None:
            metadata = {}
        elif not isinstance(metadata, dict):  # whose truth need not tell whether it is empty
            metadata = canonical(metadata, "metadata")
        _set_metadata(self, metadata)
        _set_raw(self, None)
        _set_raw_metadata(self, None)
        _set_created(self, None)
        _set_updated(self, None)
        _set_decode(self, decode)

    @classmethod
    def stored(
        cls,
        id: str,
        raw: bytes | str,
        raw_metadata: bytes | str | None,
        version: str | None,
        created: Any,
        updated: Any,
        decode: Callable[[bytes | str], Any] = decode,
    ) -> Record:
        """Return a record over a store's JSON text, undecoded; for backends.

        `raw` and `raw_metadata` are JSON texts (None: no metadata), times are datetimes or
        microseconds since 1970. Costs about 0.6 µs.
        """
        self = cls.__new__(cls)
        _set_id(self, id)
        _set_version(self, version)
        _set_data(self, _PENDING)
        _set_metadata(self, _PENDING)
        _set_raw(self, raw)
        _set_raw_metadata(self, raw_metadata)
        _set_created(self, created)
        _set_updated(self, updated)
        _set_decode(self, decode)
        return self

    @property
    def data(self) -> dict[str, Any]:
        """The record's own fields."""
        if self._data is _PENDING:
            _set_data(self, self._decode(self._raw))
        return self._data  # type: ignore[no-any-return]

    @property
    def _queried(self) -> dict[str, Any]:
        """The data as queries see it; of a stored value that has no JSON form they find nothing."""
        return self.data

    @property
    def metadata(self) -> dict[str, Any]:
        """Data about the record, such as its source; not part of its fields."""
        if self._metadata is _PENDING:
            raw = self._raw_metadata
            _set_metadata(self, {} if raw is None or raw in ("{}", b"{}") else self._decode(raw))
        return self._metadata  # type: ignore[no-any-return]

    @property
    def created_at(self) -> dt.datetime | None:
        """When the record was first written; None until it was stored."""
        created = self._created
        return from_micros(created) if isinstance(created, int) else created

    @property
    def updated_at(self) -> dt.datetime | None:
        """When the record was last written; None until it was stored."""
        updated = self._updated
        return from_micros(updated) if isinstance(updated, int) else updated

    @property
    def raw(self) -> tuple[bytes | None, bytes | None]:
        """The data and metadata as canonical JSON, where the store keeps our text unchanged.

        None for a part that was accessed: it may have been changed since.
        """
        if self._raw is None or self._decode is not decode:
            return None, None
        if self._data is self._metadata is _PENDING and self._raw_metadata is None:
            raw = self._raw
            return (raw if type(raw) is bytes else raw.encode()), b"{}"
        raw = self._raw if self._data is _PENDING else None
        metadata = (self._raw_metadata or b"{}") if self._metadata is _PENDING else None
        return (
            raw.encode() if isinstance(raw, str) else raw,
            metadata.encode() if isinstance(metadata, str) else metadata,
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Record's attributes are read-only; make a new Record to change {name!r}")

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return `data[key]`, or `default` if there is no such key."""
        return self.data.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def keys(self) -> Any:
        """Return the data's keys."""
        return self.data.keys()

    def items(self) -> Any:
        """Return the data's items."""
        return self.data.items()

    def values(self) -> Any:
        """Return the data's values."""
        return self.data.values()

    def __bool__(self) -> bool:
        # An empty record is a record: `if await db.get(id)` tests for existence.
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return self.id == other.id and self.data == other.data and self.metadata == other.metadata

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        metadata = f", metadata={self.metadata!r}" if self.metadata else ""
        return f"Record({self.data!r}, id={self.id!r}{metadata})"

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.id, self.data, self.metadata, self.version, self._created, self._updated)
        return _restore, state


def _setter(name: str) -> Callable[[Record, object], None]:
    """Return a slot's own setter: attributes are read-only for users, and this is faster than by name."""
    return Record.__dict__[name].__set__  # type: ignore[no-any-return]


_set_id = _setter("id")
_set_version = _setter("version")
_set_data = _setter("_data")
_set_metadata = _setter("_metadata")
_set_raw = _setter("_raw")
_set_raw_metadata = _setter("_raw_metadata")
_set_created = _setter("_created")
_set_updated = _setter("_updated")
_set_decode = _setter("_decode")


def make_record(
    id: str,
    data: Mapping[str, JSON],
    metadata: Mapping[str, JSON],
    version: str | None,
    created: dt.datetime | int | None,
    updated: dt.datetime | int | None,
) -> Record:
    """Return a stored record over decoded data; for backends."""
    record = Record.stored(id, b"", None, version, created, updated)
    _set_data(record, data)
    _set_metadata(record, metadata)
    _set_raw(record, None)
    return record


def json_text_of(record: Record) -> bytes | str | None:
    """Return the JSON text of a stored record's data; None if it was decoded or is no plain JSON.

    The text is the store's: its numbers may be written in another form than `encode` gives them.
    """
    text: bytes | str | None = record._raw
    if text is None or record._data is not _PENDING:
        return None
    return text if record._decode in (decode, decode_numeric) else None


class SelectedRecord(Record):
    """A stored record over the JSON of the selected top-level fields alone, of which nothing is to be cut."""

    __slots__ = ("fields",)

    fields: frozenset[str]

    @classmethod
    def wrap(
        cls,
        fields: frozenset[str],
        id: str,
        raw: bytes,
        version: str,
        decode: Callable[[bytes | str], Any],
    ) -> Record:
        """Return a record over the JSON text of these fields, without metadata and times."""
        self = cls.stored(id, raw, None, version, None, None, decode)
        _set_fields(self, fields)
        return self


_set_fields: Callable[[Record, frozenset[str]], None] = SelectedRecord.__dict__["fields"].__set__


def project(record: Record, data: dict[str, Any]) -> Record:
    """Return the stored record with only part of its data."""
    assert record.id is not None
    return make_record(record.id, data, record.metadata, record.version, record._created, record._updated)


def _restore(
    id: str | None,
    data: Mapping[str, Any],
    metadata: Mapping[str, Any],
    version: str | None,
    created: dt.datetime | int,
    updated: dt.datetime | int,
) -> Record:
    if id is None or version is None:
        return Record(data, id=id, metadata=metadata)
    return make_record(id, data, metadata, version, created, updated)
