"""The handle: opening, closing, joining a transaction, derived handles."""

import asyncio
import datetime as dt
import functools
import operator
import threading

import pytest

from isthmus import (
    Applied,
    AsyncDatabase,
    AsyncMemoryDatabase,
    BatchError,
    ClosedError,
    ConfigError,
    ConnectError,
    InvalidRecordError,
    NotFoundError,
    NotWrittenError,
    Policy,
    Query,
    QueryError,
    Record,
    UnavailableError,
    UnsupportedError,
    UsageError,
    field,
)
from isthmus._batch import resolve_outcomes
from isthmus._query.ast import Predicate
from isthmus._query.split import fold
from isthmus.layers import _wide

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("memory")]


async def memory() -> AsyncDatabase:
    """Return a fresh handle on memory."""
    return await AsyncDatabase.create("memory", {})


async def test_create_is_the_factory_on_the_class_and_the_verb_on_a_handle() -> None:
    """One word for both."""
    db = await AsyncDatabase.create("memory", {})

    key = await db.create(Record({"n": 1}))

    assert (await db.require(key)).data == {"n": 1}


async def test_a_config_may_be_keyed_by_backend_names() -> None:
    """`create` picks its own part."""
    config = {"memory": {"table": "mine"}, "postgres": {"host": "elsewhere"}}

    db = await AsyncDatabase.create("memory", config)

    assert db.collection_name == "mine"


async def test_a_named_class_is_the_same_as_its_backend() -> None:
    """`AsyncMemoryDatabase(config)` does no I/O until it is connected."""
    async with AsyncMemoryDatabase({"table": "notes"}) as db:
        assert await db.count() == 0
    assert db.closed


async def test_a_closed_handle_refuses_and_opens_again() -> None:
    """Closing twice is fine; a call in between is a ClosedError."""
    db = await memory()
    await db.close()
    await db.close()

    with pytest.raises(ClosedError, match="connect"):
        await db.get("x")

    await db.connect()
    assert await db.get("x") is None


async def test_a_handle_that_was_never_connected_says_so() -> None:
    """No I/O is started behind the user's back, unless it is lazy."""
    db = AsyncDatabase("memory")
    with pytest.raises(ClosedError, match="never connected"):
        await db.count()
    lazy = await AsyncDatabase.create("memory", lazy=True)
    assert "lazy" in repr(lazy)
    assert await lazy.count() == 0


@pytest.mark.parametrize(
    ("name", "config", "part"),
    [
        ("postgrse", {}, "postgres"),
        ("memory", {"tabel": "x"}, "table"),
        ("memory", {"table": 5}, "table"),
        ("memory", {"url": "sqlite:///x"}, "memory://"),
        ("memory", {"url": "no url"}, "scheme"),
        ("memory", 7, "mapping"),
    ],
)
async def test_bad_config_names_what_is_wrong(name: str, config: object, part: str) -> None:
    """An unknown backend or key lists what is known and the nearest."""
    with pytest.raises(ConfigError, match=part):
        await AsyncDatabase.create(name, config)  # type: ignore[arg-type]


async def test_verbs_join_the_transaction_of_their_own_task() -> None:
    """What is done inside is undone with it."""
    db = await memory()
    key = await db.create({"n": 1})

    with pytest.raises(ZeroDivisionError):
        async with db.transaction():
            await db.update(key, {"n": 2})
            assert (await db.require(key))["n"] == 2
            raise ZeroDivisionError

    assert (await db.require(key))["n"] == 1


async def test_a_child_task_is_told_to_pass_the_transaction() -> None:
    """It neither joins nor runs outside silently."""
    db = await memory()
    async with db.transaction() as tx:
        with pytest.raises(UsageError, match="pass tx"):
            await asyncio.create_task(_count(db))
        assert await asyncio.create_task(tx.count()) == 0


async def _count(db: AsyncDatabase) -> int:
    return await db.count()


async def test_a_task_from_elsewhere_is_outside_the_transaction() -> None:
    """Only tasks that the transaction's task made could mean to join it."""
    db = await memory()
    opened, done = asyncio.Event(), asyncio.Event()

    async def inside() -> None:
        async with db.transaction() as tx:
            await tx.create({"n": 1})
            opened.set()
            await done.wait()

    task = asyncio.create_task(inside())
    await opened.wait()
    assert await db.count() == 0
    done.set()
    await task
    assert await db.count() == 1


async def test_a_nested_transaction_is_a_savepoint() -> None:
    """Its failure undoes its own part only."""
    db = await memory()
    async with db.transaction():
        await db.create(Record({}, id="a"))
        with pytest.raises(KeyError):
            async with db.transaction():
                await db.create(Record({}, id="b"))
                raise KeyError
        await db.create(Record({}, id="c"))
    assert [record.id for record in await db.search()] == ["a", "c"]


async def test_an_ended_transaction_refuses() -> None:
    """It cannot be used after its block."""
    db = await memory()
    async with db.transaction() as tx:
        pass
    with pytest.raises(ClosedError):
        await tx.count()


