"""The index of a collection as this handle knows it: its mapping, and writes not yet refreshed."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from isthmus.backends.elasticsearch import vectors
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.config import ElasticsearchConfig, check_index
from isthmus.backends.elasticsearch.errors import (
    IndexGoneError,
    IndexMissingError,
    reason_of,
    translate_response,
)
from isthmus.backends.elasticsearch.identity import (
    FoundIndex,
    alias_of,
    check_mode,
    ensure_alias,
    find_uuid,
    look_up,
    make_incarnation,
    url_of,
)
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
    """A collection's index: one incarnation of it, which is gone for good when it was deleted.

    The type of a mapped field never changes, so it is read once. `types` are the mapped types by field
    name; `url` is the path of requests to this index and no other, `name_url` that of its name, whatever
    that stands for; `written` and `visible` count this handle's writes and how many of them a refresh
    has made visible; `uuid` is the server's, of this index and no other, empty until it is loaded.
    """

    def __init__(self, name: str, config: ElasticsearchConfig) -> None:
        self.name = check_index(name)
        self.url = self.name_url = url_of(name)
        self.bulk_options = ""
        self.is_aliased = False
        self.types: dict[str, str] = {}
        self.data_shapes = ShapeCache("data")
        self.metadata_shapes = ShapeCache("metadata")
        self.fulltext = dict(config.fulltext)
        self.vectors: vectors.Vectors = config.vectors
        self.is_ready = self.is_gone = False
        self.written = 0
        self.visible = 0
        self._config = config
        # Fields that the server does not map: beyond the limit, or names that it refuses.
        self._unmappable: set[str] = set()
        self._limit = config.field_limit
        self.uuid = ""
        self._must_confirm = False
        self._mapping_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    async def ensure_ready(self, pool: ClientPool, *, create: bool) -> None:
        """Read the mapping, once; create the index if it is missing and `create` is true.

        Raises `IndexMissingError` for a missing index that is not to be created, `IndexGoneError` for one
        that was replaced since, `ConfigError` for one that isthmus did not make or that lacks what the
        config requires.
        """
        if self.is_ready:
            if self._must_confirm:
                await self._confirm(pool)
            return
        if not await self.load(pool):
            if not create:
                raise IndexMissingError(f"index {self.name} does not exist: it was deleted")
            await self._create(pool)
            if not await self.load(pool):
                raise UnavailableError(f"index {self.name} was deleted right after it was created")
        await self._map_fulltext(pool)
        self.is_ready = True

    async def load(self, pool: ClientPool) -> bool:
        """Look the name up and read the mapping; return whether there is an index.

        One request, one more for the alias; see `ensure_alias`.
        """
        found = await look_up(pool, self.name_url, self.name)
        if found is None:
            return False
        self._check_format(found.mappings)
        check_mode(found)
        alias = await ensure_alias(pool, found)
        if self.uuid not in ("", found.uuid):
            raise self.mark_gone()  # another task has opened an index that was replaced since
        self.uuid = found.uuid
        self.is_aliased = alias is not None
        self.url = url_of(alias or self.name)
        self.bulk_options = "&require_alias=true" if alias else ""
        self._must_confirm = alias is None or found.name != self.name
        self._read_mapping(found)
        return True

    async def reload(self, pool: ClientPool) -> None:
        """Read the mapping of this very index again; raises `IndexGoneError` if it is gone."""
        found = await look_up(pool, self.url, self.name)
        if found is None or found.uuid != self.uuid:
            raise self.mark_gone()
        self._read_mapping(found)

    async def _confirm(self, pool: ClientPool) -> None:
        """Check that the name still stands for this index.

        Needed before each call where the name is an alias, which may be moved while its index stays,
        and where there is no alias of our own. One small request.
        """
        if await find_uuid(pool, self.name) != self.uuid:
            raise self.mark_gone()

    async def confirm_read(self, pool: ClientPool) -> None:
        """Check that what was read was in this index; one request, none with an alias of our own.

        An index of the same name may have taken its place before the request, with other types.
        """
        if not self.is_aliased:
            await self._confirm(pool)

    def _read_mapping(self, found: FoundIndex) -> None:
        properties = found.mappings.get("properties", {})
        vector_fields = vectors.read_fields(properties)
        vectors.check_fields(self.name, self._config.vectors, vector_fields)
        self.vectors = vector_fields
        self.types = read_types(properties) | {f"data.{name}": vectors.TYPE for name in vector_fields}
        limits = found.settings.get("mapping", {})
        self._limit = int(limits.get("total_fields", {}).get("limit", 1000))

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
        aliases = {alias_of(self.name, make_incarnation()): {"is_hidden": True}}
        action = f"create index {self.name}"
        status, answer = await pool.call(
            "PUT", self.name_url, {**body, "aliases": aliases}, action=action, expected=_PUT | {403}
        )
        if status == 403:  # an alias needs more rights than an index
            status, answer = await pool.call("PUT", self.name_url, body, action=action, expected=_PUT)
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
        if status == 404:
            raise self.mark_gone()
        if status != 200:
            raise ConfigError(f"elasticsearch: fulltext fields cannot be mapped: {reason_of(answer)[1]}")
        self.types.update(types)

    def mark_gone(self) -> UnavailableError:
        """Note that this index is gone and return the error; the name is looked up for the next call."""
        self.is_gone = True
        return IndexGoneError(f"index {self.name} was deleted or replaced")

    async def confirm_write(self, pool: ClientPool) -> None:
        """Check that what was written went into this index; one request, none with an alias of our own.

        Without one, the server creates an index for a bulk request if there is none, with a mapping by
        which nothing would be exact, and another handle may have created it again with other types.
        Raises `UnavailableError` for such an index.
        """
        try:
            await self.confirm_read(pool)
        except (IndexGoneError, ConfigError):
            # Not an `IndexGoneError`: documents may be written, so the write is not repeated.
            raise UnavailableError(
                f"index {self.name} was deleted and created again during a write", applied=Applied.MAYBE
            ) from None

    async def ensure_types(self, pool: ClientPool, names: Iterable[str]) -> None:
        """Read the mapping again if it lacks one of these fields: another writer may have added it."""
        if any(name not in self.types for name in names):
            await self.reload(pool)

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
            raise self.mark_gone()
        known = len(self.types)
        await self.reload(pool)
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
