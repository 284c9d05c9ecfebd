"""One record as one line of JSON: an object's body, and a line of a log entry.

    {"id":…,"version":…,"created_at":…,"updated_at":…,"metadata":{…},"data":{…}}

Readable by any tool. The version is a random token that no other write has: an entity tag is of
the content, and rewriting equal content would keep it.
"""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any, NamedTuple

import orjson

from isthmus._record import Record, known
from isthmus._values import format_datetime, new_version

_KEYS = ("id", "version", "created_at", "updated_at")


def now() -> str:
    """Return the time as records hold it."""
    return format_datetime(dt.datetime.now(dt.UTC))


def token() -> str:
    """Return a version that no other write has."""
    return f"{new_version():016x}"


class Row(NamedTuple):
    """A record in the form that is written; times are RFC 3339."""

    id: str
    version: str
    created: str
    updated: str
    metadata: bytes
    data: bytes

    def line(self) -> bytes:
        """Return the JSON object, without a line break."""
        return b'{"id":%b,"version":"%b","created_at":"%b","updated_at":"%b","metadata":%b,"data":%b}' % (
            orjson.dumps(self.id),
            self.version.encode(),
            self.created.encode(),
            self.updated.encode(),
            self.metadata,
            self.data,
        )


def read(body: bytes) -> Record | None:
    """Return the record of a body; None if it is not one of ours."""
    try:
        found = orjson.loads(body)
        id, version, created, updated = [found[key] for key in _KEYS]
        data, metadata = found["data"], found["metadata"]
        if not (
            isinstance(id, str)
            and isinstance(version, str)
            and isinstance(data, dict)
            and isinstance(metadata, dict)
        ):
            return None
        return known(id, data, metadata, version, _time(created), _time(updated))
    except (ValueError, KeyError, TypeError):
        return None


def row_of(found: dict[str, Any], line: bytes) -> Row:
    """Return the row of a decoded line with the texts of metadata and data cut out of it.

    Raises KeyError or TypeError if it is not a row.
    """
    id, version, created, updated = [found[key] for key in _KEYS]
    # The id and the times before it hold no unescaped quote, so this is the key itself.
    at = line.index(b',"metadata":') + 12
    metadata = b"{}" if not found["metadata"] else orjson.dumps(found["metadata"])
    end = at + len(metadata)
    if line[at:end] == metadata and line[end : end + 8] == b',"data":':
        data = line[end + 8 : -1]
    else:  # another spelling of the same JSON
        data = orjson.dumps(found["data"])
    return Row(id, version, created, updated, metadata, data)


def record_of(row: Row) -> Record:
    """Return the record of a row, undecoded."""
    metadata = None if row.metadata == b"{}" else row.metadata
    return Record.stored(row.id, row.data, metadata, row.version, _time(row.created), _time(row.updated))


# Records of one batch have one time.
_time = functools.lru_cache(maxsize=4096)(dt.datetime.fromisoformat)
