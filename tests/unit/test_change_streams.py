"""Changes in memory with a clock of the test's own, and the streams over them."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import zlib

import pytest
from pydantic import BaseModel

from isthmus import (
    AsyncDatabase,
    ChangesExpiredError,
    ConfigError,
    InvalidRecordError,
    Policy,
    QueryError,
    UnsupportedError,
    UsageError,
    field,
)
from isthmus._change_position import decode_position, encode_position
from isthmus._core.changes import ChangePage, Position
from isthmus._core.executor import Executor
from isthmus._core.op import Op, ReadChanges
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._record import Record
from isthmus.backends.memory.journal import ChangeJournal

pytestmark = pytest.mark.timeout(20)  # a stream that waits for what never comes


def _record(id: str) -> Record:
    return Record.stored(id, b"{}", None, "v", 0, 0)


class Clock:
    """A clock that stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_older_than_keep_is_pruned() -> None:
    """A position whose next change is gone has expired; one at the end of the pruned ones goes on."""
    clock = Clock()
    table = {"a": _record("a")}
    journal = ChangeJournal("t", 10.0, clock=clock)
    begin = journal.now
    journal.append(["a"], table)
    first = journal.now
    clock.now = 6
    journal.append(["b"], {**table, "b": _record("b")})

    clock.now = 11

    with pytest.raises(ChangesExpiredError, match="changes_keep"):
        journal.read(begin, 10, table)
    page = journal.read(first, 10, table)
    assert [(change.id, change.record, change.order) for change in page.changes] == [("b", None, 2)]


def test_orders_grow_after_everything_was_pruned() -> None:
    """A record's order is kept with it; a deleted one's successor is greater all the same."""
    clock = Clock()
    journal = ChangeJournal("t", 10.0, clock=clock)
    journal.append(["a", "b"], {"a": _record("a"), "b": _record("b")})
    clock.now = 1
    journal.append(["b"], {"a": _record("a")})
    clock.now = 100
    journal.append(["c"], {"a": _record("a"), "c": _record("c")})

    assert journal.order("a") == 1
    assert journal.order("b") is None
    end = journal.now
    journal.append(["b"], {"b": _record("b")})
    assert [change.order for change in journal.read(end, 9, {}).changes] == [5]


def test_a_page_looks_at_a_bounded_part_of_the_journal() -> None:
    """An id that is written all the time comes once, and does not hold up the others."""
    journal = ChangeJournal("t", 10.0)
    begin = journal.now
    for _ in range(100):
        journal.append(["hot"], {})
    journal.append(["cold"], {})

    page = journal.read(begin, 2, {})
    assert (list(page.changes), page.caught_up) == ([], False)
    seen = []
    while not page.caught_up:
        page = journal.read(page.position, 2, {})
        seen += [change.id for change in page.changes]
    assert seen == ["hot", "cold"]


def test_a_page_has_at_most_so_many_changes() -> None:
    journal = ChangeJournal("t", 10.0)
    begin = journal.now
    journal.append(["a", "b", "c"], {})

    first = journal.read(begin, 2, {})
    assert [change.id for change in first.changes] == ["a", "b"]
    rest = journal.read(first.position, 2, {})
    assert ([change.id for change in rest.changes], rest.caught_up) == (["c"], True)


@pytest.mark.asyncio
async def test_a_reader_waits_only_at_the_end_of_the_journal() -> None:
    journal = ChangeJournal("t", 10.0)
    begin = journal.now
    journal.append(["a"], {})

    assert journal.waiter(begin).done()
    waiter = journal.waiter(journal.now)
    assert not waiter.done()
    journal.append(["b"], {})
    await asyncio.wait_for(waiter, 5)


def test_a_position_is_text_with_a_checksum() -> None:
    """What was changed anywhere is refused; another kind of store has expired."""
    position = Position("source é", "17", "id ☃")
    text = encode_position("memory", position)

    assert decode_position(text, "memory", "t") == position
    assert text.isascii()
    for longer in (text + "=", text + "==", text + "A" * 10_000):
        with pytest.raises(QueryError):
            decode_position(longer, "memory", "t")
    for index in range(len(text)):
        with pytest.raises(QueryError):
            changed = text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]
            decode_position(changed, "memory", "t")
    with pytest.raises(ChangesExpiredError):
        decode_position(text, "postgres", "t")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"5", b"[]", b'"x"', b"[" * 2_000),
        *(b"[1]", b'["x"]', b'[1, 2, "s", "1", null, null]', b'[1, "memory", "s", 1, null, null]'),
        *(b'[1, "memory", 5, "1", null, null]', b'[1, "memory", "s", "1", 5, null]', b'[2, "memory"]'),
    ],
)
def test_a_checksum_makes_no_position(body: bytes) -> None:
    """It only finds what was changed by mistake."""
    text = base64.urlsafe_b64encode(zlib.crc32(body).to_bytes(4) + body).decode().rstrip("=")
    with pytest.raises(QueryError, match="since:"):
        decode_position(text, "memory", "t")


