"""Numbers and settings of the wrong type or size: one typed error each, whatever they would have come to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, field, nearest
from isthmus.errors import IsthmusError, QueryError, UsageError
from isthmus.transfer import copy

NONSENSE: list[Any] = ["x", b"x", math.nan, math.inf, -math.inf, -1, 1.5, True, [], {}, object()]
HUGE = 10**5_000


async def _read_changes(db: AsyncDatabase, **given: Any) -> None:
    async with db.changes(since="start", **given) as changes:
        await changes.read(wait=False)


async def _read(db: AsyncDatabase, limit: Any) -> None:
    async with db.changes(since="start") as changes:
        await changes.read(limit, wait=False)


async def _begin(db: AsyncDatabase, isolation: Any) -> None:
    async with db.transaction(isolation=isolation):
        pass


async def _derive(db: AsyncDatabase, policy: Any) -> None:
    db.options(policy=policy)


async def _stream(db: AsyncDatabase, size: Any) -> None:
    db.stream(page_size=size)


CALLS: dict[str, Callable[[AsyncDatabase, Any], Awaitable[object]]] = {
    "page": lambda db, value: db.page(size=value),
    "stream": _stream,
    "stream_write": lambda db, value: db.stream_write([{}], batch_size=value),
    "read": _read,
    "run": lambda db, value: db.run(lambda tx: tx.count(), attempts=value),
    "partitions": lambda db, value: db.partitions(Query(), value),
    "copy page_size": lambda db, value: copy(db, db.collection("other"), page_size=value),
    "copy in_flight": lambda db, value: copy(db, db.collection("other"), in_flight=value),
}
OTHERS: dict[str, Callable[[AsyncDatabase, Any], Awaitable[object]]] = {
    "poll": lambda db, value: _read_changes(db, poll=value),
    "close": lambda db, value: db.close(timeout=value),
    "isolation": _begin,
    "policy": _derive,
    "zone": lambda db, value: db.aggregate(by=field("n").by("day", zone=value), c="count"),
}


def _name_of(value: Any) -> str:
    is_printable = not isinstance(value, int) or abs(value) < 1_000
    return (repr(value) if is_printable else "huge" if value > 0 else "-huge").split(" at ")[0]


@pytest.mark.parametrize("value", [*NONSENSE, HUGE, -HUGE], ids=_name_of)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.asyncio
async def test_a_count_is_a_whole_number_from_1(name: str, value: Any) -> None:
    """NaN is not above any bound, so a loop that fills up to it would never end."""
    async with await AsyncDatabase.create("memory", {"changes": True}) as db:
        await db.upsert("a", {"n": 1})
        async with asyncio.timeout(5):
            with pytest.raises(UsageError):
                await CALLS[name](db, value)


@pytest.mark.parametrize("value", ["x", b"x", math.nan, -1, [], {}, object()], ids=_name_of)
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.asyncio
async def test_other_arguments_are_refused_too(name: str, value: Any) -> None:
    """An isolation level may be refused as unsupported."""
    async with await AsyncDatabase.create("memory", {"changes": True}) as db:
        with pytest.raises(IsthmusError):
            await OTHERS[name](db, value)
        assert not db.closed


@pytest.mark.parametrize("value", [HUGE, -HUGE], ids=_name_of)
@pytest.mark.asyncio
async def test_a_number_that_python_cannot_print_is_refused_in_words(value: int) -> None:
    """Neither the number nor what a float makes of it comes out as another error."""
    async with await AsyncDatabase.create("memory", {}) as db:
        with pytest.raises(QueryError):
            await db.aggregate(c=("percentile", "n", value))
        with pytest.raises(QueryError):
            nearest("n", [value], 1)
        if value < 0:
            with pytest.raises(QueryError):
                Query().limit(value)
            with pytest.raises(QueryError):
                Query().offset(value)
            with pytest.raises(QueryError):
                field("n").by(value)
