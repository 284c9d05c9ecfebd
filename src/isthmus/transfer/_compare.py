"""Compares two stores by digests of ranges of ids, and mends only what differs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isthmus import Query, Record, UsageError
from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._query.ast import Predicate
from isthmus._query.query import as_query
from isthmus.transfer._digest import Digest, canonical_json, record_digest
from isthmus.transfer._fields import Shape, Transform
from isthmus.transfer._pages import Reader, Store
from isthmus.transfer._patience import patient
from isthmus.transfer._receipt import SHOWN, Repair

_MEND = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """A record that is not the same on both sides.

    `missing`: the target lacks it; `extra`: only the target has it; `changed`: both have it.
    """

    kind: Literal["missing", "extra", "changed"]
    id: str
    source: Record | None = None
    """As it should be in the target, the field mapping and transform applied."""
    target: Record | None = None

    def paths(self) -> dict[str, tuple[Any, Any]]:
        """Return the parts that differ, as `{"data.age": (source's value, target's)}`; `...` is absent."""
        if self.source is None or self.target is None:
            return {}
        found: dict[str, tuple[Any, Any]] = {}
        _differing(self.source.data, self.target.data, "data", found)
        _differing(self.source.metadata, self.target.metadata, "metadata", found)
        return found


@dataclass(slots=True)
class Comparison:
    """What `verify` found."""

    source: Digest = field(default_factory=Digest)
    target: Digest = field(default_factory=Digest)
    ranges: int = 0
    """How many ranges of ids were compared."""
    differing_ranges: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    differences: list[tuple[str, str]] = field(default_factory=list)
    """Kind and id of the first 1,000 differences."""
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same records."""
        return not (self.missing or self.extra or self.changed) and self.source == self.target

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
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
    """Compare both sides range by range and return digests, counts and what differs.

    A range ends where a page of either side ends. `query` chooses the records on both sides unless
    `target_query` is given; if the copy changed fields, pass the same `fields` and `transform`,
    and the target's side is everything unless `target_query` says less. Both sides are read at
    the same time, in bounded memory. `progress` gets the number of records of the source so far.
    """
    start = clock.now()
    result = Comparison()
    sides = _Sides(source, target, query, target_query, Shape(fields, transform), page_size, clock)
    async with sides:
        async for ours, theirs in sides.ranges():
            result.ranges += 1
            left, right = _digest(ours), _digest(theirs)
            result.source += left
            result.target += right
            if left != right:
                result.differing_ranges += 1
                for difference in _unequal(ours, theirs):
                    setattr(result, difference.kind, getattr(result, difference.kind) + 1)
                    if len(result.differences) < SHOWN:
                        result.differences.append((difference.kind, difference.id))
            if progress is not None:
                progress(sides.read)
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
    """Yield each difference with both records, in the order of ids; arguments as for `verify`."""
    sides = _Sides(source, target, query, target_query, Shape(fields, transform), page_size, clock)
    async with sides:
        async for ours, theirs in sides.ranges():
            if _digest(ours) != _digest(theirs):
                for difference in _unequal(ours, theirs):
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
    """Write to the target what differs and nothing else; delete what only it has if told to.

    Raises `BatchError` if the target refuses a record.
    """
    result = Repair()
    found = differences(
        source,
        target,
        query,
        target_query=target_query,
        fields=fields,
        transform=transform,
        page_size=page_size,
        clock=clock,
    )
    wanting: list[Record] = []
    surplus: list[str] = []

    async def mend() -> None:
        if wanting:
            batch = list(wanting)
            await patient(lambda: target.upsert_batch(batch), clock)
            result.written += len(batch)
        if surplus:
            ids = list(surplus)
            await patient(lambda: target.delete_batch(ids), clock)
            result.deleted += len(ids)
        wanting.clear()
        surplus.clear()

    async for difference in found:
        if difference.source is not None:
            wanting.append(difference.source)
        elif delete_extra:
            surplus.append(difference.id)
        else:
            result.left += 1
        if len(wanting) + len(surplus) >= _MEND:
            await mend()
    await mend()
    return result


Side = dict[str, tuple[int, Record]]


class _Sides:
    """The same ranges of ids of two stores, read at the same time."""

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
        self._source = Reader(source, ours, clock=clock, page_size=page_size)
        self._target = Reader(target, theirs, clock=clock, page_size=page_size)
        self._last = ""
        self.read = 0

    async def __aenter__(self) -> _Sides:
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

    async def ranges(self) -> AsyncIterator[tuple[Side, Side]]:
        """Yield the records of each range by id, a range ending where one side's page ends.

        So at most one page of each side waits, however the ids are spread.
        """
        ours: list[Record] = []
        theirs: list[Record] = []
        while True:
            ours = ours or await self._next_of_source()
            theirs = theirs or _ascending((await self._target.page()).records)
            ends = [_id(page[-1]) for page in (ours, theirs) if page]
            if not ends:
                return
            ours_now, ours = _split(ours, min(ends))
            theirs_now, theirs = _split(theirs, min(ends))
            yield _side(ours_now), _side(theirs_now)

    async def _next_of_source(self) -> list[Record]:
        """Return the next page that is not left out as a whole."""
        while page := (await self._source.page()).records:
            self.read += len(page)
            shaped = _ascending(await self._shape.apply(page), self._last)
            if shaped:
                self._last = _id(shaped[-1])
                return shaped
        return []


def _id(record: Record) -> str:
    assert record.id is not None
    return record.id


def _ascending(records: list[Record], last: str = "") -> list[Record]:
    for record in records:
        if _id(record) <= last:
            raise UsageError(
                f"the ids do not come in order ({last!r}, then {record.id!r}), so the sides cannot be"
                " compared; does a transform change ids?"
            )
        last = _id(record)
    return records


def _split(records: list[Record], upto: str) -> tuple[list[Record], list[Record]]:
    end = bisect_right(records, upto, key=_id)
    return records[:end], records[end:]


def _side(records: list[Record]) -> Side:
    return {_id(record): (record_digest(record), record) for record in records}


def _digest(side: Side) -> Digest:
    digest = Digest()
    for one, _ in side.values():
        digest.add(one)
    return digest


def _unequal(ours: Side, theirs: Side) -> list[Difference]:
    found = []
    for id in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(id), theirs.get(id)
        if left is None:
            assert right is not None
            found.append(Difference("extra", id, None, right[1]))
        elif right is None:
            found.append(Difference("missing", id, left[1], None))
        elif left[0] != right[0]:
            found.append(Difference("changed", id, left[1], right[1]))
    return found


def _differing(left: Any, right: Any, where: str, found: dict[str, tuple[Any, Any]]) -> None:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            _differing(left.get(key, ...), right.get(key, ...), f"{where}.{key}", found)
    elif left is ... or right is ... or canonical_json(left) != canonical_json(right):
        found[where] = (left, right)
