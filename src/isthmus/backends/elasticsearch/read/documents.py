"""Documents by id, in real time, and records over the hits of a response."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from isthmus._core.lazy_record import LazyRecord, _set_row, row_field
from isthmus._record import Record, _set_data, _set_id
from isthmus._values import decode
from isthmus.backends.elasticsearch.client import FOUND, ClientPool
from isthmus.backends.elasticsearch.errors import invalid_response_error, translate_response
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.layout import version_of

_READ_SIZE = 1_000
_READS_IN_FLIGHT = 2
_time = dt.datetime.fromisoformat


async def get_many(
    pool: ClientPool, index: CollectionIndex, ids: Sequence[str], *, only: str | None = None
) -> list[dict[str, Any] | None]:
    """Return the documents of these ids in order, None where there is none; in real time.

    Costs a request for each 1,000 ids. `only` names the single field of `_source` that is needed.
    """
    target = f"{index.url}/_mget" + (f"?_source_includes={only}" if only else "")
    action = f"get from {index.name}"

    async def get_chunk(chunk: Sequence[str]) -> list[dict[str, Any] | None]:
        status, body = await pool.call("POST", target, {"ids": chunk}, action=action, expected=FOUND)
        if status == 404:
            raise index.mark_gone()
        if len(body["docs"]) != len(chunk):
            problem = f"it has {len(body['docs'])} documents of {len(chunk)}"
            raise invalid_response_error(action, problem, writes=False)
        for document in body["docs"]:
            if "error" in document:
                error = document["error"]
                if "index_not_found" in str(error.get("type")):
                    raise index.mark_gone()
                raise translate_response(503, {"error": error}, None, action, writes=False)
        return [document if document["found"] else None for document in body["docs"]]

    if len(ids) <= _READ_SIZE:
        return await get_chunk(list(ids)) if ids else []
    chunks = [list(ids[start : start + _READ_SIZE]) for start in range(0, len(ids), _READ_SIZE)]
    documents: list[dict[str, Any] | None] = []
    for start in range(0, len(chunks), _READS_IN_FLIGHT):
        for found in await asyncio.gather(*map(get_chunk, chunks[start : start + _READS_IN_FLIGHT])):
            documents += found
    return documents


class IndexRecord(LazyRecord):
    """A record over a hit of one index, which the client has decoded already."""

    __slots__ = ("_index_uuid",)
    _index_uuid: str
    _raw = None
    version = row_field(lambda self: version_of(self._row, self._index_uuid))


set_index_uuid: Callable[[Record, str], None] = IndexRecord.__dict__["_index_uuid"].__set__


class HitRecord(IndexRecord):
    """A record of ours over a hit; its id and data are set at once."""

    __slots__ = ()
    _metadata = row_field(lambda self: self._row["_source"].setdefault("metadata", {}))
    _created = row_field(lambda self: _time(self._row["_source"]["created_at"]))
    _updated = row_field(lambda self: _time(self._row["_source"]["updated_at"]))


def records_of(hits: Iterable[Mapping[str, Any]], index_uuid: str) -> list[Record]:
    """Return the records of an index's hits; nothing is decoded but a record that is stored as text."""
    records: list[Record] = []
    new, add = HitRecord.__new__, records.append
    for hit in hits:
        source = hit["_source"]
        if "raw" in source:
            source["data"], source["metadata"] = decode(source["raw"])
        record = new(HitRecord)
        _set_id(record, source["id"])
        _set_data(record, source["data"])
        _set_row(record, hit)
        set_index_uuid(record, index_uuid)
        add(record)
    return records


def contents(source: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a document's data and metadata."""
    if "raw" in source:
        data, metadata = decode(source["raw"])
        return data, metadata
    return source["data"], source.get("metadata", {})
