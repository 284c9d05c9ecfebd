"""Modifications by compare-and-set: races, merged calls, lost answers and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from isthmus import field
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.modify import Modification
from isthmus._core.op import Modify, ModifyWhere, Op, Read, Write
from isthmus._core.stack import Next, Stack
from isthmus._query.ast import FALSE, TRUE, Leaf, Like, Predicate
from isthmus._query.changes import FieldChange
from isthmus._query.split import Pushdown
from isthmus.backends.memory.backend import MemoryBackend
from isthmus.backends.memory.config import MemoryConfig
from isthmus.errors import (
    Applied,
    BatchError,
    ConflictError,
    ConnectError,
    InvalidRecordError,
    NotFoundError,
    NotWrittenError,
    UnavailableError,
)
from isthmus.layers._modify import CompareAndSet, modify_items, native_modification
from isthmus.layers.deadline import Deadline
from isthmus.layers.merge import Merge
from isthmus.layers.plan import Plan
from isthmus.layers.retry import Retry
from isthmus.testing.clock import VirtualClock
from tests.layers.stores import Scripted, Step, lost, memory, refused, stack

n = field("n")


async def _stored(*values: Any) -> MemoryBackend:
    """Return a store with the records 0, 1, … whose `n` are these."""
    store = memory()
    created = [Mutation(str(id), {"n": value}) for id, value in enumerate(values)]
    await store.write("records", WriteKind.CREATE, created, atomic=False)
    return store


async def _numbers(store: MemoryBackend, count: int) -> list[Any]:
    return [record and record["n"] for record in await store.read("records", list(map(str, range(count))))]


def _modify(*ids: str, change: FieldChange | None = None, atomic: bool = False) -> Modify:
    change = change or n.inc(1)
    return Modify("records", [Modification(id, (change,)) for id in ids], atomic)


def _planned(store: MemoryBackend, *layers: Any, clock: VirtualClock | None = None) -> Stack:
    return stack(Merge(), Plan(store, clock=clock or VirtualClock(auto=True)), *layers, executor=store)


async def _pass(op: Op[Any], call_next: Next) -> Any:
    return await call_next(op)


async def _slow(op: Op[Any], call_next: Next) -> Any:
    """Let others run first, as every server does."""
    await asyncio.sleep(0)
    return await call_next(op)


def _overtaken(store: MemoryBackend, id: str, kind: WriteKind = WriteKind.UPSERT) -> Step:
    """Return a step in which another writer is faster."""

    async def overtaken(op: Op[Any], call_next: Next) -> Any:
        data = None if kind is WriteKind.DELETE else {"n": 10}
        await store.write("records", kind, [Mutation(id, data)], atomic=False)
        return await call_next(op)

    return overtaken


@pytest.mark.asyncio
async def test_a_record_that_was_changed_meanwhile_is_read_again() -> None:
    """No write is lost, the other one's included."""
    store = await _stored(1)
    script = Scripted(_pass, _overtaken(store, "0"))

    results = await _planned(store, script).run(_modify("0"))

    assert isinstance(results[0], str)
    assert await _numbers(store, 1) == [11]
    assert [type(op) for op in script.attempts] == [Read, Write, Read, Write]


@pytest.mark.asyncio
async def test_a_record_that_was_deleted_meanwhile_is_not_found() -> None:
    """As if the deletion had come first."""
    store = await _stored(1)
    script = Scripted(_pass, _overtaken(store, "0", WriteKind.DELETE))

    results = await _planned(store, script).run(_modify("0"))

    assert isinstance(results[0], NotFoundError)


@pytest.mark.asyncio
async def test_an_atomic_batch_that_lost_a_race_is_tried_again_as_a_whole() -> None:
    """Nothing of the first attempt was written."""
    store = await _stored(1, 1)
    script = Scripted(_pass, _overtaken(store, "1"))

    results = await _planned(store, script).run(_modify("0", "1", "0", atomic=True))

    assert all(isinstance(result, str) for result in results)
    assert await _numbers(store, 2) == [3, 11]


@pytest.mark.asyncio
async def test_an_atomic_batch_writes_each_state_of_a_record_in_one_request() -> None:
    """The first under the version that was read: another writer makes all of it start again."""
    store = await _stored(1)
    script = Scripted(_pass, _overtaken(store, "0"))

    results = await _planned(store, script).run(_modify("0", "0", "0", atomic=True))

    assert len(set(results)) == 3
    assert await _numbers(store, 1) == [13]
    writes = [op for op in script.attempts if isinstance(op, Write)]
    assert [len(op.mutations) for op in writes] == [3, 3]
    assert [[item.if_version is None for item in op.mutations] for op in writes] == [[False, True, True]] * 2


