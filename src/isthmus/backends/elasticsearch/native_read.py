"""Reads of an index that others made: documents as records, what the server finds judged by the core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isthmus._core.executor import Page, PageRequest
from isthmus._path import Path, Root
from isthmus._query.ast import Predicate, SortKey
from isthmus._record import Record, _set_data, _set_metadata, _set_raw
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.compile import NONE
from isthmus.backends.elasticsearch.documents import get_many
from isthmus.backends.elasticsearch.layout import version_of
from isthmus.backends.elasticsearch.native_compile import NativeCompiler
from isthmus.backends.elasticsearch.native_index import NativeIndex
from isthmus.backends.elasticsearch.order import Sorting
from isthmus.backends.elasticsearch.read import Plan, Reader
from isthmus.errors import UnsupportedError

_IDS = 1_000


class _NativeSorting(Sorting):
    """An order as the server has it; ties come as they come."""

    def __init__(self, order: Sequence[SortKey], compiler: NativeCompiler) -> None:
        self.order = tuple(order)
        self.scored = any(key.path.root is Root.SCORE for key in order)
        self._compiler = compiler

    def paths(self) -> list[Path]:
        return []

    def clauses(self) -> list[dict[str, Any]]:
        return self._compiler.clauses(self.order)


class NativeReader(Reader):
    """Reads of one index."""

    def __init__(self, pool: ClientPool, index: NativeIndex, *, keep_alive: str, slices: int = 1) -> None:
        super().__init__(pool, index, keep_alive=keep_alive, slices=slices)
        self._native = index
        self._window = index.window

    async def plan(
        self,
        where: Predicate,
        order: Sequence[SortKey] = (),
        extra: Sequence[Path] = (),
        *,
        ranked: bool = False,
    ) -> Plan:
        """Return the native parts; nothing is apart, since the core judges all that the server finds."""
        await self._native.fresh(self._pool)
        compiler = self._native.compiler
        scored = ranked or any(key.path.root is Root.SCORE for key in order)
        return Plan(compiler.tree(where, scored=scored), NONE, _NativeSorting(order, compiler))

    async def page(self, request: PageRequest) -> Page:
        """Return one page of an order that only the server has."""
        if request.after is not None and not request.consistent:
            raise UnsupportedError(
                "an order of the server's own has no cursors: use limit and offset, or"
                " stream(consistent=True)",
                capability="order",
            )
        return await super().page(request)

    def _words(self) -> NativeCompiler:
        return self._native.compiler

    def records(self, hits: Iterable[Mapping[str, Any]]) -> list[Record]:
        """Return the records of hits."""
        return list(map(native_record, hits))

    async def by_id(self, ids: Sequence[str]) -> list[Record | None]:
        """Return the records of these ids, wherever a routing has put them."""
        if self._native.shards == 1:
            hits = await get_many(self._pool, self._index, ids)
            return [None if hit is None else native_record(hit) for hit in hits]
        found: dict[str, Record] = {}
        for at in range(0, len(ids), _IDS):
            wanted = list(dict.fromkeys(ids[at : at + _IDS]))
            body = {
                "query": {"ids": {"values": wanted}},
                "size": len(wanted),
                "seq_no_primary_term": True,
            }
            answer = await self._search(body)
            found |= {hit["_id"]: native_record(hit) for hit in answer["hits"]["hits"]}
        return [found.get(id) for id in ids]


def native_record(hit: Mapping[str, Any]) -> Record:
    """Return a document as a record: its source is the data; times and metadata it has none."""
    record = Record.stored(hit["_id"], b"", None, version_of(hit), None, None)
    _set_data(record, hit["_source"])
    _set_metadata(record, {})
    _set_raw(record, None)
    return record
