"""Unique fields of programs: which ones, and what then cannot be compared."""

from __future__ import annotations

import dataclasses
import random
from typing import Any, TypeAlias

from isthmus import AsyncDatabase
from isthmus._core.unique import SupportsUnique, Unique
from isthmus._path import Path, Root
from isthmus.testing.records import RecordSet

Groups: TypeAlias = "tuple[tuple[tuple[str, ...], ...], ...]"
"""Fields that are unique together, each by its keys."""


def random_groups(rng: random.Random, pool: RecordSet) -> Groups:
    """Return one or two groups of fields of the records, or below one; SQLite has no path for others."""
    names = {key for record in pool.records for key in record.data if key.isprintable()}
    keys = sorted(key for key in names - {""} if not {'"', "\\"} & set(key))
    if not keys:
        return ((("n",),),)
    groups: set[tuple[tuple[str, ...], ...]] = set()
    for _ in range(rng.choice((1, 1, 2))):
        chosen = rng.sample(keys, min(len(keys), rng.choice((1, 1, 1, 2))))
        groups.add(tuple((name, "x") if rng.random() < 0.1 else (name,) for name in sorted(chosen)))
    return tuple(sorted(groups))


async def declare(db: AsyncDatabase, groups: Groups) -> None:
    """Make fields of the handle's empty collection unique, as its config would."""
    backend = db._backend
    assert isinstance(backend, SupportsUnique)
    for unique in unique_of_keys(groups):
        await backend.make_unique(db.collection_name, unique)


def unique_of_keys(groups: Groups) -> list[Unique]:
    """Return the declarations."""
    return [Unique(tuple(Path(Root.DATA, keys) for keys in group)) for group in groups]


def comparable(steps: list[Any], *, transactions: bool) -> list[Any]:
    """Return the steps of a program with unique fields that every store answers alike.

    Without transactions an `update_where` changes the records that come before a clash, in the order
    of a scan; memory, which has them, changes none.
    """
    if transactions:
        return steps
    kept = [step for step in steps if step.verb != "update_where"]
    return [
        dataclasses.replace(step, steps=tuple(comparable(list(step.steps), transactions=False)))
        for step in kept
    ]
