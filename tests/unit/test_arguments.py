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


@pytest.mark.parametrize("value", [5, True, ["1"], {}, "\ud800"], ids=_name_of)
@pytest.mark.asyncio
async def test_a_version_is_text(value: Any) -> None:
    """A number from a JSON body is not taken for the text that it looks like."""
    async with await AsyncDatabase.create("memory", {}) as db:
        await db.upsert("a", {"n": 1})
        for call in (
            lambda: db.replace("a", {}, if_version=value),
            lambda: db.update("a", {}, if_version=value),
            lambda: db.upsert("a", {}, if_version=value),
            lambda: db.delete("a", if_version=value),
            lambda: db.modify("a", field("n").inc(1), if_version=value),
            lambda: db.update_batch([("a", {}, value)]),
            lambda: db.modify_batch([("a", field("n").inc(1), value)]),
        ):
            with pytest.raises(UsageError, match="if_version"):
                await call()
        assert (await db.require("a")).data == {"n": 1}


@pytest.mark.asyncio
async def test_what_is_no_list_and_no_function_is_refused() -> None:
    """By the errors of the calls, not by what Python says of the value inside of them."""
    nothing: Any = None
    async with await AsyncDatabase.create("memory", {}) as db:
        for batch in (db.create_batch, db.update_batch, db.modify_batch, db.delete_batch):
            with pytest.raises(UsageError):
                await batch(nothing)
        for given in ({"by": nothing, "n": "count"}, {"by": 5, "n": "count"}, {"n": nothing}, {"n": 5}):
            with pytest.raises(QueryError):
                await db.aggregate(**given)
        with pytest.raises(UsageError):
            await db.run(nothing)
        with pytest.raises(QueryError):
            Query().select(*map(str, range(1_001)))
        wide = Query().any_of(*(field(f"f{n}") > n for n in range(2_500))).where
        for id in ("a", "nobody"):
            with pytest.raises(QueryError):
                await db.modify(id, field("n").inc(1), where=wide)


@pytest.mark.asyncio
async def test_a_task_does_not_wait_for_its_own_transaction() -> None:
    """`close` inside of it would wait for the whole of its time, and then drop it."""
    async with await AsyncDatabase.create("sqlite", {}) as db:
        async with db.transaction() as tx:
            await tx.upsert("a", {})
            with pytest.raises(UsageError):
                await db.close()
        assert await db.count() == 1


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
