"""Reading the changes of a store up to now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from isthmus import AsyncDatabase, Change, ChangeStream, Record

_PATIENCE = 20.0
"""Seconds within which a change has to come."""


async def read_until(changes: ChangeStream[Record], id: str) -> list[Change[Record]]:
    """Return the changes up to the first one of an id."""
    found: list[Change[Record]] = []
    async with asyncio.timeout(_PATIENCE):
        async for change in changes:
            found.append(change)
            if change.id == id:
                break
    return found


async def read_all(db: AsyncDatabase, changes: ChangeStream[Record]) -> list[Change[Record]]:
    """Return the changes of all writes that have been committed, without those of a mark written here."""
    await db.upsert("zzz mark", {})
    found = await read_until(changes, "zzz mark")
    await db.delete("zzz mark")
    await read_until(changes, "zzz mark")
    return found[:-1]


def last_data(changes: Sequence[Change[Record]]) -> dict[str, Any]:
    """Return the data of the last change of each id, None if the record was gone."""
    return {change.id: None if change.record is None else dict(change.record.data) for change in changes}


def assert_orders_grow(changes: Sequence[Change[Record]]) -> None:
    """Assert that for no id the order falls."""
    orders: dict[str, int] = {}
    for change in changes:
        assert change.order is not None
        assert change.order >= orders.get(change.id, change.order)
        orders[change.id] = change.order