@pytest.mark.parametrize("backend", ["elasticsearch", "files", "sqlalchemy"])
def test_a_backend_without_changes_refuses_the_settings(backend: str) -> None:
    """When the handle is made, with the reason."""
    for setting in ({"changes": True}, {"changes_keep": 5}):
        with pytest.raises(UnsupportedError, match="leaves nothing behind") as refused:
            AsyncDatabase(backend, setting)
        assert refused.value.capability == "changes"


@pytest.mark.parametrize("keep", [0, -1, float("inf"), float("nan"), "soon", dt.timedelta(0)])
def test_keep_is_a_time(keep: object) -> None:
    """Above 0; a timedelta or seconds."""
    with pytest.raises(ConfigError, match="changes_keep"):
        AsyncDatabase("memory", {"changes_keep": keep})
    db = AsyncDatabase("memory", {"changes_keep": dt.timedelta(days=2)})
    assert db.config.changes_keep == 2 * 86_400  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_a_reader_that_is_too_slow_is_told() -> None:
    """Its stream raises, and never goes on behind a gap; so does its position on another stream."""
    settings = {"changes": True, "changes_keep": 0.02}
    async with AsyncDatabase("memory", settings) as db, db.changes(poll=0.01) as changes:
        await db.create({})
        change = await anext(changes)
        await db.create({})
        await asyncio.sleep(0.05)

        with pytest.raises(ChangesExpiredError):
            await anext(changes)
        with pytest.raises(ChangesExpiredError):
            await anext(db.changes(since=change.position))
        with pytest.raises(ChangesExpiredError):
            await anext(changes)


class Counts(Layer):
    """Counts the pages of changes that are read, and fails when it is told to."""

    order = LayerOrder.RETRY
    ops = (ReadChanges,)

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.failure: Exception | None = None

    async def handle(self, op: Op[object], call_next: Next, /) -> object:  # type: ignore[override]
        """Run the operation."""
        if self.failure is not None:
            raise self.failure
        page = await call_next(op)
        assert isinstance(page, ChangePage)
        self.sizes.append(len(page.changes))
        return page


@pytest.mark.asyncio
async def test_pages_are_read_when_they_are_needed_and_bounded() -> None:
    """One page of 1,000 is in memory, and the next is read when that was given."""
    counts = Counts()
    async with AsyncDatabase("memory", {"changes": True, "layers": {"counts": counts}}) as db:
        await db.create_batch([{"n": n} for n in range(2_500)])
        changes = db.changes(since="start")
        assert counts.sizes == []
        await anext(changes)
        assert counts.sizes == [0, 1_000]
        for _ in range(999):
            await anext(changes)
        assert counts.sizes == [0, 1_000]
        await anext(changes)
        assert counts.sizes == [0, 1_000, 1_000]


@pytest.mark.asyncio
async def test_after_an_error_a_stream_goes_on_where_it_was() -> None:
    """Nothing is lost by the failed read."""
    counts = Counts()
    settings = {"changes": True, "layers": {"counts": counts}}
    async with AsyncDatabase("memory", settings) as db, db.changes() as changes:
        await db.upsert("a", {})
        counts.failure = ChangesExpiredError("for the test")
        with pytest.raises(ChangesExpiredError):
            await anext(changes)
        counts.failure = None

        assert (await anext(changes)).id == "a"


@pytest.mark.asyncio
async def test_a_waiting_reader_is_woken_by_the_write() -> None:
    """Long before `poll` has passed; a reader whose collection is dropped too."""
    async with AsyncDatabase("memory", {"changes": True}) as db, db.changes(poll=600) as changes:
        waiting = asyncio.create_task(_next_id(db, changes.position))
        await asyncio.sleep(0.01)
        await db.upsert("a", {})
        assert await asyncio.wait_for(waiting, 5) == "a"
        again = asyncio.create_task(_next_id(db, None))
        await asyncio.sleep(0.01)
        await db.drop_collection(db.collection_name)
        with pytest.raises(ChangesExpiredError):
            await asyncio.wait_for(again, 5)


async def _next_id(db: AsyncDatabase, since: str | None) -> str:
    async with db.changes(since=since or "now", poll=600) as changes:
        return (await anext(changes)).id


