"""The index of a collection as this handle knows it: its mapping, and writes not yet refreshed."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from isthmus.backends.elasticsearch import vectors
from isthmus.backends.elasticsearch.client import FOUND, ClientPool
from isthmus.backends.elasticsearch.config import ElasticsearchConfig, check_index
from isthmus.backends.elasticsearch.errors import IndexMissingError, reason_of, translate_response
from isthmus.backends.elasticsearch.layout import (
    FORMAT,
    OWN_FIELDS,
    index_body,
    mapping_properties,
    read_types,
)
from isthmus.backends.elasticsearch.shape import RecordShape, ShapeCache, ValueKind, infer_type
from isthmus.errors import Applied, ConfigError, UnavailableError

_ROUNDS = 5
_PUT = frozenset({200, 400, 404})
# Parts of the error types of an index whose name or settings the server does not accept.
_BAD_SETTINGS = ("invalid_index_name", "illegal_argument", "validation", "settings")


class CollectionIndex:
    """A collection's index. The type of a mapped field never changes, so it is read once.

    `types` are the mapped types by field name; `written` and `visible` count this handle's writes and
    how many of them a refresh has made visible.
    """

    def __init__(self, name: str, config: ElasticsearchConfig) -> None:
        self.name = check_index(name)
        self.url = "/" + quote(name, safe="")
        self.types: dict[str, str] = {}
        self.data_shapes = ShapeCache("data")
        self.metadata_shapes = ShapeCache("metadata")
        self.fulltext = dict(config.fulltext)
        self.vectors: vectors.Vectors = config.vectors
        self.is_ready = False
        self.written = 0
        self.visible = 0
        self._config = config
        # Fields that the server does not map: beyond the limit, or names that it refuses.
        self._unmappable: set[str] = set()
        self._limit = config.field_limit
        self._mapping_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    async def ensure_ready(self, pool: ClientPool, *, create: bool) -> None:
        """Read the mapping, once; create the index if it is missing and `create` is true.

        Raises `IndexMissingError` for a missing index that is not to be created, `ConfigError` for
        one that isthmus did not make or that lacks what the config requires.
        """
        if self.is_ready:
            return
        if not await self.load(pool):
            if not create:
                raise self.mark_missing()
            await self._create(pool)
            if not await self.load(pool):
                raise UnavailableError(f"index {self.name} was deleted right after it was created")
        await self._map_fulltext(pool)
        self.is_ready = True

    async def load(self, pool: ClientPool) -> bool:
        """Read the mapping again; return whether the index exists."""
        status, body = await pool.call("GET", self.url, action=f"open {self.name}", expected=FOUND)
        if status == 404:
            self.is_ready = False
            return False
        if len(body) != 1:
            raise ConfigError(f"elasticsearch: {self.name!r} is an alias of {len(body)} indices, not of one")
        (found,) = body.values()
        mappings = found.get("mappings", {})
        self._check_format(mappings)
        properties = mappings.get("properties", {})
        vector_fields = vectors.read_fields(properties)
        vectors.check_fields(self.name, self._config.vectors, vector_fields)
        self.vectors = vector_fields
        types = read_types(properties) | {f"data.{name}": vectors.TYPE for name in vector_fields}
        if not self.types.keys() <= types.keys():
            self._forget_shapes()  # it was deleted and created again
        self.types = types
        settings = found.get("settings", {}).get("index", {}).get("mapping", {})
        self._limit = int(settings.get("total_fields", {}).get("limit", 1000))
        return True

    def _check_format(self, mappings: Mapping[str, Any]) -> None:
        ours = mappings.get("_meta", {}).get("isthmus")
        if not isinstance(ours, Mapping):
            raise ConfigError(
                f"elasticsearch: index {self.name!r} was not made by isthmus: answers could not be exact"
            )
        if ours.get("format", 0) > FORMAT:
            raise ConfigError(
                f"elasticsearch: index {self.name!r} has format {ours['format']}; {FORMAT} is the newest"
                " that this version reads"
            )

    async def _create(self, pool: ClientPool) -> None:
        if self._config.create_index == "never":
            raise ConfigError(f"elasticsearch: there is no index {self.name!r}, and create_index is 'never'")
        body = index_body(self._config)
        action = f"create index {self.name}"
        status, answer = await pool.call("PUT", self.url, body, action=action, expected=_PUT)
        if status == 200:
            return
        kind, reason = reason_of(answer)
        if "resource_already_exists" in kind:
            return  # another writer came first, with the same layout
        if any(sign in kind for sign in _BAD_SETTINGS):
            raise ConfigError(f"elasticsearch: index {self.name!r} cannot be created: {reason}")
        raise translate_response(status, answer, None, action, writes=False)

    async def _map_fulltext(self, pool: ClientPool) -> None:
        types = {f"data.{field}": "keyword" for field in self.fulltext}
        if not types:
            return
        for name in types:
            if self.types.get(name, "keyword") != "keyword":
                raise ConfigError(f"elasticsearch: fulltext field {name!r} is {self.types[name]}, not text")
        status, answer = await self._put_properties(pool, types, f"map the fulltext fields of {self.name}")
        if status != 200:
            raise ConfigError(f"elasticsearch: fulltext fields cannot be mapped: {reason_of(answer)[1]}")
        self.types.update(types)

    def mark_missing(self) -> UnavailableError:
        """Note that the index was deleted and return the error; the next write creates it again."""
        self.is_ready = False
        self.types = {}
        self._forget_shapes()
        return IndexMissingError(f"index {self.name} does not exist: it was deleted")

    def _forget_shapes(self) -> None:
        self._unmappable.clear()
        self.data_shapes.forget()
        self.metadata_shapes.forget()

    async def verify_identity(self, pool: ClientPool) -> None:
        """Check that the first document of a shard went into an index with our mapping.

        The server creates an index for a bulk request if there is none, with a mapping by which
        nothing would be exact. Raises `ConfigError` for such an index, `UnavailableError` for one of
        ours that lacks fields which this handle had mapped.
        """
        known = self.types
        found = await self.load(pool)
        if not found or not known.keys() <= self.types.keys():
            self.mark_missing()
            # Not an `IndexMissingError`: documents may be written, so the write is not repeated.
            raise UnavailableError(
                f"index {self.name} was deleted and created again during a write", applied=Applied.MAYBE
            )

    async def ensure_types(self, pool: ClientPool, names: Iterable[str]) -> None:
        """Read the mapping again if it lacks one of these fields: another writer may have added it."""
        if any(name not in self.types for name in names) and not await self.load(pool):
            raise self.mark_missing()

    def suffix_of(self, shape: RecordShape) -> bytes | None:
        """Return the end of the documents of a shape; None as long as one of its fields may be mapped."""
        if shape.suffix is None and all(name in self._unmappable for name, _ in shape.new_fields(self.types)):
            shape.suffix = shape.encode_suffix(self.types)
        return shape.suffix

    async def ensure_mapped(self, pool: ClientPool, shapes: Iterable[RecordShape]) -> None:
        """Map the fields of these shapes, one for each record, as far as the limit allows.

        Each record has a vote on the type of a new field.
        """
        shapes = list(shapes)
        if not any(shape.suffix is None and self.suffix_of(shape) is None for shape in set(shapes)):
            return
        shapes = [shape for shape in shapes if shape.suffix is None and self.suffix_of(shape) is None]
        loop = asyncio.get_running_loop()
        async with self._mapping_locks.setdefault(loop, asyncio.Lock()):
            for _ in range(_ROUNDS):
                new = self._new_types(shapes)
                if not new:
                    return
                await self._put_mapping(pool, new)
            # Others change it faster than we can read it; a field without a type is always right.
            self._unmappable.update(self._new_types(shapes))

    def _new_types(self, shapes: Iterable[RecordShape]) -> dict[str, str]:
        """Return types for the fields that have none yet, as many as the limit allows."""
        votes: dict[str, Counter[ValueKind]] = {}
        for shape in shapes:
            for name, kinds in shape.new_fields(self.types):
                if name not in self._unmappable:
                    votes.setdefault(name, Counter()).update(kinds)
        new = {name: infer_type(counted) for name, counted in votes.items()}
        room = self._limit - OWN_FIELDS - len(self.fulltext) - len(self.vectors) - len(self.types)
        if len(new) > room:
            names = list(new)
            self._unmappable.update(names[max(room, 0) :])
            new = {name: new[name] for name in names[: max(room, 0)]}
        return new

    async def _put_mapping(self, pool: ClientPool, new: dict[str, str]) -> None:
        status, _ = await self._put_properties(pool, new, f"map fields of {self.name}")
        if status == 200:
            self.types.update(new)
            return
        if status == 404:
            raise self.mark_missing()
        known = len(self.types)
        if not await self.load(pool):
            raise self.mark_missing()
        if len(self.types) > known:
            return  # another writer mapped some of them, perhaps with other types
        if len(new) == 1:
            self._unmappable.update(new)  # a name or a number of fields that this server refuses
            return
        items = list(new.items())
        half = len(items) // 2
        await self._put_mapping(pool, dict(items[:half]))
        await self._put_mapping(pool, dict(items[half:]))

    async def _put_properties(
        self, pool: ClientPool, types: Mapping[str, str], action: str
    ) -> tuple[int, Any]:
        body = {"properties": mapping_properties(types, self.fulltext)}
        return await pool.call("PUT", f"{self.url}/_mapping", body, action=action, expected=_PUT)
