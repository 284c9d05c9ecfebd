"""Records as hits of an answer: only what somebody looks at is computed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from isthmus._record import Record, _set_data, _set_id, decoded_record
from isthmus._values import decode
from isthmus.backends.elasticsearch.layout import version_of

_time = dt.datetime.fromisoformat


class StoredRecord(Record):
    """A record over a hit, which the client has decoded already; made in a third of a microsecond.

    What its parent keeps in slots is read from the hit on demand.
    """

    __slots__ = ("_hit",)

    _hit: Any
    _raw = None

    # mypy: these are attributes of the parent, which nobody may set either.
    @property
    def version(self) -> str:  # type: ignore[override]
        """A token that changes on every write."""
        return version_of(self._hit)

    @property
    def _metadata(self) -> dict[str, Any]:
        source: dict[str, Any] = self._hit["_source"]
        # One object for all looks, as of a record that holds it.
        metadata: dict[str, Any] = source.get("metadata") or source.setdefault("metadata", {})
        return metadata

    @property
    def _created(self) -> dt.datetime:
        return _time(self._hit["_source"]["created_at"])

    @property
    def _updated(self) -> dt.datetime:
        return _time(self._hit["_source"]["updated_at"])


_set_hit: Callable[[Record, object], None] = StoredRecord.__dict__["_hit"].__set__


def contents(source: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a document's data and metadata."""
    raw = source.get("raw")
    if raw is not None:
        data, metadata = decode(raw)
        return data, metadata
    return source["data"], source.get("metadata") or {}


def record_of(hit: Mapping[str, Any]) -> Record:
    """Return the record of a hit."""
    return records_of((hit,))[0]


def records_of(hits: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return the records of hits."""
    found: list[Record] = []
    new, add = StoredRecord.__new__, found.append
    for hit in hits:
        source = hit["_source"]
        if "raw" in source:
            add(_whole(hit, source))
            continue
        record = new(StoredRecord)
        _set_id(record, source["id"])
        _set_data(record, source["data"])
        _set_hit(record, hit)
        add(record)
    return found


def _whole(hit: Mapping[str, Any], source: Mapping[str, Any]) -> Record:
    """Return the record of a document that holds its JSON as one text."""
    data, metadata = contents(source)
    times = _time(source["created_at"]), _time(source["updated_at"])
    return decoded_record(source["id"], data, metadata, version_of(hit), *times)
