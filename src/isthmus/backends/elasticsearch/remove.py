"""Clearing an index without losing its mapping."""

from __future__ import annotations

import orjson

from isthmus.backends.elasticsearch.bulk import Bulk
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.compile import ALL
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.read import Reader


async def clear(pool: ClientPool, index: Index, bulk: Bulk, reader: Reader) -> int:
    """Delete every record that is there now and return how many.

    Deleting the index itself would be faster, but other processes rely on its mapping (their
    records would silently not be indexed), and versions would begin anew.
    """
    removed = 0
    doing = f"clear {index.name}"
    async with reader.snapshot() as pit:
        async for hits in pit.pages({"query": ALL}, bulk.size * 5, source=False):
            lines = [b'{"delete":{"_id":' + orjson.dumps(hit["_id"]) + b"}}\n" for hit in hits]
            for at in range(0, len(lines), bulk.size):
                for item in await bulk.send(pool, index, lines[at : at + bulk.size], doing):
                    if item.status == 200:
                        removed += 1
                    elif item.status != 404:
                        raise item.failure(doing)
    return removed
