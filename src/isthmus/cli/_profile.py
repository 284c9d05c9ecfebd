"""What the fields of a collection hold: kinds, filled share, distinct values, the commonest and the range.

Memory is bounded whatever is read: of each field at most `MAX_DISTINCT` different values are counted,
and of a collection at most `MAX_FIELDS` fields are described.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from isthmus import Record
from isthmus._query.order import SortValue, type_rank
from isthmus._values import kind_of

MAX_DISTINCT = 10_000
MAX_FIELDS = 1_000
_LONGEST = 200
"""Characters of a text that are kept as the commonest, smallest or largest value."""
_ATTRIBUTE_NAMES = frozenset({"_id", "_version", "_created_at", "_updated_at", "_metadata", "_score"})


@dataclass
class FieldProfile:
    """What one path holds; lists are entered, as a condition on the path does."""

    filled: int = 0
    """The number of records with a value other than null."""
    kinds: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, Any]] = field(default_factory=Counter)
    """How often each scalar occurs, until there are more than `MAX_DISTINCT`."""
    overflowed: bool = False
    smallest: tuple[SortValue, Any] | None = None
    largest: tuple[SortValue, Any] | None = None

    def add(self, values: list[Any]) -> None:
        """Add the values that one record has at the path."""
        self.filled += any(value is not None for value in values)
        for value in values:
            kind = kind_of(value)
            self.kinds[kind] += 1
            if kind not in ("bool", "number", "text"):
                continue
            place = type_rank(value)
            if self.smallest is None or place < self.smallest[0]:
                self.smallest = (place, value)
            if self.largest is None or place > self.largest[0]:
                self.largest = (place, value)
            if not self.overflowed:
                self.counts[kind, value] += 1
                if len(self.counts) > MAX_DISTINCT:
                    self.overflowed = True
                    self.counts.clear()

    def to_json(self, records: int) -> dict[str, Any]:
        """Return the profile as JSON; `distinct`, `commonest` are None where there were too many values."""
        common = self.counts.most_common(1)
        repeated = bool(common) and (common[0][1] > 1 or records == 1)
        return {
            "types": [kind for kind, _ in self.kinds.most_common() if kind != "null"] or ["null"],
            "filled": self.filled,
            "distinct": None if self.overflowed else len(self.counts),
            "commonest": _shorten(common[0][0][1]) if repeated else None,
            "commonest_count": common[0][1] if repeated else None,
            "smallest": None if self.smallest is None else _shorten(self.smallest[1]),
            "largest": None if self.largest is None else _shorten(self.largest[1]),
        }


class Profile:
    """The profile of the records that were added; `fields` by path, in the order of appearance."""

    def __init__(self) -> None:
        self.records = 0
        self.fields: dict[str, FieldProfile] = {}
        self.left_out = False
        """Whether there were more than `MAX_FIELDS` fields."""

    def add(self, record: Record) -> None:
        """Add one record."""
        self.records += 1
        found: dict[str, list[Any]] = {}
        for name, value in walk_record(record):
            found.setdefault(name, []).append(value)
        for name, values in found.items():
            profile = self.fields.get(name)
            if profile is None:
                if len(self.fields) >= MAX_FIELDS:
                    self.left_out = True
                    continue
                profile = self.fields[name] = FieldProfile()
            profile.add(values)

    async def add_all(
        self, records: AsyncIterator[Record], *, count: int | None, seconds: float | None
    ) -> bool:
        """Add records until there are `count` or `seconds` have passed; return whether those were all."""
        end = None if seconds is None else time.monotonic() + seconds
        async for record in records:
            if self.records == count or (end is not None and time.monotonic() > end):
                return False
            self.add(record)
        return True


def walk_record(record: Record) -> Iterator[tuple[str, Any]]:
    """Yield the name of each field of the data and the metadata with each of its values."""
    yield from walk_fields(record.data)
    for name, value in walk_fields(record.metadata):
        yield f"_metadata.{name}", value


def walk_fields(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name of each field, as a filter writes it, with each of its values.

    Objects are entered; so are lists, of whose elements each is a value. An empty object is one itself.
    """
    for key, value in data.items():
        name = prefix + _quote(key, first=not prefix)
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, list):
                stack.extend(reversed(item))
            elif isinstance(item, dict) and item:
                yield from walk_fields(item, f"{name}.")
            else:
                yield name, item


def _quote(key: str, *, first: bool) -> str:
    """Return a key as the filter language writes it."""
    plain = key.replace("-", "_").isidentifier() and not key.startswith("-")
    if plain and not (first and key in _ATTRIBUTE_NAMES):
        return key
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shorten(value: Any) -> Any:
    return value[: _LONGEST - 1] + "…" if isinstance(value, str) and len(value) > _LONGEST else value
