"""Orders on PostgreSQL never fall, whatever SQL of others does to the numbers (§10)."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AsyncDatabase
from isthmus.backends.postgres.change_tables import ChangeNames
from tests.changes.follow import assert_orders_grow, last_data, read_all, read_until
from tests.postgres.databases import connected, opened

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest.mark.parametrize("records", [0, 3])
async def test_a_truncation_that_begins_the_numbers_again_does_not(records: int) -> None:
    """TRUNCATE … RESTART IDENTITY, of an empty table too, and with writes in the same transaction."""
    async with opened(changes=True) as db, connected() as sql, db.changes(poll=0.05) as changes:
        t = db.collection_name
        insert = f"INSERT INTO {t} (id, data, version) VALUES ($1, '{{}}', 1)"
        await db.upsert_batch({"a": {"n": 1}, "b": {}, "c": {}})
        if not records:
            await db.clear()
        found = await read_all(db, changes)
        await sql.execute(f"TRUNCATE {t} RESTART IDENTITY")
        await db.upsert("a", {"n": 2})
        found += await read_all(db, changes)
        async with sql.transaction():
            await sql.execute(insert, "b")
            await sql.execute(f"TRUNCATE {t} RESTART IDENTITY")
            await sql.execute(insert, "b")
        undone = sql.transaction()
        await undone.start()
        await sql.execute(f"TRUNCATE {t} RESTART IDENTITY")
        await undone.rollback()
        await db.upsert("c", {})

        found += await read_all(db, changes)

        assert_orders_grow(found)
        assert last_data(found) == {"a": None, "b": {}, "c": {}}
        orders = [change.order or 0 for change in found]
        assert max(orders[-2:]) == max(orders)


async def test_a_number_below_zero_is_not_taken() -> None:
    """It stands for one that a trigger drew again, whose version stays."""
    async with opened(changes=True) as db, connected() as sql, db.changes(poll=0.05) as changes:
        t = db.collection_name
        await db.upsert("a", {"n": 1})
        version = (await db.require("a")).version
        await sql.execute(f"INSERT INTO {t} (id, data, version, change_order) VALUES ('b', '{{}}', 1, -5)")
        found = await read_all(db, changes)
        await sql.execute(f"UPDATE {t} SET change_order = -1")
        found += await read_all(db, changes)

        assert_orders_grow(found)
        assert min(change.order or 0 for change in found) > 0
        assert (await db.require("a")).version != version
        assert (await db.require("b")).version != "1"


async def test_marks_of_a_clock_that_was_set_back_do_not_stop_pruning() -> None:
    """They would stand for recent ones for as long as the clock was wrong."""
    async with (
        opened(changes=True, changes_keep=0.5) as db,
        connected() as sql,
        db.changes(poll=0.05) as changes,
    ):
        names = _names(db)
        await sql.execute(
            f"INSERT INTO {names.marks} VALUES (clock_timestamp() + interval '1 year', '0', '0', 0)"
        )
        await db.upsert("a", {})
        await read_until(changes, "a")
        async with asyncio.timeout(20):
            while await sql.fetchval(f"SELECT count(*) FROM {names.changes}"):
                await changes.read(wait=False)
                await asyncio.sleep(0.1)


def _names(db: AsyncDatabase) -> ChangeNames:
    return ChangeNames.of(db._backend._table(db.collection_name))  # type: ignore[attr-defined]
