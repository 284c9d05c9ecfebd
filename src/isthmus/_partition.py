"""Partitions: disjoint, picklable parts of a query that together are complete, for parallel readers."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, Self

from isthmus._arguments import check_count
from isthmus._collection import CollectionMethods
from isthmus._core.executor import (
    After,
    PageRequest,
)
from isthmus._core.supports import SortsIds, SupportsSplit
from isthmus._path import Path, Root
from isthmus._query.ast import And, Order, Ordered, Predicate
from isthmus._query.codec import from_json, to_json
from isthmus._query.query import Query
from isthmus._query.split import Pushdown
from isthmus._reads import STREAM_PAGE
from isthmus._record import Record
from isthmus._scope import Scope
from isthmus._stream import RecordStream
from isthmus._value import Value, replace
from isthmus.errors import ConfigError, UnsupportedError, UsageError

_ID = Path(Root.ID, ())
ID = "_id"
"""The column of record ids in rows and frames."""
MAX_PARTITIONS = 10_000


class DatabaseClass(Protocol):
    """The methods of a database class that partitions use; the class is pickled by name."""

    async def close(self) -> None:
        """Close the handle."""
        ...

    def collection(self, name: str) -> Any:
        """Return a collection."""
        ...

    def scope(self, condition: Query, *, row_security: bool = False) -> Self:
        """Return a handle that is confined to a scope."""
        ...

    @classmethod
    async def _create_handle(cls, backend: str, config: Mapping[str, Any]) -> Self:
        """Return a connected handle."""
        ...


class Partition(Value):
    """One range of the ids of a query's records, for one worker; holds settings, no connection.

    It contains no secrets: a worker takes them from its own environment, or the whole URL from the
    environment variable named by `url_from`.
    """

    number: int
    opener: type[DatabaseClass]
    backend: str
    settings: dict[str, Any]
    url_from: str | None
    collection: str
    query: dict[str, Any]
    low: str | None
    """The exclusive lower bound of ids; None for the first partition."""
    high: str | None
    """The inclusive upper bound of ids; None for the last partition."""
    row_security: dict[str, Any] | None = None
    """The condition of a scope that the store's policies confine too."""
    hint: Any = None
    """What the backend found when it divided the collection; None if nothing helps."""

    @property
    def search(self) -> Query:
        """The query with the partition's range of ids."""
        query = from_json(self.query)
        terms: list[Predicate] = [query.where]
        if self.low is not None:
            terms.append(Ordered(_ID, Order.GT, self.low))
        if self.high is not None:
            terms.append(Ordered(_ID, Order.LE, self.high))
        return replace(query, where=And(tuple(terms)))

    async def stream(self) -> AsyncGenerator[Record, None]:
        """Yield the partition's records in id order, through a handle of its own.

        Raises `ConfigError` if the environment lacks the variable `url_from`.
        """
        config = dict(self.settings)
        if self.url_from is not None:
            url = os.environ.get(self.url_from)
            if url is None:
                raise ConfigError(
                    f"environment variable {self.url_from}, the store's URL, is not set in this worker"
                )
            config["url"] = url
        db = await self.opener._create_handle(self.backend, config)
        try:
            handle = db
            if self.row_security is not None:
                handle = db.scope(from_json(self.row_security), row_security=True)
            collection = handle.collection(self.collection)
            executor = collection._session.executor
            if self.hint is not None and isinstance(executor, SupportsSplit):
                await executor.resume(self.collection, self.hint)
            async with self._open_stream(collection) as records:
                async for record in records:
                    if self.high is not None and record.id is not None and record.id > self.high:
                        break
                    yield record
        finally:
            await db.close()

    def _open_stream(self, collection: CollectionMethods) -> RecordStream:
        session = collection._session
        support = session.executor.support(self.collection)
        exact = support.pushdown(Ordered(_ID, Order.GT, "")) is Pushdown.EXACT
        if exact or isinstance(support, SortsIds) or not support.orders(()):
            return collection.stream(self.search)
        # A store that cannot filter by id (S3) starts after one instead of reading everything each time.
        query = from_json(self.query)
        after = None if self.low is None else After((self.low,))
        request = PageRequest(query.where, (), STREAM_PAGE, after=after, select=query.fields)
        return RecordStream(session, self.collection, request, limit=None)

    def read(self) -> list[dict[str, Any]]:
        """Return the partition's rows, each record's data with its id as `_id`.

        Blocks: it runs an event loop of its own, so it cannot be called from a coroutine.
        """

        async def collect() -> list[dict[str, Any]]:
            return [row(record) async for record in self.stream()]

        return asyncio.run(collect())


