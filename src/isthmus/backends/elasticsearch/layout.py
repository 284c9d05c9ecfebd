"""The layout of an index: its mapping, the names of its fields, its documents.

    {"id": "…", "data": {…}, "metadata": {…}, "created_at": "…", "updated_at": "…",
     "odd": [fields whose values are not indexed as they are], "obj": [fields that hold an object]}

`data` keeps its natural names. A condition on a field in `odd` is evaluated client-side. A record that
the server would reject is stored as one text in `raw`, with `odd: ["*"]`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from isthmus._path import Path, Root
from isthmus._times import format_datetime
from isthmus.backends.elasticsearch import vectors
from isthmus.backends.elasticsearch.config import ElasticsearchConfig

FORMAT = 1
# The largest offset plus size of one request.
WINDOW = 100_000
EVERYWHERE = "*"
# Texts of up to this many UTF-16 units are indexed: Lucene accepts 32,766 bytes.
LONGEST_TEXT = 8191
# Characters of a Lucene regexp that our indices accept.
LONGEST_REGEXP = 9_000
# The sub-field that match() searches; a data key of this name below a full-text field stays unmapped.
FULLTEXT = "__match"
_LONGEST_NAME = 500
_LONGEST_KEY = 200
_TIME = {"type": "date_nanos"}
KEYWORD = {"type": "keyword"}
TYPES: Mapping[str, Mapping[str, Any]] = {
    "keyword": {"type": "keyword", "ignore_above": LONGEST_TEXT},
    "double": {"type": "double"},
    "long": {"type": "long"},
    "boolean": {"type": "boolean"},
}
# Fields of the layout itself, which count towards the limit; one for all vectors among them.
OWN_FIELDS = 9


def index_body(config: ElasticsearchConfig) -> dict[str, Any]:
    """Return the settings and mappings of a new index; index templates supply what the config leaves out."""
    settings: dict[str, Any] = {
        "index.mapping.ignore_malformed": True,
        "index.mapping.coerce": False,
        "index.mapping.total_fields.limit": config.field_limit,
        "index.max_regex_length": LONGEST_REGEXP + 1_000,
        "index.max_result_window": WINDOW,
        **config.settings,
    }
    chosen = {
        "index.number_of_shards": config.shards,
        "index.number_of_replicas": config.replicas,
        "index.refresh_interval": config.refresh_interval,
    }
    settings |= {name: value for name, value in chosen.items() if value is not None}
    mappings = {
        "_meta": {"isthmus": {"format": FORMAT}},
        "dynamic": False,
        "date_detection": False,
        "numeric_detection": False,
        "properties": {
            "id": KEYWORD,
            "created_at": _TIME,
            "updated_at": _TIME,
            "odd": KEYWORD,
            "obj": KEYWORD,
            "raw": {"type": "keyword", "index": False, "doc_values": False},
            **mapping_properties({}),
            **vectors.mapping_properties(config.vectors),
        },
    }
    return {"settings": settings, "mappings": mappings}


def mapping_properties(types: Mapping[str, str], fulltext: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the `properties` that map fields to types; each request has to repeat `subobjects`."""
    fields: dict[str, dict[str, Any]] = {"data": {}, "metadata": {}}
    for name, kind in types.items():
        root, _, rest = name.partition(".")
        field = dict(TYPES[kind])
        analyzer = (fulltext or {}).get(rest) if root == "data" else None
        if analyzer is not None:
            field["fields"] = {FULLTEXT: {"type": "text", "analyzer": analyzer}}
        fields[root][rest] = field
    return {
        root: {"type": "object", "subobjects": False, "dynamic": False, "properties": properties}
        for root, properties in fields.items()
    }


def read_types(properties: Mapping[str, Any]) -> dict[str, str]:
    """Return the types of the fields below `data` and `metadata` by their names."""
    types: dict[str, str] = {}
    for root in ("data", "metadata"):
        for rest, field in properties.get(root, {}).get("properties", {}).items():
            types[f"{root}.{rest}"] = field.get("type", "object")
    return types


def is_plain_key(key: str) -> bool:
    """Return whether a key can be part of a field's name unchanged."""
    return (
        len(key) <= _LONGEST_KEY
        and "." not in key
        and "*" not in key  # a wildcard in `exists`
        and bool(key.strip())
        and key != FULLTEXT
    )


def field_name(path: Path) -> str:
    """Return the name of a path's field."""
    root = "data" if path.root is Root.DATA else "metadata"
    return ".".join((root, *path.keys))


def is_plain_path(path: Path) -> bool:
    """Return whether a path's field name is unambiguous and can be mapped."""
    return all(map(is_plain_key, path.keys)) and is_short_name(field_name(path))


def is_short_name(name: str) -> bool:
    """Return whether a name is short enough for a field."""
    return len(name.encode()) <= _LONGEST_NAME


def field_mark(name: str) -> str:
    """Return the entry for a field in `odd` and `obj`: its name, or the digest of a long one."""
    if len(name) <= _LONGEST_NAME and is_short_name(name):
        return name
    return "#" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def time_text(value: dt.datetime) -> str:
    """Return a time as it is stored."""
    return format_datetime(value)


def encode_marks(unindexed: Sequence[str], objects: Sequence[str]) -> bytes:
    """Return the end of a document: its stored `odd` and `obj`."""
    text = b""
    if unindexed:
        text += b',"odd":' + orjson.dumps(list(unindexed))
    if objects:
        text += b',"obj":' + orjson.dumps(list(objects))
    return text


def document(id_json: bytes, data: bytes, metadata: bytes, times: bytes, suffix: bytes) -> bytes:
    """Return a document; all parts are JSON, `times` and `suffix` begin with a comma unless empty."""
    if metadata == b"{}":
        return b"".join((b'{"id":', id_json, b',"data":', data, times, suffix, b"}"))
    return b"".join((b'{"id":', id_json, b',"data":', data, b',"metadata":', metadata, times, suffix, b"}"))


def raw_document(id_json: bytes, data: bytes, metadata: bytes, times: bytes) -> bytes:
    """Return the document of a record that cannot be indexed: data and metadata as one text."""
    raw = orjson.dumps((b"[" + data + b"," + metadata + b"]").decode())
    return b"".join((b'{"id":', id_json, b',"raw":', raw, times, encode_marks([EVERYWHERE], []), b"}"))


def times_json(created: str, updated: str) -> bytes:
    """Return the times of a document as JSON, after a comma."""
    return f',"created_at":"{created}","updated_at":"{updated}"'.encode()


def version_of(written: Mapping[str, Any], index_uuid: str) -> str:
    """Return the version token of a hit, a document or a bulk response's item.

    Sequence numbers begin again in each index, so the token of a record names its index too: else one
    that was read before the index was remade could fit another record of the same id.
    """
    return f"{written['_seq_no']}.{written['_primary_term']}.{index_uuid}"
