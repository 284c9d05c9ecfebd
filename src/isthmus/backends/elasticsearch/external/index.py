"""An index that isthmus did not make, as this handle knows it: read, never changed."""

from __future__ import annotations

import contextlib
import time

from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.errors import IndexGoneError, NoIndexError
from isthmus.backends.elasticsearch.external.fields import ExternalField, read_fields
from isthmus.backends.elasticsearch.external.filter import ExternalCompiler
from isthmus.backends.elasticsearch.identity import look_up, url_of
from isthmus.backends.elasticsearch.index import CollectionIndex

_WINDOW = 10_000
# Seconds for which a mapping is relied on.
_MAX_AGE = 30.0


class ExternalIndex(CollectionIndex):
    """Its mapping is read when the collection is opened, and again when it may be old."""

    def __init__(self, name: str, config: ElasticsearchConfig) -> None:
        super().__init__(name, config)
        self.fields: dict[str, ExternalField] = {}
        self.shards = 1
        self.window = _WINDOW
        self._read_at = -_MAX_AGE
        self._approximate = config.approximate

    @property
    def compiler(self) -> ExternalCompiler:
        """A compiler for the mapping as it is known now."""
        return ExternalCompiler(self.fields, approximate=self._approximate)

    async def ensure_ready(self, pool: ClientPool, *, create: bool) -> None:
        """Read the mapping, once; raises `ConfigError` if there is no such index."""
        if not self.is_ready:
            if not await self.load(pool):
                raise NoIndexError(f"elasticsearch: there is no index {self.name!r} to read as it is")
            self.is_ready = True

    async def load(self, pool: ClientPool) -> bool:
        """Read the mapping again; return whether the index exists."""
        found = await look_up(pool, self.name_url, self.name)
        if found is None:
            self.is_ready = False
            return False
        if self.uuid not in ("", found.uuid):
            raise self.mark_gone()
        # The index itself: an alias may be moved to one with another mapping.
        self.url, self.uuid = url_of(found.name), found.uuid
        self.fields = read_fields(found.mappings)
        self.shards = int(found.settings.get("number_of_shards", 1))
        self.window = int(found.settings.get("max_result_window", _WINDOW))
        self._read_at = time.monotonic()
        return True

    async def refresh_mapping(self, pool: ClientPool) -> None:
        """Read the mapping again if it may be old: fields are added.

        Of an index that was replaced it is known for good; a stream of it goes on.
        """
        if time.monotonic() - self._read_at > _MAX_AGE:
            with contextlib.suppress(IndexGoneError):
                await self.load(pool)
            self._read_at = time.monotonic()
