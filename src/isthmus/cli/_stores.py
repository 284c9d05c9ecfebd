"""Opening and probing the store of a URL, with a password from the environment or a prompt."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from isthmus import AsyncDatabase, Collection, ConfigError
from isthmus._core.executor import PoolStats
from isthmus._core.registry import Plugin, plugin
from isthmus.cli._shorthand import to_store_url
from isthmus.cli._urls import check_url, redact_url, split_url

R = TypeVar("R")
_MISSING = re.compile(r"there is no (table|index|collection)\b")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store, and the collection in it, as the command line names them."""

    url: str
    collection: str | None = None
    password: str | None = None

    @property
    def display_name(self) -> str:
        """The URL without secrets, and the collection."""
        return redact_url(self.url) + (f"#{self.collection}" if self.collection else "")

    @property
    def plugin(self) -> Plugin:
        """The backend that the URL's scheme names."""
        return plugin(self.url.split("://", 1)[0])


def resolve_store(
    url: str | None, collection: str | None = None, *, prompt: bool = False, role: str = ""
) -> StoreAddress:
    """Return the address of a store; `-` or None stands for $ISTHMUS_URL.

    The password comes from $ISTHMUS_PASSWORD, from $ISTHMUS_SOURCE_PASSWORD or
    $ISTHMUS_TARGET_PASSWORD for the `role` "source" or "target", or with `prompt` from a prompt
    without echo. Raises `ConfigError` if there is no URL, or one whose secret cannot be told from the rest.
    """
    if url in (None, "-"):
        url = os.environ.get("ISTHMUS_URL")
    if not url:
        raise ConfigError("no store given: pass its URL or set ISTHMUS_URL")
    found = to_store_url(url)
    if found is None:
        raise ConfigError(
            "the store must be a URL such as sqlite:///file.db or postgres://host/app, or a file or folder"
            " that exists; filters come after it"
        )
    url = found
    check_url(url)
    variables = [f"ISTHMUS_{role.upper()}_PASSWORD"] if role else []
    password = next((os.environ[v] for v in [*variables, "ISTHMUS_PASSWORD"] if v in os.environ), None)
    if prompt:
        password = getpass.getpass(f"Password for {redact_url(url)}: ", stream=sys.stderr)
    return StoreAddress(url, collection, password)


def run_on_store(
    address: StoreAddress, work: Callable[[Collection], Awaitable[R]], *, writes: bool = False
) -> R:
    """Run `work` on a store's collection in an event loop of its own, and return its result."""

    async def run() -> R:
        async with open_collection(address, writes=writes) as collection:
            return await work(collection)

    return asyncio.run(run())


@asynccontextmanager
async def open_collection(address: StoreAddress, *, writes: bool = False) -> AsyncIterator[Collection]:
    """Open a store and yield its chosen collection."""
    async with open_database(address, writes=writes) as db:
        yield db.collection(address.collection or db.collection_name)


@asynccontextmanager
async def open_scratch_collection(address: StoreAddress) -> AsyncIterator[Collection]:
    """Open a new collection and drop it at the end; an empty one stays where none can be dropped."""
    async with open_database(address, writes=True) as db:
        name = f"isthmus_scratch_{uuid.uuid4().hex[:10]}" if db.capabilities.drop else "isthmus_scratch"
        collection = db.collection(name)
        await collection.clear()
        try:
            yield collection
        finally:
            await collection.clear()
            if db.capabilities.drop:
                backend: Any = db._backend
                await backend.drop(name)


@asynccontextmanager
async def open_database(
    address: StoreAddress, settings: Mapping[str, Any] | None = None, *, writes: bool = False
) -> AsyncIterator[AsyncDatabase]:
    """Open a store, with more settings than its URL has; unless `writes`, opening creates nothing.

    Raises `ConfigError` that lists the collections if the chosen one is missing.
    """
    settings = {**build_settings(address, writes=writes), **(settings or {})}
    db = await AsyncDatabase.open(address.url, settings, lazy=True)
    try:
        names = await connect_or_list(db)
        if names is not None:
            raise ConfigError(f"there is no collection {db.collection_name!r}; {describe_collections(names)}")
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def open_store(address: StoreAddress) -> AsyncIterator[tuple[AsyncDatabase, list[str] | None]]:
    """Open a store for a command that needs no collection, and create nothing.

    Yields the handle, and None or what `connect_or_list` returns if no collection was named.
    """
    db = await AsyncDatabase.open(address.url, build_settings(address, writes=False), lazy=True)
    try:
        names = await connect_or_list(db)
        if names is not None and is_collection_named(db):
            raise ConfigError(f"there is no collection {db.collection_name!r}; {describe_collections(names)}")
        yield db, names
    finally:
        await db.close()


async def connect_or_list(db: AsyncDatabase) -> list[str] | None:
    """Connect a handle; if its default collection is missing, return the names of those that exist.

    The handle is then not connected, but its backend is, without a collection.
    """
    try:
        # The backend's own methods: a handle that cannot connect closes its backend for good, and
        # lists collections only after its default one was made ready.
        await db._backend.open(db.collection_name)
    except ConfigError as error:
        if not _MISSING.search(str(error)):
            raise
        names = await db._backend.collections()
        if db.collection_name in names:
            raise
        return names
    await db.connect()
    return None


def is_collection_named(db: AsyncDatabase) -> bool:
    """Return whether the default collection was chosen: by an option, the URL or the environment."""
    origins = db.config.explain()
    return any(origins[name][1] != "default" for name in ("table", "index") if name in origins)


def describe_collections(names: list[str]) -> str:
    """Return the names of collections as the end of a message."""
    if not names:
        return "the store has none yet, and the first write creates one"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"the store has {', '.join(map(repr, names[:20]))}{more}: name one with -c"


def build_settings(address: StoreAddress, *, writes: bool) -> dict[str, str]:
    """Return the settings to open a store with, in addition to those of its URL.

    Raises `ConfigError` for a password that the backend cannot use, and unless `writes` for a
    SQLite file that does not exist, which opening would create.
    """
    fields = address.plugin.config().model_fields

    def find_field(*names: str) -> str | None:
        return next((name for name in names if name in fields), None)

    password_field = find_field("password", "aws_secret_access_key")
    if address.password is not None and password_field is None:
        raise ConfigError(f"{address.plugin.name} takes no password")
    if not writes:
        _require_file(address.url)
    settings = {
        password_field: address.password,
        # The chosen collection becomes the default one, so that opening creates no other.
        find_field("table", "index"): address.collection,
        find_field("create_table", "create_index", "create_prefix"): None if writes else "never",
    }
    return {name: value for name, value in settings.items() if name is not None and value is not None}


def _require_file(url: str) -> None:
    if url.split(":", 1)[0] not in ("sqlite", "sqlite3"):
        return
    path = split_url(url).path
    if path not in ("", "/", "/:memory:") and not (file := Path(unquote(path)[1:])).exists():
        raise ConfigError(f"sqlite: no such file: {file}")


async def time_pings(
    db: AsyncDatabase, number: int, *, without_collection: bool = False
) -> AsyncIterator[float]:
    """Ping a store, and yield the milliseconds that each round trip took.

    Elasticsearch pings an index; a store `without_collection` is asked for its collections instead.
    """
    for _ in range(number):
        start = time.perf_counter()
        await (db._backend.collections() if without_collection else db.ping())
        yield (time.perf_counter() - start) * 1e3


def pool_to_json(pool: PoolStats) -> dict[str, Any]:
    """Return the state of a connection pool as a JSON object."""
    return {name: getattr(pool, name) for name in PoolStats.__annotations__}