async def plan_partitions(
    collection: CollectionMethods,
    opener: type[DatabaseClass],
    config: Any,
    query: Query,
    count: int,
    url_from: str | None,
    scope: Scope | None,
) -> list[Partition]:
    """Return up to `count` partitions of a query, each covering an equal share of the collection.

    The bounds are ids at equal steps through the collection, not offsets into the result, so
    partitions stay disjoint and complete under concurrent writes. Costs one count and one search
    for each bound; of files, whose partitions end where a file or a row group ends if one is near,
    one reading of those whose number of rows is not stated.

    Raises `UsageError` for a count out of range or a query with a sort, limit or offset, and
    `ConfigError` for a secret in the settings that a worker could not find in its environment, and
    `UnsupportedError` for a store that only this handle can read.
    """
    check_count("partitions: the count", count, MAX_PARTITIONS)
    if query.order or query.skip or query.count is not None:
        raise UsageError("partitions: the query cannot have a sort, limit or offset")
    if config.private_to_handle():
        raise UnsupportedError(
            f"{config.backend}: the records are in this handle's memory, where no worker can read them;"
            " use a file or a server",
            capability="partitions",
        )
    settings = _worker_settings(config, url_from)
    secured = None
    if scope is not None:
        query = replace(query, where=And((scope.predicate, query.where)))
        secured = to_json(Query(where=scope.predicate)) if scope.row_security else None
    executor = collection._session.executor
    bounds = None
    if isinstance(executor, SupportsSplit):
        bounds = await executor.split(collection.collection_name, count)
    if bounds is None:
        bounds = [(id, None) for id in await _find_bounds(collection, count)]
    edges = [(None, None), *bounds, (None, None)]
    return [
        Partition(
            number=number,
            opener=opener,
            backend=config.backend,
            settings=settings,
            url_from=url_from,
            collection=collection.collection_name,
            query=to_json(query),
            low=low,
            high=high,
            row_security=secured,
            hint=hint,
        )
        for number, ((low, hint), (high, _)) in enumerate(itertools.pairwise(edges))
    ]


async def _find_bounds(collection: CollectionMethods, count: int) -> list[str]:
    """Return ids at equal steps through a collection."""
    total = await collection.count()
    bounds: list[str] = []
    for part in range(1, count):
        record = await collection.find_one(Query().select("_id").offset(part * total // count))
        if record is not None and record.id is not None and (not bounds or record.id > bounds[-1]):
            bounds.append(record.id)
    return bounds


def _worker_settings(config: Any, url_from: str | None) -> dict[str, Any]:
    """Return the settings to send to workers: those not from defaults or the environment, without secrets."""
    from isthmus._core.config import SecretStr

    settings: dict[str, Any] = {}
    for key, (value, origin) in config.explain().items():
        if origin == "default" or value is None or origin.startswith("environment"):
            continue
        if isinstance(value, SecretStr) and config.is_public(key):
            value = value.get_secret_value()
        if isinstance(value, SecretStr) or callable(value) or key in config.local:
            if url_from is None:
                kind = "object" if key in config.local else "secret"
                raise ConfigError(
                    f"partitions: the {kind} {key} (from {origin}) is not sent to workers; set it in their"
                    " environment, or name a variable that holds the URL: url_from='DATABASE_URL'"
                )
            continue
        if url_from is not None and origin == "url":
            continue
        target = settings
        *groups, name = key.split(".")
        for group in groups:
            target = target.setdefault(group, {})
        target[name] = value
    return settings


def row(record: Record) -> dict[str, Any]:
    """Return a record's data with its id as `_id`.

    Raises `UsageError` for data that has a key of that name.
    """
    if ID in record.data:
        raise UsageError(
            f"record {record.id!r} has a field {ID!r}, which is reserved for the id: select() other fields"
        )
    return {ID: record.id, **record.data}
