"""Calls that are cancelled at random: by class of method, and in three ways."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import anyio

from isthmus import AsyncDatabase, IsthmusError, Query, field
from isthmus.transfer import copy

Call: TypeAlias = Callable[[], Awaitable[Any]]
WAYS = ("once", "twice", "anyio")
"""One cancellation; several while the first is handled; a cancel scope, which cancels at every await."""
_REGEX = Query().filter("t", "regex", "(?i)x")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one handle, and what they need."""

    db: AsyncDatabase
    reopen: Callable[[], Awaitable[AsyncDatabase]]
    folder: Path
    other: str
    """Another collection, for copies."""

    def by_class(self) -> dict[str, list[Call]]:
        """Return the calls that the backend has, by class."""
        db, can = self.db, self.db.capabilities
        calls: dict[str, list[Call]] = {
            "read": [
                lambda: db.get("a"),
                lambda: db.get_batch(list("abc")),
                lambda: db.search(Query().filter("n", ">=", 1).sort("n").limit(20)),
                lambda: db.search(_REGEX.sort("n")),
                lambda: db.count(field("n") == 1),
                lambda: db.page(Query().sort("n"), size=5),
                lambda: db.aggregate(by="n", c="count"),
            ],
            "write": [
                lambda: db.create({"n": 1, "t": "x"}),
                lambda: db.create_batch([{"n": n} for n in range(20)]),
                lambda: db.create_batch([{"n": n} for n in range(400)]),  # COPY, several bulks, many puts
                lambda: db.upsert_batch({str(n): {"n": n} for n in range(30)}),
                lambda: db.update("a", {"n": 3}),
                lambda: db.delete_batch([str(n) for n in range(30)]),
                lambda: db.delete_where(field("n") == 399),
            ],
            "stream": [
                lambda: _read(db, Query()),
                lambda: _read(db, Query(), leave=3),
                lambda: _read(db, _REGEX.sort("n").limit(9)),
                lambda: _abandon(db, consistent=False),
                lambda: _read(db, Query().sort("n")),
                lambda: _read(db, Query().sort("n"), leave=3),
            ],
            "open": [self._connect, self._lazy, db.ping, db.collections],
            "partition": [lambda: self._partitions(2)] if not db.config.private_to_handle() else [],
            "copy": [lambda: self._copy(None), lambda: self._copy(self.folder)],
        }
        if can.transactions:
            calls["transaction"] = [self._transaction, self._nested, self._shared, self._stream_inside]
        if can.consistent_stream:
            calls["snapshot"] = [
                lambda: _read(db, Query(), consistent=True),
                lambda: _read(db, Query(), leave=3, consistent=True),
                lambda: _read(db, _REGEX.sort("n").limit(7), consistent=True),
                lambda: _abandon(db, consistent=True),
            ]
        return {name: kept for name, kept in calls.items() if kept}

    async def _connect(self) -> None:
        other = await self.reopen()
        await other.close()

    async def _lazy(self) -> None:
        async with await self.reopen() as other:
            await other.get("a")

    async def _partitions(self, count: int) -> None:
        for part in await self.db.partitions(Query(), count):
            async for _ in part.stream():
                pass

    async def _copy(self, folder: Path | None) -> None:
        journal = None if folder is None else folder / f"copy-{next(_numbers)}"
        target = self.db.collection(self.other)
        await copy(self.db, target, _REGEX, page_size=5, journal=journal, in_flight=2)

    async def _transaction(self) -> None:
        async with self.db.transaction() as tx:
            await tx.create({"n": 1})
            async with tx.savepoint():
                await tx.upsert("a", {"n": 2})

    async def _nested(self) -> None:
        async with self.db.transaction():
            await self.db.upsert("b", {"n": 2})
            async with self.db.transaction() as tx:
                await tx.upsert("c", {"n": 2})
                async with self.db.transaction():
                    await self.db.delete("d")

    async def _shared(self) -> None:
        async with self.db.transaction() as tx, asyncio.TaskGroup() as group:
            group.create_task(tx.upsert("e", {"n": 1}))
            group.create_task(tx.count())

    async def _stream_inside(self) -> None:
        async with self.db.transaction() as tx:
            await _read(tx, Query(), consistent=self.db.capabilities.consistent_stream)
            await _read(tx, Query(), leave=3)


async def _read(source: Any, query: Query, *, leave: int = -1, consistent: bool = False) -> None:
    async with source.stream(query, consistent=consistent, page_size=5) as records:
        async for _ in records:
            leave -= 1
            if leave == 0:
                break


async def _abandon(db: AsyncDatabase, *, consistent: bool) -> None:
    """Leave a stream without closing it, as a loop with `break` does."""
    async for _ in db.stream(consistent=consistent, page_size=2):
        break


async def interrupt(call: Call, way: str, pick: Random) -> bool:
    """Run a call and cancel it after some turns of the loop, or some time; return whether it was.

    Errors of isthmus are fine, since calls run beside each other; any other is raised.
    """
    was_cancelled = False
    try:
        if way == "anyio":
            was_cancelled = await _interrupt_scope(call, pick)
        else:
            was_cancelled = await _interrupt_task(call, way, pick)
    except* IsthmusError:
        pass
    return was_cancelled


async def _pause(pick: Random) -> None:
    if pick.random() < 0.5:
        for _ in range(pick.randrange(0, 30)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(pick.random() ** 2 * 0.03)


async def _interrupt_task(call: Call, way: str, pick: Random) -> bool:
    task = asyncio.ensure_future(call())
    await _pause(pick)
    for _ in range(1 if way == "once" else pick.randrange(2, 5)):
        task.cancel()
        for _ in range(pick.randrange(4)):
            await asyncio.sleep(0)
    done, _ = await asyncio.wait([task], timeout=20)
    assert done, f"a cancelled call still runs after 20 s: {task!r}"
    if task.cancelled():
        return True
    task.result()
    return False


async def _interrupt_scope(call: Call, pick: Random) -> bool:
    ended = False

    async def run() -> None:
        nonlocal ended
        await call()
        ended = True

    async with asyncio.timeout(20), anyio.create_task_group() as group:
        group.start_soon(run)
        await _pause(pick)
        group.cancel_scope.cancel()
    return not ended