@pytest.mark.asyncio
async def test_a_repeated_record_begins_a_new_request_where_items_are_written_apart() -> None:
    """A failure then leaves what was written before, and is the outcome of the rest."""
    store = await _stored(1, 1)
    script = Scripted(_pass, _pass, _pass, refused)

    results = await _planned(store, script).run(_modify("0", "1", "1", "0", "0"))

    assert [type(result) for result in results] == [str, str, ConnectError, ConnectError, ConnectError]
    assert await _numbers(store, 2) == [2, 2]
    assert [op.ids for op in script.attempts if isinstance(op, Read)] == [["0", "1"], ["1", "0"]]
    with pytest.raises(ConnectError):
        await _planned(store, Scripted(refused)).run(_modify("0", "0"))


@pytest.mark.asyncio
async def test_only_the_items_that_lost_a_race_are_tried_again() -> None:
    """The others are written once."""
    store = await _stored(1, 1)
    script = Scripted(_pass, _overtaken(store, "1"))

    await _planned(store, script).run(_modify("0", "1"))

    assert await _numbers(store, 2) == [2, 11]
    assert [op.ids for op in script.attempts if isinstance(op, Read)] == [["0", "1"], ["1"]]


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.asyncio
async def test_a_modification_whose_answer_was_lost_is_not_repeated(retried: bool) -> None:
    """It may have been applied: the error says so, whatever retries are configured."""
    store = await _stored(1)
    clock = VirtualClock(auto=True)
    script = Scripted(_pass, lost)
    layers = [Retry(clock=clock), script] if retried else [script]

    try:
        [error] = await _planned(store, *layers).run(_modify("0"))
    except UnavailableError as raised:
        error = raised

    assert isinstance(error, UnavailableError)
    assert error.applied is Applied.MAYBE
    assert await _numbers(store, 1) == [2]


@pytest.mark.asyncio
async def test_a_modification_that_was_not_sent_is_repeated_where_retries_are_configured() -> None:
    """Reads and writes are retried alone."""
    store = await _stored(1)

    results = await _planned(
        store, Retry(clock=VirtualClock(auto=True)), Scripted(refused, _pass, refused)
    ).run(_modify("0"))

    assert isinstance(results[0], str)
    assert await _numbers(store, 1) == [2]


@pytest.mark.parametrize(("seconds", "least"), [(5.0, 4.5), (90.0, 89.0), (None, 29.0)])
@pytest.mark.asyncio
async def test_lost_races_are_repeated_until_the_deadline(seconds: float | None, least: float) -> None:
    """Thirty seconds where there is none; then nothing was applied, and the error says so."""
    store = await _stored(1)
    clock = VirtualClock(auto=True)
    script = Scripted(*[_pass, _overtaken(store, "0")] * 100_000)
    layers = [] if seconds is None else [Deadline(seconds=seconds, clock=clock)]

    [error] = await _planned(store, *layers, script, clock=clock).run(_modify("0"))

    assert isinstance(error, ConflictError)
    assert error.applied is Applied.NO
    assert error.record_id == "0"
    assert least < clock.now() <= (seconds or 30.0)
    assert await _numbers(store, 1) == [10]


@pytest.mark.asyncio
async def test_calls_for_one_record_share_a_write() -> None:
    """A hundred callers, two reads and two writes; each caller has its own result."""
    store = await _stored(0, "text")
    script = Scripted(*[_slow] * 10)
    handle = _planned(store, script)

    calls = [handle.run(_modify("0")) for _ in range(99)]
    results = await asyncio.gather(*calls, handle.run(_modify("0", change=n.push(1))))

    assert [type(result) for [result] in results] == [str] * 99 + [InvalidRecordError]
    assert await _numbers(store, 1) == [99]
    assert [type(op) for op in script.attempts] == [Read, Write, Read, Write]


@pytest.mark.asyncio
async def test_records_are_not_held_up_by_each_other() -> None:
    """Calls are merged by record."""
    store = await _stored(0, 0)
    script = Scripted(*[_slow] * 20)
    handle = _planned(store, script)

    await asyncio.gather(*(handle.run(_modify(str(number % 2))) for number in range(20)))

    assert await _numbers(store, 2) == [10, 10]
    assert len(script.attempts) == 8


@pytest.mark.asyncio
async def test_a_cancelled_caller_does_not_hurt_those_that_it_was_merged_with() -> None:
    """Whether its request has begun or is waiting."""
    store = await _stored(0)
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def held(op: Op[Any], call_next: Next) -> Any:
        begun.set()
        await goes_on.wait()
        return await call_next(op)

    handle = _planned(store, Scripted(held))
    tasks = [asyncio.ensure_future(handle.run(_modify("0"))) for _ in range(5)]
    await begun.wait()
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    goes_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    cancelled = [isinstance(result, asyncio.CancelledError) for result in results]
    assert cancelled == [True, False, True, False, False]
    assert await _numbers(store, 1) == [3]


