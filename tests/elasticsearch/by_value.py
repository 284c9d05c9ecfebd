"""Writes to a backend, and searches that must find by value what was acknowledged."""

from __future__ import annotations

from typing import Any

from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._query.ast import Predicate
from isthmus._query.evaluate import matches
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.errors import Applied, UnavailableError


async def write(backend: ElasticsearchBackend, kind: WriteKind, **records: Any) -> list[Any]:
    """Write records by their ids and return the results."""
    mutations = [Mutation(id, data) for id, data in records.items()]
    return list(await backend.write(backend.default_collection, kind, mutations, atomic=False))


async def write_patiently(backend: ElasticsearchBackend, kind: WriteKind, **records: Any) -> list[Any]:
    """Write records, again while a shard of an index that was just created is not started yet."""
    while True:
        try:
            results = await write(backend, kind, **records)
        except UnavailableError as error:
            results = [error]
        errors = [result for result in results if isinstance(result, UnavailableError)]
        assert all("503" in str(error) or error.applied is Applied.NO for error in errors), errors
        if not errors:
            return results


async def find(backend: ElasticsearchBackend, where: Predicate) -> set[str]:
    """Return the ids of the records that match, by a search and by a stream; their number by a count."""
    index = backend.default_collection
    found = []
    for request in (PageRequest(where, (), 5_000), PageRequest(where, None, 5_000)):
        page = await backend.fetch(index, request)
        candidates = [record for record in page.recheck if matches(where, record)]
        found.append({str(record.id) for record in [*page.records, *candidates]})
    searched, streamed = found
    assert searched == streamed
    count = await backend.count(index, where)
    assert count.count + sum(matches(where, record) for record in count.recheck) == len(searched)
    return searched