async def test_a_batch_raises_with_all_outcomes_or_returns_them() -> None:
    """`on_error` chooses; on memory a batch is all or nothing."""
    db = await memory()
    bad = [Record({"n": 1}, id="a"), {"n": {1, 2}}]

    with pytest.raises(BatchError) as caught:
        await db.create_batch(bad)
    collected = await db.create_batch(bad, on_error="collect")

    for outcomes in (caught.value.outcomes, collected):
        assert isinstance(outcomes[0], NotWrittenError)
        assert isinstance(outcomes[1], InvalidRecordError)
        assert outcomes[1].path == "data.n"
    assert "nothing was written" in str(caught.value)
    assert await db.count() == 0


async def test_a_batch_in_doubt_does_not_say_that_nothing_was_written() -> None:
    """An item whose answer was lost may be in the store."""
    lost = UnavailableError("the connection broke", applied=Applied.MAYBE)

    with pytest.raises(BatchError, match="2 of 3 items failed, 1 were written, 1 may have been") as caught:
        resolve_outcomes("create_batch", ["a", lost, ConnectError("refused")], "raise")

    assert caught.value.applied is Applied.MAYBE


async def test_a_list_may_be_used_again_while_its_batch_is_written() -> None:
    """What counts is what it held when the call began: nothing is acknowledged and left out."""
    db = await AsyncDatabase.create("sqlite", {"path": ":memory:"})
    buffer = [{"n": n} for n in range(3_000)]

    writing = asyncio.create_task(db.create_batch(buffer))
    await asyncio.sleep(0)
    buffer.clear()

    assert len(await writing) == await db.count() == 3_000
    await db.close()


async def test_without_atomic_the_good_items_are_written() -> None:
    """And each outcome says what became of its item."""
    db = await memory()
    outcomes = await db.create_batch(
        [Record({}, id="a"), {"n": float("nan")}], on_error="collect", atomic=False
    )
    assert outcomes[0] == "a"
    assert isinstance(outcomes[1], InvalidRecordError)
    assert await db.count() == 1


async def test_a_streamed_write_counts_and_goes_on_past_bad_items() -> None:
    """Batches from an async iterator, with bounded memory."""
    db = await memory()

    async def source() -> object:
        for n in range(25):
            yield {"n": n if n != 13 else {n}}

    receipt = await db.stream_write(source(), batch_size=10, on_error="collect")  # type: ignore[arg-type]

    assert (receipt.written, receipt.failed, list(receipt.errors)) == (24, 1, [13])


async def test_predicates_have_no_truth_value() -> None:
    """`and`, `or`, `not` and `if` cannot be overloaded, so they are refused."""
    with pytest.raises(TypeError, match="&"):
        bool(field("a") == 1)
    with pytest.raises(TypeError):
        bool(Query())
    with pytest.raises(TypeError):
        bool(field("a"))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Query().filter("a", "<>", 1),
        lambda: Query().filter("a", ">=", None),
        lambda: Query().filter("a", "<", [1]),
        lambda: Query().filter("a", "between", [1, "b"]),
        lambda: Query().filter("a", "between", [1]),
        lambda: Query().filter("a", "like", 5),
        lambda: Query().filter("a", "regex", "("),
        lambda: Query().filter("a", "in", "text"),
        lambda: Query().filter("a", "=", {1}),
        lambda: Query().filter("_id.x", "=", 1),
        lambda: Query().filter(5, "=", 1),  # type: ignore[arg-type]
        lambda: Query().sort("a", "down"),  # type: ignore[arg-type]
        lambda: Query().limit(-1),
        lambda: Query().limit(True),
        lambda: field("a") > float("nan"),
    ],
)
async def test_a_query_that_cannot_mean_anything_is_refused_when_built(build: object) -> None:
    """Before any I/O."""
    with pytest.raises(QueryError):
        build()  # type: ignore[operator]


async def test_an_unknown_operator_names_the_nearest() -> None:
    """So that a typing error is found at once."""
    with pytest.raises(QueryError, match="did you mean 'starts_with'"):
        Query().filter("a", "startswith", "x")


async def test_the_policy_can_refuse_work_on_this_side() -> None:
    """Memory evaluates everything itself, so nothing is refused there; match() has no meaning there."""
    db = (await memory()).options(policy=Policy(residual="refuse"))
    assert await db.count(field("a") > 1) == 0
    with pytest.raises(UnsupportedError) as caught:
        await db.search(Query().match("a", "text"))
    assert caught.value.capability == "relevance"


async def test_cursors_belong_to_their_query() -> None:
    """A changed token, or one of another query or order, is refused."""
    db = await memory()
    await db.create_batch([{"n": n} for n in range(10)])
    page = await db.page(Query().sort("n"), size=3)
    assert page.cursor is not None

    again = await db.page(Query().sort("n"), size=4, cursor=page.cursor)

    assert [record["n"] for record in again.records] == [3, 4, 5, 6]
    for query in (Query(), Query().sort("n", "desc"), Query().sort("n").filter("n", ">", 0)):
        with pytest.raises(QueryError):
            await db.page(query, size=3, cursor=page.cursor)
    with pytest.raises(QueryError):
        await db.page(Query().sort("n"), cursor="x" + page.cursor)


