"""Reads of an index that isthmus did not make: documents as records, evaluated client-side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus._core.executor import Page, PageRequest
from isthmus._core.lazy_record import row_field
from isthmus._path import Path, Root
from isthmus._query.ast import Predicate, SortKey
from isthmus._record import Record
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.external.filter import ExternalCompiler
from isthmus.backends.elasticsearch.external.index import ExternalIndex
from isthmus.backends.elasticsearch.read.documents import IndexRecord, set_index_uuid
from isthmus.backends.elasticsearch.read.filter import NONE
from isthmus.backends.elasticsearch.read.order import SearchSort
from isthmus.backends.elasticsearch.read.plan import SearchPlan
from isthmus.backends.elasticsearch.read.reader import IndexReader
from isthmus.errors import UnsupportedError

_READ_SIZE = 1_000


class ExternalRecord(IndexRecord):
    """A document as a record: its source is the data; it has no metadata and no times."""

    __slots__ = ()
    _created = _updated = None
    id = row_field(lambda self: self._row["_id"])
    _data = row_field(lambda self: self._row["_source"])
    _metadata = row_field(lambda self: self._row.setdefault("metadata", {}))


class _ExternalSort(SearchSort):
    """An order as the server sorts; ties are in no order."""

    def __init__(self, order: Sequence[SortKey], compiler: ExternalCompiler) -> None:
        self.order = tuple(order)
        self.scored = any(key.path.root is Root.SCORE for key in order)
        self._compiler = compiler

    def paths(self) -> list[Path]:
        return []

    def clauses(self) -> list[dict[str, Any]]:
        return self._compiler.clauses(self.order)


class ExternalReader(IndexReader):
    """Reads of one index."""

    def __init__(self, pool: ClientPool, index: ExternalIndex, *, keep_alive: str, slices: int = 1) -> None:
        super().__init__(pool, index, keep_alive=keep_alive, slices=slices)
        self._external = index
        self._window = index.window

    async def plan(
        self,
        where: Predicate,
        order: Sequence[SortKey] = (),
        value_paths: Sequence[Path] = (),
        *,
        ranked: bool = False,
    ) -> SearchPlan:
        """Return the native parts; there are no candidates, since the core evaluates every record."""
        await self._external.refresh_mapping(self._pool)
        compiler = self._external.compiler
        scored = ranked or any(key.path.root is Root.SCORE for key in order)
        return SearchPlan(compiler.tree(where, scored=scored), NONE, _ExternalSort(order, compiler))

    async def page(self, request: PageRequest) -> Page:
        """Return one page in an order that only the server has."""
        if request.after is not None and not request.consistent:
            raise UnsupportedError(
                "an order of the server's own has no cursors: use limit and offset, or"
                " stream(consistent=True)",
                capability="order",
            )
        return await super().page(request)

    def _text_fields(self) -> ExternalCompiler:
        return self._external.compiler

    def records(self, hits: Sequence[Mapping[str, Any]]) -> Sequence[Record]:
        """Return the records of hits."""
        records = ExternalRecord.wrap(hits)
        for record in records:
            set_index_uuid(record, self.index.uuid)
        return records

    async def by_id(self, ids: Sequence[str]) -> list[Record | None]:
        """Return the records of these ids, on whichever shard their routing has put them."""
        if self._external.shards == 1:
            return await super().by_id(ids)
        found: dict[str, Record] = {}
        for start in range(0, len(ids), _READ_SIZE):
            distinct = list(dict.fromkeys(ids[start : start + _READ_SIZE]))
            body = {
                "query": {"ids": {"values": distinct}},
                "size": len(distinct),
                "seq_no_primary_term": True,
            }
            hits = (await self._search(body))["hits"]["hits"]
            found |= {record.id or "": record for record in self.records(hits)}
        return [found.get(id) for id in ids]
