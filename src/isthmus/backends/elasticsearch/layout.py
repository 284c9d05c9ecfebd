"""The index's layout: names of fields, the documents, and records read back.

    {"id": "…", "data": {…}, "metadata": {…}, "created_at": "…", "updated_at": "…",
     "odd": [names of fields that must be judged on our side], "obj": [names where an object is found]}

`data` keeps its natural names. A record that the server would refuse is whole in `raw`, as text,
with `odd: ["*"]`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from isthmus._path import Path, Root
from isthmus._values import format_datetime
from isthmus.backends.elasticsearch import vectors
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.pattern import LONGEST_REGEXP

FORMAT = 1
# How far offset and size reach in one request.
WINDOW = 100_000
EVERYWHERE = "*"
# Texts up to this many UTF-16 units are indexed: 32,766 bytes is what Lucene takes.
LONGEST_TEXT = 8191
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
    """Return the settings and mappings of a new index; templates decide what the config leaves open."""
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
            **grown({}),
            **vectors.mapping(config.vectors),
        },
    }
    return {"settings": settings, "mappings": mappings}


def grown(types: Mapping[str, str], fulltext: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the `properties` that add fields by their names; `subobjects` must be said each time."""
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


def mapped_types(properties: Mapping[str, Any]) -> dict[str, str]:
    """Return the types of the fields below `data` and `metadata` by their names."""
    types: dict[str, str] = {}
    for root in ("data", "metadata"):
        for rest, field in properties.get(root, {}).get("properties", {}).items():
            types[f"{root}.{rest}"] = field.get("type", "object")
    return types


def plain(key: str) -> bool:
    """Return whether a key is one part of a field's name as it stands."""
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


def is_plain(path: Path) -> bool:
    """Return whether a path's name stands for this path alone and may be mapped."""
    return all(map(plain, path.keys)) and short(field_name(path))


def short(name: str) -> bool:
    """Return whether a name may be that of a field."""
    return len(name.encode()) <= _LONGEST_NAME


def mark(name: str) -> str:
    """Return what stands for a field in `odd` and `obj`; a long name by its digest."""
    if len(name) <= _LONGEST_NAME and short(name):
        return name
    return "#" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def time_text(value: dt.datetime) -> str:
    """Return a time as it is stored."""
    return format_datetime(value)


def marks(odd: Sequence[str], obj: Sequence[str]) -> bytes:
    """Return the end of a document that names its odd fields and its objects."""
    text = b""
    if odd:
        text += b',"odd":' + orjson.dumps(list(odd))
    if obj:
        text += b',"obj":' + orjson.dumps(list(obj))
    return text


def document(identity: bytes, data: bytes, metadata: bytes, times: bytes, marked: bytes) -> bytes:
    """Return a document's JSON; the id is JSON already, `times` begins with a comma."""
    if metadata == b"{}":
        return b"".join((b'{"id":', identity, b',"data":', data, times, marked, b"}"))
    return b"".join((b'{"id":', identity, b',"data":', data, b',"metadata":', metadata, times, marked, b"}"))


def whole_document(identity: bytes, data: bytes, metadata: bytes, times: bytes) -> bytes:
    """Return the document of a record that cannot be indexed: its JSON as one text."""
    raw = orjson.dumps((b"[" + data + b"," + metadata + b"]").decode())
    return b"".join((b'{"id":', identity, b',"raw":', raw, times, marks([EVERYWHERE], []), b"}"))


def times_json(created: str, updated: str) -> bytes:
    """Return the two times of a document."""
    return f',"created_at":"{created}","updated_at":"{updated}"'.encode()


def version_of(hit: Mapping[str, Any]) -> str:
    """Return the version token of an answer's document."""
    return f"{hit['_seq_no']}.{hit['_primary_term']}"