async def test_clear_is_the_only_way_to_delete_everything() -> None:
    """`delete_where` without a condition is a mistake."""
    db = await memory()
    await db.create_batch([{}, {}])
    with pytest.raises(UsageError, match="clear"):
        await db.delete_where(Query())
    assert await db.clear() == 2


async def test_require_and_update_of_a_missing_id_say_so() -> None:
    """NotFoundError with the id."""
    db = await memory()
    for call in (db.require("x"), db.update("x", {}), db.replace("x", {}), db.require_batch(["x"])):
        with pytest.raises(NotFoundError) as caught:
            await call
        assert caught.value.record_id == "x"
    assert await db.delete("x") is False


@pytest.mark.parametrize(
    "name", ["\ud800", "\0", "a\0b", "x\udfffy"], ids=["surrogate", "nul", "nul inside", "inside"]
)
@pytest.mark.parametrize("backend", ["memory", "sqlite", "postgres", "elasticsearch", "s3", "sqlalchemy"])
async def test_a_collection_name_that_no_store_takes_is_a_config_error(backend: str, name: str) -> None:
    """Before any I/O, by config and by method, on every backend alike."""
    setting = {"elasticsearch": "index", "s3": "prefix"}.get(backend, "table")
    needed = {"s3": {"bucket": "bucket"}, "sqlalchemy": {"url": "sqlalchemy+sqlite+aiosqlite://"}}
    config = needed.get(backend, {})

    with pytest.raises(ConfigError):
        AsyncDatabase(backend, {**config, setting: name})
    with pytest.raises(ConfigError):
        AsyncDatabase(backend, config).collection(name)


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5))),
        dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
    ],
)
@pytest.mark.asyncio
async def test_a_datetime_outside_the_years_of_utc_is_a_typed_error(moment: dt.datetime) -> None:
    """With its path in a record, and as an operand."""
    async with AsyncDatabase("memory") as db:
        with pytest.raises(InvalidRecordError, match=r"data\.a\[0\]: .*9999") as caught:
            await db.create({"a": [moment]})
        assert caught.value.path == "data.a[0]"
        with pytest.raises(BatchError):
            await db.create_batch([{"a": 1}, {"a": moment}])
    with pytest.raises(QueryError, match="9999"):
        _ = field("at") < moment


@pytest.mark.asyncio
async def test_ten_thousand_equalities_are_one_condition() -> None:
    """Also as inequalities under `and`; other wide or deep trees have a bound."""
    equal = functools.reduce(operator.or_, [field("n") == n for n in range(10_000)])
    unequal = functools.reduce(operator.and_, [field("n") != n for n in range(10_000)])
    deep = field("n") == 1
    for _ in range(10_000):
        deep = ~(deep & (field("m") == 2))
    async with AsyncDatabase("memory") as db:
        await db.create_batch([{"n": 3}, {"n": -1}])

        assert [record["n"] for record in await db.search(equal)] == [3]
        assert [record["n"] for record in await db.search(unequal)] == [-1]
        assert await db.count(functools.reduce(operator.or_, [field("n") > n for n in range(2_000)])) == 1
        with pytest.raises(QueryError, match="2000 different conditions"):
            await db.search(functools.reduce(operator.or_, [field("n") > n for n in range(2_001)]))
        with pytest.raises(QueryError, match="10000 conditions"):
            await db.search(Query().any_of(*[field("n") > n for n in range(100_000)]))
        with pytest.raises(QueryError, match="200 levels"):
            await db.search(deep)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_partitions_of_a_store_in_memory_are_refused(backend: str) -> None:
    """A worker's own handle would find nothing."""
    async with AsyncDatabase(backend) as db:
        await db.create({"n": 1})
        with pytest.raises(UnsupportedError, match="no worker can read") as caught:
            await db.partitions(count=2)
    assert caught.value.capability == "partitions"


@pytest.mark.asyncio
async def test_a_wide_query_is_planned_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding thousands of conditions takes tens of milliseconds, in which other tasks get their turn."""
    threads: set[threading.Thread] = set()

    def fold_here(where: Predicate) -> Predicate:
        threads.add(threading.current_thread())
        return fold(where)

    monkeypatch.setattr(_wide, "fold", fold_here)
    different = Query().any_of(*(field(f"f{n}") == n for n in range(9_999)))
    one_field = Query().any_of(*(field("n") == n for n in range(9_999)))
    async with await AsyncDatabase.create("memory") as db:
        await db.create({"n": 9_000})
        for call in (db.count, db.search, db.aggregate, db.delete_where):
            threads.clear()
            with pytest.raises(QueryError, match="2000 different conditions"):
                await (call(different, m=("sum", "n")) if call == db.aggregate else call(different))
            assert threads
            assert threading.current_thread() not in threads
        assert await db.count(one_field) == 1


async def test_the_deepest_query_has_a_repr() -> None:
    """As any other: it is what a debugger and a failing test show."""
    nested = field("a") == 1
    for number in range(98):
        nested = ~(nested & (field(f"f{number}") > number))

    assert repr(Query().filter(nested)).count("Not(") == 98
