"""Random changes of fields, for programs: as texts and lists, so that a program can be pasted into a test."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeAlias

from isthmus import Transaction
from isthmus._collection import CollectionMethods
from isthmus._query.changes import FieldChange
from isthmus._query.field import field
from isthmus.errors import IsthmusError, NotWrittenError, QueryError, RecordError
from isthmus.testing.records import RecordSet

Spec: TypeAlias = tuple[Any, ...]
"""The name of a change, the keys of its path, and its operands."""

_NAMES = ("set", "unset", "inc", "inc", "max", "min", "push", "pull", "add")
_NUMBERS = (1, -1, 0, 0.1, 0.5, -2.0, 2**53, 2**62, -(2**63), 1e308, 1e15, 3, 1e-7)


def build_changes(specs: tuple[Spec, ...]) -> list[FieldChange]:
    """Return the changes of specs."""
    return [getattr(field(list(keys)), name)(*operands) for name, keys, *operands in specs]


async def modify_apart(
    items: Sequence[tuple[str, list[FieldChange], str | None]], target: CollectionMethods, *, atomic: bool
) -> list[str | IsthmusError]:
    """Return what `modify_batch` returns, by a call for each item; `atomic` needs transactions."""
    outcomes: list[str | IsthmusError] = []

    async def modify_all(inside: CollectionMethods) -> None:
        for id, changes, version in items:
            try:
                outcomes.append(await inside.modify(id, *changes, if_version=version))
            except RecordError as error:
                outcomes.append(error)

    if not atomic:
        await modify_all(target)
        return outcomes
    opening: Any = target.savepoint if isinstance(target, Transaction) else target.transaction  # type: ignore[attr-defined]
    try:
        async with opening() as inside:
            await modify_all(inside)
            if any(isinstance(outcome, IsthmusError) for outcome in outcomes):
                raise _RefusedError
    except _RefusedError:
        pass
    else:
        return outcomes
    return [
        outcome if isinstance(outcome, IsthmusError) else NotWrittenError("another failed", record_id=item[0])
        for item, outcome in zip(items, outcomes, strict=True)
    ]


class _RefusedError(Exception):
    """Ends the transaction of a batch that is to be undone."""


def random_changes(rng: random.Random, pool: RecordSet, *, harmless: bool = False) -> tuple[Spec, ...]:
    """Return one to three changes; `harmless`: of a kind that every record admits."""
    return tuple(_random_change(rng, pool, harmless=harmless) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def _random_change(rng: random.Random, pool: RecordSet, *, harmless: bool) -> Spec:
    while True:
        keys, value = _random_place(rng, rng.choice(pool.records).data)
        name = rng.choice(_NAMES)
        if harmless:
            name, keys = rng.choice(("set", "unset")), keys[:1]
        spec = (name, keys, *_operands(rng, name, value, pool))
        try:
            build_changes((spec,))
        except QueryError:  # such as `max` with a list
            continue
        return spec


def _random_place(rng: random.Random, data: dict[str, Any]) -> tuple[tuple[str, ...], Any]:
    """Return the keys of a value in the data, or next to one, and the value that is near."""
    keys: list[str] = []
    value: Any = data
    while isinstance(value, dict) and value and (not keys or rng.random() < 0.7):
        key = rng.choice(list(value))
        keys.append(key)
        value = value[key]
    if not keys or rng.random() < 0.15:
        keys.append(rng.choice(("n", "new", "a", "")))
    return tuple(keys), value


def _operands(rng: random.Random, name: str, near: Any, pool: RecordSet) -> tuple[Any, ...]:
    def value() -> Any:
        if isinstance(near, list) and near and rng.random() < 0.5:
            return rng.choice(near)
        if rng.random() < 0.4:
            return near
        return _random_place(rng, rng.choice(pool.records).data)[1]

    match name:
        case "unset":
            return ()
        case "inc":
            return (rng.choice(_NUMBERS),)
        case "max" | "min":
            return (rng.choice(_NUMBERS) if rng.random() < 0.5 else value(),)
        case "push" | "add":
            return tuple(value() for _ in range(rng.randint(1, 3)))
    return (value(),)
