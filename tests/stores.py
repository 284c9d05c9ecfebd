"""The stores that tests run on, by name, and fresh collections in them."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from isthmus import AsyncDatabase
from tests.servers import server

Declared: TypeAlias = Mapping[str, list[str] | bool | dict[str, str]]
"""Settings that declare indexes, the fields of each kind or all fields, and columns with their kinds."""

# What the setting is called that names the default collection.
_COLLECTION = {"elasticsearch": "index", "s3": "prefix"}
# The kinds of indexes of fields that a backend has.
INDEXED = {"sqlite": ("indexes",), "postgres": ("indexes", "indexes", "prefix", "substring", "gin")}
# The backends with declared columns.
COLUMNS = ("postgres", "sqlite")


@dataclass(frozen=True, slots=True)
class Store:
    """A backend and how to reach it; `name` tells apart the layouts of one backend."""

    name: str
    backend: str
    url: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def fresh(self, declared: Declared | None = None) -> AsyncIterator[AsyncDatabase]:
        """Open a handle on a new, empty collection, and drop or clear that on leaving."""
        db = await self.open(declared)
        try:
            yield db
        finally:
            await discard(db)
            await db.close()

    async def open(self, declared: Declared | None = None) -> AsyncDatabase:
        """Open a handle on a new, empty collection, with these indexes where the backend has any."""
        settings = {**self.config, _COLLECTION.get(self.backend, "table"): f"test_{secrets.token_hex(6)}"}
        if self.url is not None:
            settings["url"] = self.url
        if declared and self.backend in INDEXED:
            settings |= declared
        return await AsyncDatabase.create(self.backend, settings)


async def discard(db: AsyncDatabase) -> None:
    """Remove the handle's collection, or at least its records."""
    if db.capabilities.drop:
        await db._backend.drop(db.collection_name)  # type: ignore[attr-defined]
    else:
        await db.clear()


def _file() -> str:
    """Return a database file of this process, gone when it ends."""
    # In memory where there is such a folder: what is tested here is meaning, not the disk.
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="isthmus-test-", dir=shared)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(Path(folder) / "test.db")


# One node has no place for a copy of a shard; the suite searches words and vectors.
_ELASTICSEARCH = {"replicas": 0, "fulltext": ["text"], "vectors": {"embedding": 3}}
# Each store by the name that tests use: the backend, the kind of its server (None: it needs none)
# and further settings.
STORES: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "memory": ("memory", None, {}),
    "sqlite": ("sqlite", None, {"path": _file()}),
    "postgres": ("postgres", "postgres", {}),
    "elasticsearch": ("elasticsearch", "elasticsearch", _ELASTICSEARCH),
    "s3-object": ("s3", "s3", {"layout": "object"}),
    "s3-log": ("s3", "s3", {"layout": "log"}),
}
# Other drivers, transports, servers and server versions: `make test-all` and `make conformance`.
FURTHER: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "sqlite-memory": ("sqlite", None, {"path": ":memory:"}),
    "postgres-psycopg": ("postgres", "postgres", {"driver": "psycopg"}),
    "postgres-icu": ("postgres", "postgres-icu", {}),
    "postgres18": ("postgres", "postgres18", {}),
    "postgres-pgbouncer": ("postgres", "pgbouncer", {"pooler": "transaction"}),
    "elasticsearch8": ("elasticsearch", "elasticsearch8", _ELASTICSEARCH),
    "s3-object-aioboto3": ("s3", "s3", {"layout": "object", "transport": "aioboto3"}),
    "s3-log-aioboto3": ("s3", "s3", {"layout": "log", "transport": "aioboto3"}),
    "s3-object-moto": ("s3", "moto", {"layout": "object"}),
    "sqlalchemy-mariadb": ("sqlalchemy", "mariadb", {}),
    "sqlalchemy-postgres": ("sqlalchemy", "postgres", {}),
    "sqlalchemy-sqlite": ("sqlalchemy", None, {"url": f"sqlite+aiosqlite:///{_file()}?timeout=60"}),
}
KNOWN = STORES | FURTHER
if os.environ.get("ISTHMUS_TEST_ALL"):
    STORES = KNOWN
# The stores that a run is about, by name: ISTHMUS_TEST_STORES=sqlite,s3-log.
_ONLY = os.environ.get("ISTHMUS_TEST_STORES")
if _ONLY:
    STORES = {name: KNOWN[name] for name in _ONLY.split(",")}


def store_of(name: str, url: str | None = None) -> Store:
    """Return a store by name, its server found as tests find it; skips the test if there is none."""
    backend, kind, config = KNOWN[name]
    if url is None and kind is not None:
        url = server(kind).url
    if backend == "elasticsearch" and url is not None and not url.startswith("es+"):
        url = f"es+{url}"
    if backend == "sqlalchemy" and url is not None and url.startswith("postgresql://"):
        url = "postgresql+asyncpg" + url.removeprefix("postgresql")
    return Store(name, backend, url, config)


# botocore takes 1.5 ms for a request and moto 3: what reads 12,000 objects six times takes minutes.
_SLOW = ("s3-object-aioboto3", "s3-object-moto")


def parameters(*but: str) -> list[Any]:
    """Return the names of the stores as test parameters, each counted under its backend."""
    return [
        pytest.param(
            name,
            marks=[pytest.mark.backend(backend), *([pytest.mark.timeout(1200)] if name in _SLOW else [])],
        )
        for name, (backend, _, _) in STORES.items()
        if name not in but
    ]


def opener(name: str) -> Callable[[], Awaitable[AsyncDatabase]]:
    """Return what opens a fresh handle on a store; the fixture `database` of the conformance suite."""
    store = store_of(name)
    return store.open