@pytest.mark.asyncio
async def test_a_policy_of_the_handle_holds_for_conditions() -> None:
    """Client-side evaluation and patterns with backtracking are refused as in a search."""
    async with AsyncDatabase("memory", {"changes": True}) as db:
        with pytest.raises(QueryError, match="backtracking"):
            await anext(db.changes(field("n").regex("(a)\\1")))
        strict = db.options(policy=Policy(residual="refuse"))
        with pytest.raises(UnsupportedError):
            await anext(strict.changes(field("n") == 1))
        await db.upsert("a", {})
        assert (await anext(strict.changes(since="start"))).id == "a"


@pytest.mark.asyncio
async def test_an_operation_on_an_executor_without_changes_is_refused() -> None:
    """A third party's transaction, say, whose backend has them."""
    with pytest.raises(UnsupportedError):
        await ReadChanges("t", None, 1).apply(_executor())


def _executor() -> Executor:
    return AsyncDatabase("elasticsearch", {"hosts": "http://localhost:9200"})._backend


class Person(BaseModel):
    """A model of a typed collection."""

    id: str = ""
    age: int


@pytest.mark.asyncio
async def test_a_typed_collection_gives_models() -> None:
    """Conditions are lambdas; a record that does not match the model holds the stream up, or is left out."""
    async with AsyncDatabase("memory", {"changes": True}) as db:
        people = db.collection("people", Person)
        async with people.changes(lambda p: p.age >= 18) as grown:
            await people.create(Person(id="a", age=30))
            await people.create(Person(id="b", age=3))
            await people.untyped.upsert("c", {"age": "no number"})
            await people.create(Person(id="d", age=40))
            changes = await grown.read()
            assert [(change.id, change.record) for change in changes] == [
                ("a", Person(id="a", age=30)),
                ("b", None),
                ("c", None),
                ("d", Person(id="d", age=40)),
            ]
        every = people.changes(since="start")
        assert [change.id for change in await every.read()] == ["a", "b"]
        for _ in range(2):
            with pytest.raises(InvalidRecordError):
                await every.read()
            with pytest.raises(InvalidRecordError):
                await anext(every)
        position = every.position
        for stream in (every, people.changes(since="start", poll=0.01)):
            await people.untyped.upsert("c", {"age": "no number"})
            with pytest.raises(InvalidRecordError):
                while True:
                    await stream.read()
            await people.untyped.upsert("c", {"age": 5})
            assert Person(id="c", age=5) in [change.record for change in await stream.read()]
        async with people.changes(since=position or "") as later:
            assert {change.id for change in await later.read()} == {"c", "d"}
        await people.untyped.upsert("c", {"age": "no number"})
        errors: list[InvalidRecordError] = []
        for handler in ("skip", errors.append):
            passing = people.changes(since="start", on_invalid=handler)  # type: ignore[arg-type]
            assert [change.id for change in await passing.read()] == ["a", "b", "d"]
        assert [error.record_id for error in errors] == ["c"]
        with pytest.raises(UsageError):
            people.changes(on_invalid="never")  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_reading_without_waiting_ends_when_there_is_nothing() -> None:
    """A job that runs now and then reads what has come, up to a limit."""
    async with AsyncDatabase("memory", {"changes": True}) as db, db.changes(poll=60) as changes:
        async with asyncio.timeout(5):
            assert [await changes.read(wait=False) for _ in range(3)] == [[], [], []]
        await db.create_batch([{} for _ in range(5)])
        assert [len(await changes.read(2, wait=False)) for _ in range(4)] == [2, 2, 1, 0]
        assert changes.caught_up
        with pytest.raises(UsageError):
            await changes.read(0)
        with pytest.raises(UsageError, match="wait is True or False"):
            await changes.read(wait="no")  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_the_lag_grows_while_changes_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the age of what the stream has everything of; taking the last change makes it small again."""
    now = 100.0
    monkeypatch.setattr("isthmus._change_stream.time.monotonic", lambda: now)
    async with AsyncDatabase("memory", {"changes": True}) as db, db.changes() as changes:
        assert await changes.read(wait=False) == []
        now = 110.0
        assert changes.lag == 10.0
        await db.create_batch([{}, {}])
        now = 115.0
        await changes.read(1, wait=False)
        now = 120.0
        assert changes.lag == 20.0
        await changes.read(1, wait=False)
        assert changes.lag == 5.0
        await db.create_batch([{} for _ in range(1_500)])
        now = 135.0
        assert len(await changes.read(wait=False)) == 1_000
        now = 140.0
        await changes.read(1, wait=False)  # of the second page, before which not all was read
        now = 145.0
        assert changes.lag == 30.0
