"""The interleavings of Hermitage: what each isolation level admits and prevents.

Each begins with the records 1 (n = 10) and 2 (n = 20), and returns whether the anomaly was seen.
See https://github.com/ept/hermitage; its `value % 3 = 0` is `n == 30` here.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from isthmus import AsyncDatabase, Record, Transaction, field
from tests.isolation.actors import Actor, Step

Interleaving: TypeAlias = Callable[[AsyncDatabase, str], Awaitable[bool]]


def _set(id: str, n: int) -> Step:
    async def step(tx: Transaction) -> None:
        await tx.update(id, {"n": n})

    return step


def _get(id: str) -> Step:
    async def step(tx: Transaction) -> object:
        return (await tx.require(id))["n"]

    return step


def _create(id: str, n: int) -> Step:
    async def step(tx: Transaction) -> None:
        await tx.create(Record({"n": n}, id=id))

    return step


async def _thirties(tx: Transaction) -> int:
    return len(await tx.search(field("n") == 30))


async def _numbers(db: AsyncDatabase) -> list[object]:
    return [(await db.require(id))["n"] for id in ("1", "2")]


async def dirty_write(db: AsyncDatabase, level: str) -> bool:
    """G0: of two transactions that write both records, each record is left by another one."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_set("1", 11))
    await two.do(_set("1", 12))
    await one.do(_set("2", 21))
    await one.commit()
    await two.do(_set("2", 22))
    await two.commit()
    await one.committed()
    await two.committed()
    return await _numbers(db) not in ([11, 21], [12, 22])


async def aborted_read(db: AsyncDatabase, level: str) -> bool:
    """G1a: a value is read that is rolled back."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_set("1", 101))
    await two.do(_get("1"))
    await one.roll_back()
    await two.do(_get("1"))
    await two.commit()
    await one.committed()
    await two.committed()
    return 101 in two.results


async def intermediate_read(db: AsyncDatabase, level: str) -> bool:
    """G1b: a value is read that its own transaction overwrites."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_set("1", 101))
    await two.do(_get("1"))
    await one.do(_set("1", 11))
    await one.commit()
    await two.do(_get("1"))
    await two.commit()
    await one.committed()
    await two.committed()
    return 101 in two.results


async def circular_information(db: AsyncDatabase, level: str) -> bool:
    """G1c: each of two transactions reads what the other one has written."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_set("1", 11))
    await two.do(_set("2", 22))
    await one.do(_get("2"))
    await two.do(_get("1"))
    await one.commit()
    await two.commit()
    both = await one.committed() & await two.committed()
    return both and 22 in one.results and 11 in two.results


async def vanishing_transaction(db: AsyncDatabase, level: str) -> bool:
    """OTV: a third transaction sees the writes of the second one, and then no longer."""
    one, two, three = Actor(db, level), Actor(db, level), Actor(db, level)
    await one.do(_set("1", 11))
    await one.do(_set("2", 19))
    await two.do(_set("1", 12))
    await one.commit()
    await three.do(_get("1"))
    await two.do(_set("2", 18))
    await three.do(_get("2"))
    await two.commit()
    await three.do(_get("2"))
    await three.do(_get("1"))
    await three.commit()
    for actor in (one, two, three):
        await actor.committed()
    seen = [n in (12, 18) for n in three.results]
    return any(earlier and not later for earlier, later in itertools.combinations(seen, 2))


async def predicate_many_preceders(db: AsyncDatabase, level: str) -> bool:
    """PMP: the same query finds a record that another transaction created in between."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_thirties)
    await two.do(_create("3", 30))
    await two.commit()
    await one.do(_thirties)
    await one.commit()
    both = await one.committed() & await two.committed()
    return both and one.results == [0, 1]


async def lost_update(db: AsyncDatabase, level: str) -> bool:
    """P4: two transactions read a record and write it, and both commit."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_get("1"))
    await two.do(_get("1"))
    await one.do(_set("1", 11))
    await two.do(_set("1", 11))
    await one.commit()
    await two.commit()
    both = await one.committed() & await two.committed()
    return both and one.results[0] == two.results[0]


async def read_skew(db: AsyncDatabase, level: str) -> bool:
    """G-single: of two records that change together, one is read before and the other after."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_get("1"))
    await two.do(_get("1"))
    await two.do(_get("2"))
    await two.do(_set("1", 12))
    await two.do(_set("2", 18))
    await two.commit()
    await one.do(_get("2"))
    await one.commit()
    both = await one.committed() & await two.committed()
    return both and one.results == [10, 18]


async def write_skew(db: AsyncDatabase, level: str) -> bool:
    """G2-item: two transactions read both records, each writes another one, and both commit."""
    one, two = Actor(db, level), Actor(db, level)
    for actor in (one, two):
        await actor.do(_get("1"))
        await actor.do(_get("2"))
    await one.do(_set("1", 11))
    await two.do(_set("2", 21))
    await one.commit()
    await two.commit()
    both = await one.committed() & await two.committed()
    return both and one.results[:2] == two.results[:2] == [10, 20]


async def predicate_write_skew(db: AsyncDatabase, level: str) -> bool:
    """G2: two transactions find nothing and each create a record that the other would have found."""
    one, two = Actor(db, level), Actor(db, level)
    await one.do(_thirties)
    await two.do(_thirties)
    await one.do(_create("3", 30))
    await two.do(_create("4", 30))
    await one.commit()
    await two.commit()
    both = await one.committed() & await two.committed()
    return both and one.results[0] == two.results[0] == 0


INTERLEAVINGS: dict[str, Interleaving] = {
    "G0": dirty_write,
    "G1a": aborted_read,
    "G1b": intermediate_read,
    "G1c": circular_information,
    "OTV": vanishing_transaction,
    "PMP": predicate_many_preceders,
    "P4": lost_update,
    "G-single": read_skew,
    "G2-item": write_skew,
    "G2": predicate_write_skew,
}
