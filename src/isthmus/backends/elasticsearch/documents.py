"""Documents by id, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.errors import failed_answer
from isthmus.backends.elasticsearch.index import Index

_READ_SIZE = 1_000
_READS_IN_FLIGHT = 2
_FOUND = frozenset({200, 404})


async def get_many(
    pool: ClientPool, index: Index, ids: Sequence[str], *, only: str | None = None
) -> list[dict[str, Any] | None]:
    """Return the documents of these ids in order, None where there is none; in real time."""
    target = f"{index.url}/_mget" + (f"?_source_includes={only}" if only else "")
    doing = f"get from {index.name}"

    async def part(chunk: Sequence[str]) -> list[dict[str, Any] | None]:
        status, body = await pool.call("POST", target, {"ids": chunk}, doing=doing, told=_FOUND)
        if status == 404:
            raise index.gone()
        for document in body["docs"]:
            if "error" in document:
                error = document["error"]
                if "index_not_found" in str(error.get("type")):
                    raise index.gone()
                raise failed_answer(503, {"error": error}, None, doing, writes=False)
        return [document if document["found"] else None for document in body["docs"]]

    if len(ids) <= _READ_SIZE:
        return await part(list(ids)) if ids else []
    chunks = [list(ids[at : at + _READ_SIZE]) for at in range(0, len(ids), _READ_SIZE)]
    documents: list[dict[str, Any] | None] = []
    for at in range(0, len(chunks), _READS_IN_FLIGHT):
        for found in await asyncio.gather(*map(part, chunks[at : at + _READS_IN_FLIGHT])):
            documents += found
    return documents
