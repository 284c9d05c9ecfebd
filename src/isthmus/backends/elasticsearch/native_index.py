"""An index that others made, as this process knows it: read, never changed."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.native_compile import NativeCompiler
from isthmus.backends.elasticsearch.native_fields import Field, fields_of
from isthmus.errors import ConfigError, UnavailableError

_FOUND = frozenset({200, 404})
_WINDOW = 10_000
# How long a mapping is relied on, in seconds.
_FRESH = 30.0


class NativeIndex(Index):
    """Its mapping is read when the collection is opened, and again for a field it did not have."""

    def __init__(self, name: str, config: ElasticsearchConfig) -> None:
        super().__init__(name, config)
        self.fields: dict[str, Field] = {}
        self.shards = 1
        self.window = _WINDOW
        self._named = self.url
        self._read_at = -_FRESH
        self._approximate = config.approximate

    @property
    def compiler(self) -> NativeCompiler:
        """The compiler for the mapping as it is known now."""
        return NativeCompiler(self.fields, approximate=self._approximate)

    async def ready(self, pool: ClientPool) -> None:
        """Read the mapping, once."""
        if not self._loaded:
            if not await self.load(pool):
                raise ConfigError(f"elasticsearch: there is no index {self.name!r} to read as it is")
            self._loaded = True

    async def load(self, pool: ClientPool) -> bool:
        """Read the mapping again; return whether the index exists."""
        status, body = await pool.call("GET", self._named, doing=f"open {self.name}", told=_FOUND)
        if status == 404:
            self._loaded = False
            return False
        if len(body) != 1:
            raise ConfigError(f"elasticsearch: {self.name!r} is an alias of {len(body)} indices, not of one")
        ((name, found),) = body.items()
        # The index itself: an alias may be moved to one with another mapping.
        self.url = "/" + quote(name, safe="")
        settings: dict[str, Any] = found.get("settings", {}).get("index", {})
        self.fields = fields_of(found.get("mappings", {}), settings, self.name)
        self.shards = int(settings.get("number_of_shards", 1))
        self.window = int(settings.get("max_result_window", _WINDOW))
        self._read_at = time.monotonic()
        return True

    async def fresh(self, pool: ClientPool) -> None:
        """Read the mapping again if it may be old: fields are added, and aliases are moved."""
        if time.monotonic() - self._read_at > _FRESH and not await self.load(pool):
            raise self.gone()

    def gone(self) -> UnavailableError:
        """Return the error for an index that was deleted under us."""
        self._loaded = False
        return UnavailableError(f"index {self.name} does not exist any more: somebody deleted it")
