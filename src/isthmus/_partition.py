"""Partitions: disjoint, complete, picklable parts of a search, for engines that run in many processes."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, Self

from isthmus._collection import CollectionMethods
from isthmus._core.executor import After, PageRequest
from isthmus._path import Path, Root
from isthmus._query.ast import And, Order, Ordered, Predicate
from isthmus._query.codec import from_json, to_json
from isthmus._query.query import Query
from isthmus._query.split import Pushdown
from isthmus._reads import STREAM_PAGE
from isthmus._record import Record
from isthmus._stream import RecordStream
from isthmus._value import Value, replace
from isthmus.errors import ConfigError, UsageError

_ID = Path(Root.ID, ())
ID = "_id"
"""The column of the ids in rows and frames."""
MAX_PARTITIONS = 10_000


class Handle(Protocol):
    """What a partition needs of a database class; the class itself is pickled by its name."""

    async def close(self) -> None:
        """Give back the pool."""
        ...

    def collection(self, name: str) -> Any:
        """Return a collection."""
        ...

    @classmethod
    async def _create_handle(cls, backend: str, config: Mapping[str, Any]) -> Self:
        """Return a connected handle."""
        ...


class Partition(Value):
    """The records of a query whose ids lie in one range; says where to read, holds nothing open.

    Secrets are not in it: a worker takes them from its own environment, or the whole URL from the
    environment variable `url_from`.
    """

    number: int
    opener: type[Handle]
    backend: str
    settings: dict[str, Any]
    url_from: str | None
    collection: str
    query: dict[str, Any]
    low: str | None
    """Ids greater than this; None for the first partition."""
    high: str | None
    """Ids up to and with this; None for the last partition."""

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
        """Yield the partition's records through a handle of its own."""
        config = dict(self.settings)
        if self.url_from is not None:
            url = os.environ.get(self.url_from)
            if url is None:
                raise ConfigError(
                    f"this worker's environment has no {self.url_from}, which holds the store's URL"
                )
            config["url"] = url
        db = await self.opener._create_handle(self.backend, config)
        try:
            async with self._records(db.collection(self.collection)) as records:
                async for record in records:
                    if self.high is not None and record.id is not None and record.id > self.high:
                        break
                    yield record
        finally:
            await db.close()

    def _records(self, verbs: CollectionMethods) -> RecordStream:
        session = verbs._session
        support = session.executor.support(self.collection)
        if support.pushdown(Ordered(_ID, Order.GT, "")) is Pushdown.EXACT or not support.orders(()):
            return verbs.stream(self.search)
        # A store that cannot filter by id (S3) can begin behind one: else each partition would read all.
        query = from_json(self.query)
        after = None if self.low is None else After((self.low,))
        request = PageRequest(query.where, (), STREAM_PAGE, after=after, select=query.fields)
        return RecordStream(session.run, self.collection, request, limit=None, prefetch=session.prefetch)

    def read(self) -> list[dict[str, Any]]:
        """Return the partition's data, each record with its id as `_id`; blocks, on a loop of its own."""

        async def collect() -> list[dict[str, Any]]:
            return [row(record) async for record in self.stream()]

        return asyncio.run(collect())


async def partitioned(
    verbs: CollectionMethods,
    opener: type[Handle],
    config: Any,
    query: Query,
    count: int,
    url_from: str | None,
) -> list[Partition]:
    """Return `count` partitions of a query, with about equally many records of the collection in each.

    The bounds are ids at equal steps through the collection, never offsets into the result, so
    partitions stay disjoint and complete while others write.
    """
    if not 1 <= count <= MAX_PARTITIONS:
        raise UsageError(f"partitions: from 1 to {MAX_PARTITIONS}, got {count}")
    if query.order or query.skip or query.count is not None:
        raise UsageError("partitions: a query with a sort, limit or offset cannot be read in parts")
    settings = _settings(config, url_from)
    total = await verbs.count()
    bounds: list[str] = []
    for part in range(1, count):
        found = await verbs.search(Query().select("_id").offset(part * total // count).limit(1))
        if found and found[0].id is not None and (not bounds or found[0].id > bounds[-1]):
            bounds.append(found[0].id)
    edges = [None, *bounds, None]
    return [
        Partition(
            number=number,
            opener=opener,
            backend=config.backend,
            settings=settings,
            url_from=url_from,
            collection=verbs.collection_name,
            query=to_json(query),
            low=low,
            high=high,
        )
        for number, (low, high) in enumerate(itertools.pairwise(edges))
    ]


def _settings(config: Any, url_from: str | None) -> dict[str, Any]:
    """Return the settings that a worker needs beside secrets.

    Raises `ConfigError` for a secret that a worker could not find for itself.
    """
    from isthmus._core.config import SecretStr

    settings: dict[str, Any] = {}
    for key, (value, origin) in config.explain().items():
        if origin == "default" or value is None or origin.startswith("environment"):
            continue
        if isinstance(value, SecretStr) or callable(value):
            if url_from is None:
                raise ConfigError(
                    f"partitions: {key} was given by {origin}, and secrets do not travel; put it into the"
                    " workers' environment, or the URL into a variable that url_from='DATABASE_URL' names"
                )
            continue
        if url_from is not None and origin == "url":
            continue
        into = settings
        *groups, name = key.split(".")
        for group in groups:
            into = into.setdefault(group, {})
        into[name] = value
    return settings


def row(record: Record) -> dict[str, Any]:
    """Return a record's data with its id as `_id`; refuses data with a key of that name."""
    if ID in record.data:
        raise UsageError(
            f"record {record.id!r} has a key {ID!r}, which is the column of the ids: select() other fields"
        )
    return {ID: record.id, **record.data}
