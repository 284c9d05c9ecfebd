"""One index as this process knows it: its mapping, how it grows, and what was written unseen."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from isthmus.backends.elasticsearch import vectors
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.config import ElasticsearchConfig, check_index
from isthmus.backends.elasticsearch.errors import failed_answer, reason_of
from isthmus.backends.elasticsearch.layout import (
    FORMAT,
    OWN_FIELDS,
    grown,
    index_body,
    mapped_types,
)
from isthmus.backends.elasticsearch.shape import Kind, Shape, Shapes, inferred
from isthmus.errors import ConfigError, UnavailableError

_ROUNDS = 5
_FOUND = frozenset({200, 404})
_PUT = frozenset({200, 400, 404})


class Index:
    """A collection's index. A mapped type never changes, so what is known stays true."""

    def __init__(self, name: str, config: ElasticsearchConfig) -> None:
        self.name = check_index(name)
        self.url = "/" + quote(name, safe="")
        self.types: dict[str, str] = {}
        self.data_shapes = Shapes("data")
        self.metadata_shapes = Shapes("metadata")
        self.fulltext = dict(config.fulltext)
        self.vectors: vectors.Vectors = config.vectors
        self._config = config
        self._beyond: set[str] = set()
        self._limit = config.field_limit
        self._loaded = False
        self._growing: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )
        # Writes of this handle, and how many of them a refresh has made visible.
        self.written = 0
        self.visible = 0

    async def ready(self, pool: ClientPool) -> None:
        """Make the index, or read its mapping, once."""
        if self._loaded:
            return
        if not await self.load(pool):
            await self._create(pool)
            if not await self.load(pool):
                raise UnavailableError(f"index {self.name}: it was made and is gone again")
        await self._add_fulltext(pool)
        self._loaded = True

    async def load(self, pool: ClientPool) -> bool:
        """Read the mapping again; return whether the index exists."""
        status, body = await pool.call("GET", self.url, doing=f"open {self.name}", told=_FOUND)
        if status == 404:
            self._loaded = False
            return False
        if len(body) != 1:
            raise ConfigError(f"elasticsearch: {self.name!r} is an alias of {len(body)} indices, not of one")
        (found,) = body.values()
        mappings = found.get("mappings", {})
        self._check_format(mappings)
        properties = mappings.get("properties", {})
        found_vectors = vectors.declared(properties)
        vectors.check(self.name, self._config.vectors, found_vectors)
        self.vectors = found_vectors
        types = mapped_types(properties) | {f"data.{name}": vectors.TYPE for name in found_vectors}
        if not self.types.keys() <= types.keys():
            self._forget()  # it was deleted and made again
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
            )

    async def _create(self, pool: ClientPool) -> None:
        if self._config.create_index == "never":
            raise ConfigError(f"elasticsearch: there is no index {self.name!r}, and create_index is 'never'")
        body = index_body(self._config)
        doing = f"create index {self.name}"
        status, answer = await pool.call("PUT", self.url, body, doing=doing, told=_PUT)
        if status == 200:
            return
        kind, reason = reason_of(answer)
        if "resource_already_exists" in kind:
            return  # another writer came first, with the same layout
        if any(sign in kind for sign in ("invalid_index_name", "illegal_argument", "validation", "settings")):
            raise ConfigError(f"elasticsearch: index {self.name!r} cannot be made: {reason}")
        raise failed_answer(status, answer, None, doing, writes=False)

    async def _add_fulltext(self, pool: ClientPool) -> None:
        wanted = {f"data.{field}": "keyword" for field in self.fulltext}
        if not wanted:
            return
        for name in wanted:
            if self.types.get(name, "keyword") != "keyword":
                raise ConfigError(f"elasticsearch: fulltext field {name!r} is {self.types[name]}, not text")
        body = {"properties": grown(wanted, self.fulltext)}
        status, answer = await pool.call(
            "PUT", f"{self.url}/_mapping", body, doing=f"map the fulltext fields of {self.name}", told=_PUT
        )
        if status != 200:
            raise ConfigError(f"elasticsearch: fulltext fields cannot be mapped: {reason_of(answer)[1]}")
        self.types.update(wanted)

    def gone(self) -> UnavailableError:
        """Return the error for an index that was deleted under us; the next call makes it again."""
        self._loaded = False
        self.types = {}
        self._forget()
        return UnavailableError(f"index {self.name} does not exist any more: somebody deleted it")

    def _forget(self) -> None:
        self._beyond.clear()
        self.data_shapes.forget()
        self.metadata_shapes.forget()

    async def verify(self, pool: ClientPool) -> None:
        """Check that the first document of a shard went into an index with our mapping.

        If somebody deletes an index under us, the server makes one by itself for the next bulk
        request, in which nothing would be exact.
        """
        known = self.types
        if not await self.load(pool):
            raise self.gone()
        if not known.keys() <= self.types.keys():
            raise self.gone()

    async def know(self, pool: ClientPool, names: Iterable[str]) -> None:
        """Read the mapping again if a field is not in it: another writer may have added it."""
        if any(name not in self.types for name in names) and not await self.load(pool):
            raise self.gone()

    def ending(self, shape: Shape) -> bytes | None:
        """Return the end of the documents of a shape; None as long as a field of it has no type."""
        if shape.suffix is None and all(name in self._beyond for name, _ in shape.missing(self.types)):
            shape.suffix = shape.ending(self.types)
        return shape.suffix

    async def prepare(self, pool: ClientPool, shapes: Iterable[Shape]) -> None:
        """Map the fields of these shapes, one for each record: each has a vote on a new field's type."""
        shapes = list(shapes)
        if any(shape.suffix is None and self.ending(shape) is None for shape in set(shapes)):
            new = [shape for shape in shapes if shape.suffix is None and self.ending(shape) is None]
            await self.grow(pool, new)

    async def grow(self, pool: ClientPool, shapes: Iterable[Shape]) -> None:
        """Map the fields of these shapes that have no type yet, as far as the limit allows."""
        loop = asyncio.get_running_loop()
        async with self._growing.setdefault(loop, asyncio.Lock()):
            shapes = list(shapes)
            for _ in range(_ROUNDS):
                new = self._new_types(shapes)
                if not new:
                    return
                await self._put(pool, new)
            # Others keep changing it faster than we can read; odd is always right.
            self._beyond.update(self._new_types(shapes))

    def _new_types(self, shapes: Iterable[Shape]) -> dict[str, str]:
        votes: dict[str, Counter[Kind]] = {}
        for shape in shapes:
            for name, kinds in shape.missing(self.types):
                if name not in self._beyond:
                    votes.setdefault(name, Counter()).update(kinds)
        new = {name: inferred(counted) for name, counted in votes.items()}
        room = self._limit - OWN_FIELDS - len(self.fulltext) - len(self.vectors) - len(self.types)
        if len(new) > room:
            names = list(new)
            self._beyond.update(names[max(room, 0) :])
            new = {name: new[name] for name in names[: max(room, 0)]}
        return new

    async def _put(self, pool: ClientPool, new: dict[str, str]) -> None:
        body = {"properties": grown(new, self.fulltext)}
        doing = f"map fields of {self.name}"
        status, _ = await pool.call("PUT", f"{self.url}/_mapping", body, doing=doing, told=_PUT)
        if status == 200:
            self.types.update(new)
            return
        if status == 404:
            raise self.gone()
        known = len(self.types)
        if not await self.load(pool):
            raise self.gone()
        if len(self.types) > known:
            return  # another writer mapped some of them, perhaps otherwise
        if len(new) == 1:
            self._beyond.update(new)  # a name or a number of fields that this server does not take
            return
        items = list(new.items())
        half = len(items) // 2
        await self._put(pool, dict(items[:half]))
        await self._put(pool, dict(items[half:]))