@pytest.mark.asyncio
async def test_a_failure_is_every_merged_callers_own() -> None:
    """The store is down: each caller raises a copy, and the next call is tried again."""
    store = await _stored(0)

    async def slowly_refused(op: Op[Any], call_next: Next) -> Any:
        await asyncio.sleep(0)
        return await refused(op, call_next)

    handle = _planned(store, Scripted(slowly_refused, slowly_refused))

    results = await asyncio.gather(*(handle.run(_modify("0")) for _ in range(3)), return_exceptions=True)

    assert all(isinstance(result, UnavailableError) for result in results)
    assert len(set(map(id, results))) == 3
    assert isinstance((await handle.run(_modify("0")))[0], str)


@pytest.mark.asyncio
async def test_update_where_leaves_out_what_no_longer_matches() -> None:
    """The others are changed all or none, as memory has transactions; the count is of those changed."""
    store = await _stored(1, 2, 3)

    async def overtaken(op: Op[Any], call_next: Next) -> Any:
        await store.write("records", WriteKind.UPSERT, [Mutation("0", {"n": 99})], atomic=False)
        await store.write("records", WriteKind.DELETE, [Mutation("1")], atomic=False)
        return await call_next(op)

    count = await _planned(store, Scripted(_pass, overtaken)).run(ModifyWhere("records", n < 50, (n.inc(1),)))

    assert count == 1
    assert await _numbers(store, 3) == [99, None, 4]


@pytest.mark.asyncio
async def test_update_where_changes_nothing_if_one_record_does_not_admit_it() -> None:
    """Even if others were changed by another writer meanwhile."""
    store = await _stored(1, "text", 3)

    with pytest.raises(BatchError) as refusal:
        await _planned(store, Scripted(_pass, _overtaken(store, "0"))).run(
            ModifyWhere("records", n.exists(), (n.inc(1),))
        )

    kinds = [type(outcome) for outcome in refusal.value.outcomes]
    assert kinds == [NotWrittenError, InvalidRecordError, NotWrittenError]
    assert await _numbers(store, 3) == [10, "text", 3]


@pytest.mark.asyncio
async def test_update_where_ends_at_the_deadline() -> None:
    """Records that others change all the time are its error, and none of them counts as changed."""
    store = await _stored(1, 2)
    script = Scripted(_pass, *[_pass, _overtaken(store, "0")] * 100_000)

    with pytest.raises(BatchError) as refusal:
        await _planned(store, script).run(ModifyWhere("records", n < 50, (n.inc(1),)))

    assert [type(outcome) for outcome in refusal.value.outcomes] == [ConflictError, ConflictError]
    assert await _numbers(store, 2) == [10, 2]


@pytest.mark.parametrize("residual", [True, False])
def test_a_store_is_sent_a_modification_only_if_it_evaluates_the_condition(residual: bool) -> None:
    """All of it, exactly; one that never holds is the core's to refuse."""

    def pushdown(leaf: Leaf) -> Pushdown:
        return Pushdown.NONE if residual and isinstance(leaf, Like) else Pushdown.EXACT

    def sent(where: Predicate) -> Modification | None:
        return native_modification(Modification("a", (field("n").inc(1),), where, "v"), pushdown)

    both = sent((field("n") >= 1) & field("t").like("a%"))
    plain = sent(field("n") >= 1)

    assert (both is None) is residual
    assert plain is not None
    assert (plain.id, plain.where, plain.if_version) == ("a", field("n") >= 1, "v")
    assert sent(FALSE) is None
    assert sent(TRUE) is not None


class _Batching(MemoryBackend):
    """A store that applies batches by itself, but cannot evaluate `like`."""

    batches = 0

    def support(self, collection: str) -> Any:
        """Return what the store evaluates."""
        grades = (Pushdown.EXACT, Pushdown.NONE)
        return SimpleNamespace(pushdown=lambda leaf: grades[isinstance(leaf, Like)])

    async def modify_batch(
        self, collection: str, modifications: Sequence[Modification], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply all by compare-and-set, as the core does."""
        self.batches += 1
        op = Modify(collection, list(modifications), atomic)
        return await CompareAndSet(lambda op: op.apply(self), VirtualClock(), self.capabilities).modify(op)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("where", "batches"), [(TRUE, 1), (n >= 1, 1), (field("t").like("a%"), 0)], ids=["no", "known", "unknown"]
)
async def test_a_batch_is_the_stores_if_it_can_evaluate_all_of_it(where: Predicate, batches: int) -> None:
    """Else the core applies it, and no item is left out."""
    backend = _Batching(MemoryConfig.load({}, environ={}))
    created = [Mutation(str(id), {"n": 1, "t": "ab"}) for id in range(2)]
    await backend.write("records", WriteKind.CREATE, created, atomic=False)
    items = [Modification("0", (n.inc(1),)), Modification("1", (n.inc(1),), where)]

    results = await modify_items(
        Modify("records", items, False), backend, lambda op: op.apply(backend), VirtualClock()
    )

    assert len(results) == 2
    assert not any(isinstance(result, Exception) for result in results)
    assert backend.batches == batches
    assert await _numbers(backend, 2) == [2, 2]
