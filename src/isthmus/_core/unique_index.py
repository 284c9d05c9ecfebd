"""Which records have which values of a collection's unique fields, for stores that keep this themselves.

`UniqueIndex` holds what is stored, `UniqueChanges` what a write changes about it. A write is applied
item by item against the changes of the items before it; changes that are kept are applied to what
they were made on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeAlias

from isthmus._core.unique import Duplicate, Key, Unique, canonical_text, clash, json_text, key_in
from isthmus.errors import InvalidRecordError

Claim: TypeAlias = str
"""A value of a unique field, or of several: the declaration and the canonical value as text."""


class Claims(Protocol):
    """Records and their values, as stored or as a write leaves them."""

    @property
    def declared(self) -> tuple[Unique, ...]:
        """Return the unique fields, in one order."""
        ...

    def holder(self, claim: Claim) -> str | None:
        """Return the id of the record that has a value; None if none has."""
        ...

    def claims_of(self, id: str) -> tuple[Claim, ...]:
        """Return the values that a record has."""
        ...


class MutableClaims(Claims, Protocol):
    """Claims that take changes."""

    def store(self, id: str, claims: tuple[Claim, ...]) -> None:
        """Note the values that a record has from now on."""
        ...

    def clear(self) -> None:
        """Forget all values."""
        ...


class UniqueIndex:
    """The values of stored records; costs two dict entries for each record that has one."""

    def __init__(self, declared: Iterable[Unique] = ()) -> None:
        self.declared = in_order(declared)
        self._holders: dict[Claim, str] = {}
        self._claims: dict[str, tuple[Claim, ...]] = {}

    def __bool__(self) -> bool:
        """Return whether any field is unique."""
        return bool(self.declared)

    def holder(self, claim: Claim) -> str | None:
        """Return the id of the record that has a value; None if none has."""
        return self._holders.get(claim)

    def claims_of(self, id: str) -> tuple[Claim, ...]:
        """Return the values that a record has."""
        return self._claims.get(id, ())

    def store(self, id: str, claims: tuple[Claim, ...]) -> None:
        """Note the values that a record has from now on; another's are given to it."""
        for claim in self._claims.pop(id, ()):
            if self._holders.get(claim) == id:
                del self._holders[claim]
        if claims:
            self._claims[id] = claims
            self._holders.update(dict.fromkeys(claims, id))

    def clear(self) -> None:
        """Forget all values."""
        self._holders.clear()
        self._claims.clear()

    def is_consistent(self) -> bool:
        """Return whether each value belongs to one record."""
        return len(self._holders) == sum(map(len, self._claims.values()))


class UniqueChanges:
    """What a write, or a transaction, changes about an index or about the changes before it.

    `touched` has every value that the write has asked for, given up or been refused.
    """

    def __init__(self, base: Claims) -> None:
        self._base = base
        self.declared: tuple[Unique, ...] = base.declared
        self._holders: dict[Claim, str | None] = {}
        self._claims: dict[str, tuple[Claim, ...]] = {}
        self.touched: set[Claim] = set()
        self._cleared = False

    def holder(self, claim: Claim) -> str | None:
        """Return the id of the record that has a value; None if none has."""
        if claim in self._holders:
            return self._holders[claim]
        return None if self._cleared else self._base.holder(claim)

    def claims_of(self, id: str) -> tuple[Claim, ...]:
        """Return the values that a record has."""
        if id in self._claims:
            return self._claims[id]
        return () if self._cleared else self._base.claims_of(id)

    def put(self, id: str, data: dict[str, Any]) -> None:
        """Note the values of a whole record; changes nothing if it is refused.

        Raises `AlreadyExistsError` with the record that has one of the values already, and
        `InvalidRecordError` for a value that a unique field cannot have.
        """
        claims = []
        for unique in self.declared:
            key = key_in(data, unique)
            if key is None:
                continue
            claim = self.claim_of(unique, key)
            self.touched.add(claim)
            other = self.holder(claim)
            if other is not None and other != id:
                raise clash(unique, other)
            claims.append(claim)
        self.store(id, tuple(claims))

    def claim_of(self, unique: Unique, key: Key) -> Claim:
        """Return a value of a unique field as it is kept."""
        return claim_of(unique, key)

    def remove(self, id: str) -> None:
        """Note that a record is gone."""
        self.store(id, ())

    def clear(self) -> None:
        """Note that all records are gone."""
        self._holders.clear()
        self._claims.clear()
        self._cleared = True

    def store(self, id: str, claims: tuple[Claim, ...]) -> None:
        """Note the values that a record has from now on."""
        before = self.claims_of(id)
        self.touched.update(before)
        for claim in before:
            if self.holder(claim) == id:
                self._holders[claim] = None
        self._holders.update(dict.fromkeys(claims, id))
        self._claims[id] = claims

    def claims(self) -> Iterator[tuple[str, tuple[Claim, ...]]]:
        """Yield the records whose values may have changed, with their values now."""
        yield from self._claims.items()

    def apply_to(self, target: MutableClaims) -> None:
        """Make the changes elsewhere: first all that was given up, then what was claimed."""
        if self._cleared:
            target.clear()
        for id in self._claims:
            target.store(id, ())
        for id, claims in self._claims.items():
            if claims:
                target.store(id, claims)

    def copy(self) -> UniqueChanges:
        """Return a copy, to go back to."""
        copied = UniqueChanges(self._base)
        copied._holders, copied._claims = dict(self._holders), dict(self._claims)
        copied.touched, copied._cleared = self.touched, self._cleared
        return copied


def in_order(declared: Iterable[Unique]) -> tuple[Unique, ...]:
    """Return declarations in the order in which a record's values are checked."""
    return tuple(sorted(declared, key=str))


def claim_of(unique: Unique, key: Key) -> Claim:
    """Return a value of a unique field as text that no other field or value has."""
    return f"{json_text(unique.to_json())}{canonical_text(key)}"  # type: ignore[arg-type]


class DuplicateSearch:
    """Collects the values of records one by one, to find those that several have.

    Values that a unique field cannot have are passed over. Keeps every value in memory.
    """

    def __init__(self, unique: Unique) -> None:
        self._unique = unique
        self._ids: dict[str, tuple[Key, list[str]]] = {}

    def add(self, id: str, data: dict[str, Any]) -> None:
        """Add a record."""
        with contextlib.suppress(InvalidRecordError):
            key = key_in(data, self._unique)
            if key is not None:
                self._ids.setdefault(canonical_text(key), (key, []))[1].append(id)

    def duplicates(self) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        several = [(sorted(ids), list(key)) for key, ids in self._ids.values() if len(ids) > 1]
        several.sort(key=lambda one: one[0])
        return [(key, ids[:10]) for ids, key in several[:20]]
