"""Where a set of records is loaded: a collection of its own on a real backend, gone afterwards."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus import AsyncDatabase
from tests.servers import server

# What the setting is called that names the default collection, and the one that declares indexes.
_COLLECTION = {"elasticsearch": "index", "s3": "prefix"}


@dataclass(frozen=True, slots=True)
class Store:
    """A backend and how to reach it; `name` tells apart the layouts of one backend."""

    name: str
    backend: str
    url: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def fresh(self, indexes: Sequence[str] = ()) -> AsyncIterator[AsyncDatabase]:
        """Open a handle on a new, empty collection, and drop or clear that on leaving."""
        settings = {**self.config, _COLLECTION.get(self.backend, "table"): f"diff_{secrets.token_hex(6)}"}
        if self.url is not None:
            settings["url"] = self.url
        if indexes:
            settings["indexes"] = list(indexes)
        db = await AsyncDatabase.create(self.backend, settings)
        try:
            yield db
        finally:
            await discard(db)
            await db.close()


async def discard(db: AsyncDatabase) -> None:
    """Remove the handle's collection, or at least its records."""
    if db.capabilities.drop:
        await db._backend.drop(db.collection_name)  # type: ignore[attr-defined]
    else:
        await db.clear()


# Each store by the name that tests and `backend` markers use: the backend, the kind of its server
# (None: it needs none) and further settings.
STORES: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "memory": ("memory", None, {}),
    "sqlite": ("sqlite", None, {}),
    "postgres": ("postgres", "postgres", {}),
    "elasticsearch": ("elasticsearch", "elasticsearch", {}),
    "s3-object": ("s3", "s3", {"layout": "object"}),
    "s3-log": ("s3", "s3", {"layout": "log"}),
}


def store_of(name: str, url: str | None = None) -> Store:
    """Return a store by name, its server found as tests find it; skips the test if there is none."""
    backend, kind, config = STORES[name]
    if url is None and kind is not None:
        url = server(kind).url
    if backend == "elasticsearch" and url is not None and not url.startswith("es+"):
        url = f"es+{url}"
    return Store(name, backend, url, config)
