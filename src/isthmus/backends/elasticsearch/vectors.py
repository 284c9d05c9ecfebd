"""Vector fields: kept apart from the data, so that no value at the path is ever rejected.

    {"id": …, "data": {"embedding": [0.1, …]}, "vec": {"embedding": [0.1, …]}, …}

The server rejects a document whose vector has another length or is no vector, so only a valid one is
copied into `vec`; a record with any other value is never among the nearest. The data keeps its exact
numbers, `vec` has them as 32-bit floats. Vector fields are declared when an index is created: one
added later would not find the records that are there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from isthmus._query.ast import KNN
from isthmus._values import decode
from isthmus.backends.elasticsearch.config import VectorConfig
from isthmus.errors import ConfigError, QueryError, UnsupportedError

VECTOR_ROOT = "vec"
# The type of such a path for `shape`: never exact, so that comparisons are evaluated client-side.
TYPE = "vector"
_INDEXES = {"exact": "flat", "hnsw": "hnsw"}
# The bounds of a sum of squares in 32-bit floats.
_MIN_SQUARE, _MAX_SQUARE = 1e-37, 3e38
_CANDIDATES = 10_000
_EXACT_CANDIDATES = 100

Vectors = Mapping[str, VectorConfig]


def mapping_properties(vectors: Vectors) -> dict[str, Any]:
    """Return the `properties` that hold vectors; nothing if there are none."""
    if not vectors:
        return {}
    fields = {
        name: {
            "type": "dense_vector",
            "dims": vector.dims,
            "index": True,
            "similarity": vector.similarity,
            "index_options": {"type": _INDEXES[vector.search]},
        }
        for name, vector in vectors.items()
    }
    return {VECTOR_ROOT: {"type": "object", "subobjects": False, "dynamic": False, "properties": fields}}


def read_fields(properties: Mapping[str, Any]) -> dict[str, VectorConfig]:
    """Return the vector fields of an index by their names."""
    kinds = {kind: name for name, kind in _INDEXES.items()}
    return {
        name: VectorConfig(
            dims=field["dims"],
            similarity=field.get("similarity", "cosine"),
            search=kinds.get(field.get("index_options", {}).get("type"), "hnsw"),  # type: ignore[arg-type]
        )
        for name, field in properties.get(VECTOR_ROOT, {}).get("properties", {}).items()
    }


def check_fields(index: str, wanted: Vectors, found: Vectors) -> None:
    """Raise `ConfigError` if an index does not have the vector fields that a config declares."""
    for name, vector in wanted.items():
        actual = found.get(name)
        if actual is None:
            raise ConfigError(
                f"elasticsearch: index {index!r} was created without the vector field {name!r};"
                " copy its records into a new index"
            )
        if actual != vector:
            raise ConfigError(
                f"elasticsearch: vector field {name!r} of index {index!r} is {actual!r}, not as configured"
            )


def encode(vectors: Vectors, data: bytes) -> bytes:
    """Return the vectors in encoded data, as the part of a document that follows it; empty without any."""
    decoded = decode(data)
    found = {name: value for name, vector in vectors.items() if (value := _vector(decoded, name, vector))}
    return b',"vec":' + orjson.dumps(found) if found else b""


def _vector(data: Any, name: str, vector: VectorConfig) -> list[float] | None:
    value = data
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, list) or len(value) != vector.dims:
        return None
    if any(type(number) is not float and type(number) is not int for number in value):
        return None
    square = math.fsum(number * number for number in value if abs(number) < 1e19)
    if any(abs(number) >= 1e19 for number in value) or not _MIN_SQUARE < square < _MAX_SQUARE:
        return None
    return value


def knn_clause(leaf: KNN, vectors: Vectors, filter: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `knn` part of a search."""
    name = ".".join(leaf.path.keys)
    vector = vectors.get(name) if leaf.path.root.value == "data" else None
    if vector is None:
        raise UnsupportedError(
            f"nearest() needs {name!r} in the config's vectors= when the index is created",
            capability="vectors",
        )
    if len(leaf.vector) != vector.dims:
        raise QueryError(f"nearest(): {name!r} has vectors of {vector.dims} numbers, got {len(leaf.vector)}")
    if _vector({"v": list(leaf.vector)}, "v", vector) is None:
        raise QueryError("nearest(): the vector is zero, or too large for 32-bit floats")
    candidates = _EXACT_CANDIDATES if vector.search == "exact" else 10 * leaf.k
    field = f"{VECTOR_ROOT}.{name}"
    # With a filter, 9.2 finds documents without a vector too where those with one are fewer than k.
    exists = {"exists": {"field": field}}
    return {
        "field": field,
        "query_vector": list(leaf.vector),
        "k": leaf.k,
        "num_candidates": min(max(candidates, leaf.k, _EXACT_CANDIDATES), _CANDIDATES),
        "filter": [filter, exists] if filter else [exists],
    }
