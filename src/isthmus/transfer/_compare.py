"""Compares two stores by digests of id ranges, and repairs only the records that differ."""

from __future__ import annotations

import functools
import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Literal

from isthmus import Query, Record, UsageError, field
from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._query.ast import Predicate
from isthmus._query.query import as_query
from isthmus.transfer._digest import Digest, canonical_json, record_digest
from isthmus.transfer._fields import Shape, Transform
from isthmus.transfer._reader import PageReader, Store, sorts_ids
from isthmus.transfer._receipt import MAX_LISTED, Repair
from isthmus.transfer._retry import retry_transient

_REPAIR_BATCH = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """A record that is not the same in both stores.

    `missing`: only the source has it; `extra`: only the target has it; `changed`: both have it.
    """

    kind: Literal["missing", "extra", "changed"]
    id: str
    source: Record | None = None
    """The record that the target should hold, after field mapping and transform."""
    target: Record | None = None

    def paths(self) -> dict[str, tuple[Any, Any]]:
        """Return the values that differ, as `{"data.age": (source, target)}`; `...` stands for absent."""
        if self.source is None or self.target is None:
            return {}
        changed: dict[str, tuple[Any, Any]] = {}
        _collect_changes(self.source.data, self.target.data, "data", changed)
        _collect_changes(self.source.metadata, self.target.metadata, "metadata", changed)
        return changed


@dataclass(slots=True)
class Comparison:
    """The result of `verify`."""

    source: Digest = dataclass_field(default_factory=Digest)
    target: Digest = dataclass_field(default_factory=Digest)
    ranges: int = 0
    """How many id ranges were compared."""
    differing_ranges: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    differences: list[tuple[str, str]] = dataclass_field(default_factory=list)
    """Kind and id of the first 1,000 differences."""
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether both stores hold the same records."""
        return not (self.missing or self.extra or self.changed) and self.source == self.target

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-serializable values; digests are hexadecimal."""
        return {
            "equal": self.equal,
            "source": {"count": self.source.count, "digest": self.source.hex},
            "target": {"count": self.target.count, "digest": self.target.hex},
            "ranges": self.ranges,
            "differing_ranges": self.differing_ranges,
            "missing": self.missing,
            "extra": self.extra,
            "changed": self.changed,
            "differences": [{"kind": kind, "id": id} for kind, id in self.differences],
            "seconds": round(self.seconds, 3),
        }


