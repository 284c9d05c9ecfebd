"""Changes: every committed write of a record, never skipped, in the order of its writes (§10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from isthmus import AsyncDatabase, Change, ChangeStream, Query, Record, field, match
from isthmus._changes_declaration import declare_changes, end_changes
from isthmus.errors import (
    ChangesExpiredError,
    ConfigError,
    NotFoundError,
    QueryError,
    UnsupportedError,
    UsageError,
)
from isthmus.testing.conformance._fixtures import requires, store

_PATIENCE = 20.0
"""Seconds within which a change has to come."""


@asynccontextmanager
async def _follow(db: AsyncDatabase, since: str = "now") -> AsyncIterator[ChangeStream[Record]]:
    """Follow the collection, which keeps changes from now on."""
    await declare_changes(db)
    async with db.changes(since=since, poll=0.05) as changes:
        yield changes


async def _read_all(changes: ChangeStream[Record], *, until: str) -> list[Change[Record]]:
    """Return the changes up to the first one of an id."""
    found: list[Change[Record]] = []
    async with asyncio.timeout(_PATIENCE):
        async for change in changes:
            found.append(change)
            if change.id == until:
                break
    return found


async def _read_to_mark(db: AsyncDatabase, changes: ChangeStream[Record]) -> list[Change[Record]]:
    """Return the changes of all writes so far, in the order in which they come."""
    # Across ids no order is promised: several marks, each written once the one before it has come.
    found: list[Change[Record]] = []
    for number in range(2):
        mark = f"mark {number}"
        await db.upsert(mark, {})
        found += await _read_all(changes, until=mark)
        await db.delete(mark)
    return [change for change in found if not change.id.startswith("mark")]


def _last(changes: list[Change[Record]]) -> dict[str, object]:
    """Return the data of the last change of each id, None if the record was gone."""
    return {change.id: None if change.record is None else change.record.data for change in changes}


def _assert_ordered(changes: list[Change[Record]]) -> None:
    """Assert that for no id the order falls."""
    orders: dict[str, int] = {}
    for change in changes:
        assert change.order is not None
        assert change.order >= orders.get(change.id, change.order)
        orders[change.id] = change.order


@pytest.mark.asyncio
@requires("changes")
async def test_every_kind_of_write_is_a_change(db: AsyncDatabase) -> None:
    """Each comes with the record as it is then, its version, and an order that grows."""
    async with _follow(db) as changes:
        await db.create(Record({"n": 0}, id="a"))
        seen = await _read_all(changes, until="a")
        for write in (
            db.replace("a", {"n": 1}),
            db.update("a", {"m": 2}),
            db.upsert("a", {"n": 3}),
            db.modify("a", field("n").inc(1)),
            db.delete("a"),
            db.upsert("a", {"n": 5}),
        ):
            await write
            seen += await _read_all(changes, until="a")

        shown = [change.record and change.record.data for change in seen]
        assert shown == [{"n": 0}, {"n": 1}, {"n": 1, "m": 2}, {"n": 3}, {"n": 4}, None, {"n": 5}]
        orders = [change.order for change in seen if change.order is not None]
        assert len(orders) == len(seen)
        assert orders == sorted(set(orders))
        assert seen[-1].version == (await db.require("a")).version
        assert seen[5].version is None


@pytest.mark.asyncio
@requires("changes", "transactions")
async def test_a_record_that_a_transaction_makes_and_deletes_is_a_change(db: AsyncDatabase) -> None:
    """As if it had been made and deleted by two commits, of which the second is the last."""
    async with _follow(db) as changes:
        async with db.transaction():
            await db.upsert("a", {"n": 0})
            await db.delete("a")
        [change] = await _read_all(changes, until="a")
        assert change.record is None


@pytest.mark.asyncio
@requires("changes")
async def test_batches_and_writes_by_query_are_changes_of_each_record(db: AsyncDatabase) -> None:
    """A batch that was refused leaves none; several changes of an id may come as its last one."""
    async with _follow(db) as changes:
        ids = [f"r{number:03}" for number in range(150)]
        await db.upsert_batch([(id, {"n": number}) for number, id in enumerate(ids)])
        await db.delete_batch(ids[:3])
        await db.update_where(field("n") == 3, field("n").set(-3))
        await db.delete_where(field("n") == 4)
        with pytest.raises(NotFoundError):
            await db.replace("missing", {})

        found = await _read_to_mark(db, changes)

        _assert_ordered(found)
        expected: dict[str, object] = {id: {"n": number} for number, id in enumerate(ids)}
        expected |= {"r000": None, "r001": None, "r002": None, "r003": {"n": -3}, "r004": None}
        assert _last(found) == expected


@pytest.mark.asyncio
@requires("changes")
async def test_start_gives_what_is_there_and_goes_on(db: AsyncDatabase) -> None:
    """The records that were there, then what is written, without a gap, filtered or not."""
    await declare_changes(db)
    await store(db, {f"r{number:04}": {"n": number} for number in range(1_200)})
    async with db.changes(since="start", poll=0.05) as changes, asyncio.timeout(_PATIENCE):
        first = await anext(changes)
        await db.delete("r1199")
        await db.delete("r0001")
        await db.upsert("r0000", {"n": "new"})
        await db.upsert("a", {"n": "first"})

        found = [first, *await _read_to_mark(db, changes)]

    _assert_ordered(found)
    content = {id: data for id, data in _last(found).items() if data is not None}
    assert content == {record.id: record.data for record in await db.search()}
    matching = db.changes(field("n").between(5, 7), since="start")
    async with asyncio.timeout(_PATIENCE):
        shown = [await anext(matching) for _ in range(3)]
    assert [change.id for change in shown] == ["r0005", "r0006", "r0007"]
    await matching.aclose()


@pytest.mark.asyncio
@requires("changes")
async def test_a_position_goes_on_where_it_was(db: AsyncDatabase) -> None:
    """Of a change in the middle of a page, of a record that was there, and of a stream without changes."""
    await declare_changes(db)
    await store(db, {id: {} for id in "abcd"})
    async with asyncio.timeout(_PATIENCE):
        changes = db.changes(since="start", poll=0.05)
        first, second = await anext(changes), await anext(changes)
        rest = db.changes(since=second.position, poll=0.05)
        others = {(await anext(rest)).id for _ in range(2)}
        assert {first.id, second.id} | others == set("abcd")

        for id in "efg":
            await db.upsert(id, {})
        later = await _read_all(rest, until="g")
        again = await _read_all(db.changes(since=later[0].position, poll=0.05), until="g")
        assert {change.id for change in again} >= {change.id for change in later[1:]}

        async with db.changes(poll=0.05) as empty:
            position = empty.position
        assert position is not None
        await db.upsert("h", {})
        assert (await anext(db.changes(since=position, poll=0.05))).id == "h"


@pytest.mark.asyncio
@requires("changes")
async def test_a_change_that_does_not_match_comes_without_its_record(db: AsyncDatabase) -> None:
    """So that a follower forgets it; so does a deleted one."""
    async with _follow(db):
        async with db.changes(field("n") >= 5, poll=0.05) as changes:
            await db.upsert("a", {"n": 9})
            await db.upsert("b", {"n": 1})
            found = await _read_to_mark(db, changes)
            await db.update("a", {"n": 2})
            await db.update("b", {"n": 7})
            found += await _read_to_mark(db, changes)
            await db.delete("b")
            found += await _read_to_mark(db, changes)

        a = [change.record and change.record.data for change in found if change.id == "a"]
        b = [change.record and change.record.data for change in found if change.id == "b"]
        assert (a[0], a[-1], b[0], b[-1]) == ({"n": 9}, None, None, None)
        assert {"n": 7} in b
        assert all(change.order is not None for change in found)


@pytest.mark.asyncio
@requires("changes")
async def test_clear_is_one_change_for_each_record(db: AsyncDatabase) -> None:
    """Each without a record; a record that is written afterwards comes later."""
    async with _follow(db) as changes:
        await store(db, {f"r{number}": {} for number in range(40)})
        await db.clear()
        await db.upsert("r7", {"again": True})

        found = await _read_to_mark(db, changes)

        _assert_ordered(found)
        expected: dict[str, object] = {f"r{number}": None for number in range(40)}
        assert _last(found) == {**expected, "r7": {"again": True}}


@pytest.mark.asyncio
@requires("changes", "transactions")
async def test_a_transaction_is_changes_when_it_commits(db: AsyncDatabase) -> None:
    """One that commits late is not skipped, one that rolls back leaves nothing, nor does a savepoint."""
    async with _follow(db) as changes:
        begun = asyncio.Event()
        outside = asyncio.create_task(_write_after(begun, db))
        async with db.transaction() as tx:
            await tx.upsert("late", {"n": 1})
            begun.set()
            await asyncio.wait([outside], timeout=0.2)  # a store with one writer lets it in later
            with pytest.raises(ZeroDivisionError):
                async with db.transaction() as savepoint:
                    await savepoint.upsert("undone", {})
                    raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tx:
                await tx.upsert("rolled back", {})
                raise ZeroDivisionError
        await outside

        found = await _read_to_mark(db, changes)

        assert _last(found) == {"late": {"n": 1}, "early": {}}


async def _write_after(begun: asyncio.Event, db: AsyncDatabase) -> None:
    await begun.wait()
    await db.upsert("early", {})


@pytest.mark.asyncio
@requires("changes")
async def test_waiting_may_be_cancelled_at_any_time(db: AsyncDatabase) -> None:
    """A cancelled call has lost nothing, however often it happens; one task at a time may wait."""
    async with _follow(db) as changes:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(changes), 0.01)
        waiting = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
        with pytest.raises(UsageError):
            await anext(changes)

        await db.upsert("a", {})

        assert (await asyncio.wait_for(waiting, _PATIENCE)).id == "a"


@pytest.mark.asyncio
@requires("changes")
async def test_a_closed_stream_has_ended(db: AsyncDatabase) -> None:
    """A loop over it ends; so does a task that waits for a change."""
    async with _follow(db) as changes:
        waiting = asyncio.create_task(_count(changes))
        await asyncio.sleep(0)
        await changes.aclose()

        assert await asyncio.wait_for(waiting, _PATIENCE) == 0
        assert [change async for change in changes] == []


async def _count(changes: ChangeStream[Record]) -> int:
    return len([change async for change in changes])


@pytest.mark.asyncio
@requires("changes", "drop")
async def test_a_position_of_another_making_has_expired(db: AsyncDatabase) -> None:
    """Of a collection that was dropped and made again: never a gap, and never a stream that goes on."""
    async with _follow(db) as changes:
        await db.upsert("a", {})
        change = await anext(changes)
        await db.drop_collection(db.collection_name)
        await db.upsert("b", {})
        await declare_changes(db)

        with pytest.raises(ChangesExpiredError) as expired:
            await anext(db.changes(since=change.position))
        assert (expired.value.transient, expired.value.applied.value) == (False, "no")
        with pytest.raises(ChangesExpiredError):
            await anext(changes)
        assert (await anext(db.changes(since="start"))).id == "b"


@pytest.mark.asyncio
@requires("changes")
async def test_what_is_no_position_or_condition_is_refused(db: AsyncDatabase) -> None:
    """Before any I/O; a changed position too."""
    async with _follow(db) as changes:
        await db.upsert("a", {})
        position = (await anext(changes)).position
        for text in (position[:-2], position[1:], "later", "é", position + "A"):
            with pytest.raises(QueryError):
                db.changes(since=text)
        for condition in (match("n", "words"), Query().limit(3)):
            with pytest.raises(QueryError):
                db.changes(condition)
        for poll in (0, -1, float("nan"), float("inf"), True, "1"):
            with pytest.raises(UsageError):
                db.changes(poll=poll)  # type: ignore[arg-type]
        for since in ("", 5):
            with pytest.raises(UsageError):
                db.changes(since=since)  # type: ignore[arg-type]


@pytest.mark.asyncio
@requires("changes")
async def test_a_collection_without_the_declaration_has_no_changes(db: AsyncDatabase) -> None:
    """The error names the command; once the declaration ended, its positions have expired."""
    with pytest.raises(ConfigError, match="isthmus index"):
        await anext(db.changes())
    await store(db, {"a": {}})
    await declare_changes(db)
    await declare_changes(db)
    stream = db.changes(since="start")
    change = await anext(stream)
    assert change.id == "a"
    assert change.order is not None
    await end_changes(db)
    with pytest.raises(ConfigError, match="isthmus index"):
        await anext(db.changes(since=change.position))
    await declare_changes(db)
    with pytest.raises(ChangesExpiredError):
        await anext(db.changes(since=change.position))


@pytest.mark.asyncio
@requires("changes")
async def test_a_scope_and_a_transaction_have_no_changes(db: AsyncDatabase) -> None:
    """A scope would tell another tenant's deletes (§5); changes are what was committed."""
    await declare_changes(db)
    with pytest.raises(UnsupportedError) as refused:
        db.scope(field("tenant") == "a").changes()
    assert refused.value.capability == "changes"
    if db.capabilities.transactions:
        async with db.transaction():
            with pytest.raises(UsageError):
                db.changes()
