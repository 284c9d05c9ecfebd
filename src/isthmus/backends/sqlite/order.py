"""Orders as SQL: each sort key is a type rank and a value; positions become conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from isthmus._query.ast import SortKey
from isthmus._query.lookup import values_in
from isthmus._query.order import NONE, NUMBER, OBJECT, TEXT, Position, is_id, sort_value
from isthmus.backends.sqlite.fields import (
    LIST,
    TYPE_RANKS,
    AttributeField,
    JSONField,
    NoField,
    OpaqueField,
    field_of,
)
from isthmus.backends.sqlite.statement import Binder

Step: TypeAlias = tuple[str, str, str]
"""A comparison in SQL: the value, `<` or `>`, and the placeholder of its operand."""
# Ranks of records without a value: before or after every type.
_BEFORE, _AFTER = -1, 9


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One sort key in SQL: the type rank (None if it is always text) and the value."""

    type_rank: str | None
    value: str
    descending: bool
    none: int
    """The rank of records without a value."""

    @property
    def direction(self) -> str:
        """Return ` DESC` or nothing."""
        return " DESC" if self.descending else ""

    def terms(self) -> list[str]:
        """Return the ORDER BY terms."""
        terms = [] if self.type_rank is None else [self.type_rank + self.direction]
        return [*terms, self.value + self.direction]

    def rank(self, type_rank: int) -> int:
        """Return the rank in this key for a type rank of a position."""
        return self.none if type_rank == NONE else type_rank

    def steps(self, bound: tuple[int, Any], binder: Binder) -> list[Step]:
        """Return the comparisons with a position's rank and value, the most significant first."""
        type_rank, value = bound
        sign = "<" if self.descending else ">"
        steps = [] if self.type_rank is None else [(self.type_rank, sign, str(self.rank(type_rank)))]
        if value is not None:
            steps.append((self.value, sign, binder.value(int(value) if isinstance(value, bool) else value)))
        return steps


class Ordering:
    """The order of one statement; the id is always its last key."""

    def __init__(self, order: tuple[SortKey, ...], binder: Binder) -> None:
        # Ids are unique: the keys after one are irrelevant.
        ids = [index for index, key in enumerate(order) if is_id(key.path)]
        self.order = order[: ids[0] + 1] if ids else order
        self._by_id_last = not ids
        self._length = len(order)
        self._binder = binder
        self.keys = [self._key(key) for key in self.order]

    def by(self, first: int = 0) -> str:
        """Return the ORDER BY terms of the keys from `first` on, where those before it are equal."""
        terms = [term for key in self.keys[first:] for term in key.terms()]
        return ", ".join([*terms, "id"] if self._by_id_last else terms)

    def after(self, position: Position, first: int = 0) -> str:
        """Return the condition of coming after a position whose keys before `first` are equal."""
        steps: list[Step] = []
        for key, bound in zip(self.keys[first:], position[first : self._length], strict=False):
            steps += key.steps(tuple(bound), self._binder)
        if self._by_id_last:
            steps.append(("id", ">", self._binder.value(position[self._length])))
        # Flat, since SQLite's parser holds only about 100 open symbols.
        alternatives = []
        for index, (value, sign, operand) in enumerate(steps):
            same = [f"{equal} = {other}" for equal, _, other in steps[:index]]
            alternatives.append(" AND ".join([*same, f"{value} {sign} {operand}"]))
        return "(" + " OR ".join(alternatives) + ")" if alternatives else "0"

    def _key(self, key: SortKey) -> OrderKey:
        none = rank_of_missing(key)
        field = field_of(key.path)
        match field:
            case AttributeField(value):
                return OrderKey(None, value, key.descending, none)
            case NoField():
                return OrderKey(None, "NULL", key.descending, none)
            case OpaqueField(column, keys):
                type_rank, value = self._by_function(column, keys, key, none)
            case JSONField():
                type_rank, value = self._scalar_or_list(field, key, none)
            case _:
                assert_never(field)
        return OrderKey(type_rank, value, key.descending, none)

    def _by_function(self, json: str, keys: tuple[str, ...], key: SortKey, none: int) -> tuple[str, str]:
        largest = key.descending
        test = self._binder.test(lambda value: sort_value(values_in(value, keys), largest=largest))
        type_rank = f"isthmus_type_rank({test}, {json})"
        return (
            f"CASE {type_rank} WHEN {NONE} THEN {none} ELSE {type_rank} END",
            f"isthmus_value({test}, {json})",
        )

    def _scalar_or_list(self, field: JSONField, key: SortKey, none: int) -> tuple[str, str]:
        calls: dict[tuple[str, tuple[str, ...]], tuple[str, str]] = {}

        def best(json: str, keys: tuple[str, ...]) -> tuple[str, str]:
            if (json, keys) not in calls:
                calls[json, keys] = self._by_function(json, keys, key, none)
            return calls[json, keys]

        ranks = {kind: str(rank) for kind, rank in TYPE_RANKS.items() if rank != LIST}
        x = field.value(self._binder)
        values = dict.fromkeys(("integer", "real", "text", "true", "false"), x)
        return (
            field.by_type(ranks, lambda json, keys: best(json, keys)[0], self._binder, str(none)),
            field.by_type(values, lambda json, keys: best(json, keys)[1], self._binder, "NULL"),
        )


def rank_of_missing(key: SortKey) -> int:
    """Return the type rank of records without a value: before or after every type."""
    return _BEFORE if key.nulls_first != key.descending else _AFTER


def arm_ranks(key: SortKey) -> list[int]:
    """Return the type ranks in the order of a sort key, one for each arm that an index serves."""
    ascending = [0, NUMBER, TEXT, OBJECT]
    return ascending[::-1] if key.descending else ascending