async def verify(
    source: Store,
    target: Store,
    query: Query | Predicate | None = None,
    *,
    target_query: Query | Predicate | None = None,
    fields: Mapping[str, str | None] | None = None,
    transform: Transform | None = None,
    page_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Comparison:
    """Compare both stores range by range and return digests, counts and differences.

    `query` selects the records of both stores unless `target_query` is given. If the copy changed
    records, pass the same `fields` and `transform`; the target is then read as a whole unless
    `target_query` is given. A range ends where a page of either store ends; `page_size` is the
    maximum records in a page. `progress` is called after each range with the number of source
    records read so far.

    Both stores are read once, concurrently, in bounded memory. Raises `QueryError` for a query with
    a sort or an offset, and `UsageError` if a transform changes the order of ids.
    """
    start = clock.now()
    result = Comparison()
    pairs = _RangePairs(source, target, query, target_query, Shape(fields, transform), page_size, clock)
    async with pairs:
        async for ours, theirs in pairs:
            result.ranges += 1
            our_digest, their_digest = _digest_range(ours), _digest_range(theirs)
            result.source += our_digest
            result.target += their_digest
            if our_digest != their_digest:
                result.differing_ranges += 1
                for difference in _find_differences(ours, theirs):
                    setattr(result, difference.kind, getattr(result, difference.kind) + 1)
                    if len(result.differences) < MAX_LISTED:
                        result.differences.append((difference.kind, difference.id))
            if progress is not None:
                progress(pairs.read)
    result.seconds = clock.now() - start
    return result


async def differences(
    source: Store,
    target: Store,
    query: Query | Predicate | None = None,
    *,
    target_query: Query | Predicate | None = None,
    fields: Mapping[str, str | None] | None = None,
    transform: Transform | None = None,
    page_size: int | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncIterator[Difference]:
    """Yield each difference with both records, in id order; parameters and errors as for `verify`."""
    pairs = _RangePairs(source, target, query, target_query, Shape(fields, transform), page_size, clock)
    async with pairs:
        async for ours, theirs in pairs:
            for difference in _find_differences(ours, theirs):
                yield difference


async def repair(
    source: Store,
    target: Store,
    query: Query | Predicate | None = None,
    *,
    target_query: Query | Predicate | None = None,
    fields: Mapping[str, str | None] | None = None,
    transform: Transform | None = None,
    delete_extra: bool = False,
    page_size: int | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Repair:
    """Write the records that differ to the target, and nothing else.

    `delete_extra` also deletes the records that only the target has. The other parameters are those
    of `verify`. Raises `BatchError` if the target rejects a record.
    """
    result = Repair()
    upserts: list[Record] = []
    deletes: list[str] = []

    async def flush() -> None:
        if upserts:
            await retry_transient(lambda: target.upsert_batch(upserts), clock)
            result.written += len(upserts)
            upserts.clear()
        if deletes:
            await retry_transient(lambda: target.delete_batch(deletes), clock)
            result.deleted += len(deletes)
            deletes.clear()

    async for difference in differences(
        source,
        target,
        query,
        target_query=target_query,
        fields=fields,
        transform=transform,
        page_size=page_size,
        clock=clock,
    ):
        if difference.source is not None:
            upserts.append(difference.source)
        elif delete_extra:
            deletes.append(difference.id)
        else:
            result.left += 1
        if len(upserts) + len(deletes) >= _REPAIR_BATCH:
            await flush()
    await flush()
    return result


_Range = dict[str, tuple[int, Record]]
"""The records of one range and their digests, by id."""


class _RangePairs:
    """The same id ranges of two stores, read concurrently."""

    def __init__(
        self,
        source: Store,
        target: Store,
        query: Query | Predicate | None,
        target_query: Query | Predicate | None,
        shape: Shape,
        page_size: int | None,
        clock: Clock,
    ) -> None:
        ours = as_query(query)
        theirs = as_query(target_query if target_query is not None or shape.changes else query)
        self._shape = shape
        self._source = PageReader(source, ours, clock=clock, page_size=page_size)
        self._target = PageReader(target, theirs, clock=clock, page_size=page_size)
        self._stores = source, target
        self._target_query = theirs
        self._clock = clock
        self._last_id = ""
        self.read = 0
        """How many records of the source were read."""

    async def __aenter__(self) -> _RangePairs:
        await self._source.__aenter__()
        try:
            await self._target.__aenter__()
        except BaseException:
            await self._source.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, *exception: Any) -> None:
        try:
            await self._target.__aexit__(*exception)
        finally:
            await self._source.__aexit__(*exception)

    async def __aiter__(self) -> AsyncIterator[tuple[_Range, _Range]]:
        """Yield the source's and the target's records of each range.

        A range ends where a page of either store ends, so at most one page of each store is held
        back, however ids are distributed. Where the ids of a store do not sort as texts, the records of a
        range are those of one page of the source, looked up in the target.
        """
        if any(map(sorts_ids, self._stores)):
            async for pair in self._by_lookup():
                yield pair
            return
        ours: list[Record] = []
        theirs: list[Record] = []
        while True:
            ours = ours or await self._next_source_page()
            theirs = theirs or _check_ascending((await self._target.page()).records)
            ends = [_id(page[-1]) for page in (ours, theirs) if page]
            if not ends:
                return
            our_range, ours = _split(ours, min(ends))
            their_range, theirs = _split(theirs, min(ends))
            yield our_range, their_range

    async def _by_lookup(self) -> AsyncIterator[tuple[_Range, _Range]]:
        """Yield each page of the source with its counterpart, then the records that only the target has.

        Keeps 8 bytes of each id.
        """
        if self._target_query.count is not None:
            raise UsageError("the ids of these stores sort differently: they are compared without a limit")
        seen: set[bytes] = set()
        while page := (await self._source.page()).records:
            self.read += len(page)
            shaped = await self._shape.apply(page)
            seen.update(_id_digest(record) for record in shaped)
            where = self._target_query.where & field("_id").in_([_id(record) for record in shaped])
            theirs = await retry_transient(functools.partial(self._stores[1].search, where), self._clock)
            yield _range_of(shaped), _range_of(theirs)
        while page := (await self._target.page()).records:
            extra = [record for record in page if _id_digest(record) not in seen]
            if extra:
                yield {}, _range_of(extra)

    async def _next_source_page(self) -> list[Record]:
        """Return the next page of which the transform keeps some records; empty at the end."""
        while page := (await self._source.page()).records:
            self.read += len(page)
            shaped = _check_ascending(await self._shape.apply(page), self._last_id)
            if shaped:
                self._last_id = _id(shaped[-1])
                return shaped
        return []


def _id(record: Record) -> str:
    assert record.id is not None
    return record.id


def _check_ascending(records: list[Record], last_id: str = "") -> list[Record]:
    for record in records:
        if _id(record) <= last_id:
            raise UsageError(
                f"ids are not in ascending order ({last_id!r}, then {record.id!r}), so the stores cannot be"
                " compared; does a transform change ids?"
            )
        last_id = _id(record)
    return records


def _id_digest(record: Record) -> bytes:
    return hashlib.blake2b(_id(record).encode(), digest_size=8).digest()


def _range_of(records: list[Record]) -> _Range:
    return {_id(record): (record_digest(record), record) for record in records}


def _split(records: list[Record], last_id: str) -> tuple[_Range, list[Record]]:
    """Return the records up to `last_id` as a range, and the others."""
    end = bisect_right(records, last_id, key=_id)
    return _range_of(records[:end]), records[end:]


def _digest_range(records: _Range) -> Digest:
    digest = Digest()
    for record_hash, _ in records.values():
        digest.add(record_hash)
    return digest


def _find_differences(ours: _Range, theirs: _Range) -> list[Difference]:
    found = []
    for id in sorted(ours.keys() | theirs.keys()):
        our_hash, source = ours.get(id, (None, None))
        their_hash, target = theirs.get(id, (None, None))
        if our_hash != their_hash:
            kind: Literal["missing", "extra", "changed"] = (
                "extra" if source is None else "missing" if target is None else "changed"
            )
            found.append(Difference(kind, id, source, target))
    return found


def _collect_changes(left: Any, right: Any, path: str, changed: dict[str, tuple[Any, Any]]) -> None:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            _collect_changes(left.get(key, ...), right.get(key, ...), f"{path}.{key}", changed)
    elif left is ... or right is ... or canonical_json(left) != canonical_json(right):
        changed[path] = (left, right)
