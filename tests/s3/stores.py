"""Backends on the test server: a prefix of their own, closed afterwards."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from isthmus._core.executor import ItemResult, Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus._record import Record
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.config import S3Config
from isthmus.errors import IsthmusError

TRANSPORTS = ("obstore", "aioboto3")
LAYOUTS = ("object", "log")


def endpoint_of(url: str) -> str:
    """Return the server's address in a test URL."""
    return parse_qs(urlsplit(url).query)["endpoint_url"][0]


def config_for(url: str, **settings: Any) -> S3Config:
    """Return a config with a prefix of its own unless one is given."""
    return S3Config.load({"url": url, "prefix": f"t/{secrets.token_hex(6)}", **settings})


@contextlib.asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[S3Backend]:
    """Open a backend and close it."""
    backend = S3Backend(config_for(url, **settings))
    try:
        await backend.open(DEFAULT)
        yield backend
    finally:
        await backend.close()


async def write(
    backend: S3Backend, kind: WriteKind, *changes: Mutation, atomic: bool = False, collection: str = DEFAULT
) -> list[ItemResult]:
    """Write changes."""
    return await backend.write(collection, kind, changes, atomic=atomic)


async def create(backend: S3Backend, *ids: str, collection: str = DEFAULT, **data: Any) -> list[ItemResult]:
    """Create records that hold the same data."""
    return await write(
        backend, WriteKind.CREATE, *(Mutation(id, {**data}) for id in ids), collection=collection
    )


async def every(backend: S3Backend, collection: str = DEFAULT, size: int = 100_000) -> list[Record]:
    """Return all records by id."""
    return (await backend.fetch(collection, PageRequest(TRUE, (), size))).records


async def ids_of(backend: S3Backend, collection: str = DEFAULT) -> list[str]:
    """Return all ids in order."""
    return [record.id or "" for record in await every(backend, collection)]


def kinds(results: Sequence[ItemResult]) -> list[object]:
    """Return results with errors as their class."""
    return [type(result) if isinstance(result, IsthmusError) else result for result in results]


async def client_of(backend: S3Backend) -> Any:
    """Return the aioboto3 client, to look at objects as another tool would."""
    return await backend.native()


async def keys_under(backend: S3Backend, prefix: str) -> list[str]:
    """Return the keys of all objects under a prefix of the backend's bucket."""
    page = await (await client_of(backend)).list_objects_v2(Bucket=backend.config.bucket, Prefix=prefix)
    return [found["Key"] for found in page.get("Contents", ())]
