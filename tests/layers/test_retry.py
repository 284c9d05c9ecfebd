"""What is repeated, how often, and what a lost answer comes to."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from isthmus._core.executor import Mutation, WriteKind
from isthmus._core.op import Op, Read, Write
from isthmus._core.stack import Next
from isthmus._core.unique import unique_of
from isthmus.errors import (
    AccessError,
    AlreadyExistsError,
    Applied,
    CircuitOpenError,
    ConnectError,
    RateLimitedError,
    UnavailableError,
)
from isthmus.layers.deadline import Deadline
from isthmus.layers.retry import Retry
from isthmus.testing.clock import VirtualClock
from tests.layers.stores import READ, Scripted, create, lost, lost_before, memory, mutations, refused, stack


def retry(clock: VirtualClock | None = None, **settings: Any) -> Retry:
    return Retry(clock=clock or VirtualClock(auto=True), random=Random(1), **settings)


@pytest.mark.asyncio
async def test_a_read_is_repeated_until_the_store_answers() -> None:
    """Two refused connections and an answer look like an answer."""
    script = Scripted(refused, refused)

    assert await stack(retry(), script).run(READ) == [None]

    assert len(script.attempts) == 3


@pytest.mark.asyncio
async def test_the_last_failure_is_raised_when_attempts_are_used_up() -> None:
    """Three attempts, three failures, the third one's error."""
    script = Scripted(refused, refused, refused)

    with pytest.raises(ConnectError):
        await stack(retry(attempts=3), script).run(READ)

    assert len(script.attempts) == 3


@pytest.mark.asyncio
async def test_what_is_not_transient_is_not_repeated() -> None:
    """A wrong password is wrong the second time too."""

    async def denied(op: Op[Any], call_next: Next) -> Any:
        raise AccessError("no")

    script = Scripted(denied)

    with pytest.raises(AccessError):
        await stack(retry(), script).run(READ)

    assert len(script.attempts) == 1


@pytest.mark.asyncio
async def test_what_the_breaker_holds_back_fails_at_once() -> None:
    """An open breaker exists to answer early."""

    async def held(op: Op[Any], call_next: Next) -> Any:
        raise CircuitOpenError("open", retry_after=0.5)

    script = Scripted(held)

    with pytest.raises(CircuitOpenError):
        await stack(retry(), script).run(READ)

    assert len(script.attempts) == 1


@pytest.mark.asyncio
async def test_a_write_that_was_not_sent_is_repeated() -> None:
    """`applied=NO` makes any write repeatable."""
    store = memory()
    upsert = Write("records", WriteKind.UPSERT, mutations(["a"]), False)

    results = await stack(retry(), Scripted(refused), executor=store).run(upsert)

    assert isinstance(results[0], str)
    assert (await store.read("records", ["a"]))[0] is not None


@pytest.mark.parametrize("kind", [WriteKind.UPSERT, WriteKind.REPLACE, WriteKind.UPDATE, WriteKind.DELETE])
@pytest.mark.asyncio
async def test_an_unconditional_write_in_doubt_is_never_repeated(kind: WriteKind) -> None:
    """Repeating could undo what somebody else wrote in between."""
    store = memory()
    await store.write("records", WriteKind.CREATE, mutations(["a"]), atomic=False)
    script = Scripted(lost)

    with pytest.raises(UnavailableError) as caught:
        await stack(retry(), script, executor=store).run(Write("records", kind, mutations(["a"]), False))

    assert caught.value.applied is Applied.MAYBE
    assert len(script.attempts) == 1


@pytest.mark.parametrize("fault", [lost, lost_before])
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.asyncio
async def test_a_batch_with_new_ids_whose_answer_was_lost_is_there_once(fault: Any, atomic: bool) -> None:
    """Whether the lost attempt was done or not, the batch is there once and its ids are returned."""
    store = memory()
    layer = retry()
    op = create("a", "b", "c", own=True, atomic=atomic)

    assert await stack(layer, Scripted(fault), executor=store).run(op) == ["a", "b", "c"]

    assert sum(len(table) for table in store._committed.tables.values()) == 3
    assert layer.counts()["resolved"] == 1


@pytest.mark.asyncio
async def test_one_new_id_settles_an_atomic_batch() -> None:
    """All or nothing: if one record is there by us, all are, chosen ids included."""
    op = create("ours", "given", own=True, atomic=True)
    op.mutations[1].own_id = False

    assert await stack(retry(), Scripted(lost)).run(op) == ["ours", "given"]


@pytest.mark.asyncio
async def test_a_chosen_id_that_exists_after_a_lost_answer_stays_in_doubt() -> None:
    """The record may be another's, even with equal data: two claimants of a lock write the same."""
    (result,) = await stack(retry(), Scripted(lost)).run(create("lock"))

    assert isinstance(result, UnavailableError)
    assert result.applied is Applied.MAYBE


@pytest.mark.asyncio
async def test_a_chosen_id_that_did_not_exist_after_a_lost_answer_is_created() -> None:
    """The store creates an id once, so a create that succeeds now was not done before."""
    assert await stack(retry(), Scripted(lost_before)).run(create("lock")) == ["lock"]


@pytest.mark.asyncio
async def test_an_existing_id_is_plainly_refused_when_nothing_was_in_doubt() -> None:
    """A connection that was refused has a known outcome: nothing was written."""
    store = memory()
    await store.write("records", WriteKind.CREATE, mutations(["a"]), atomic=False)

    (result,) = await stack(retry(), Scripted(refused), executor=store).run(create("a"))

    assert isinstance(result, AlreadyExistsError)
    assert result.applied is Applied.NO


@pytest.mark.asyncio
async def test_an_id_of_ours_that_exists_was_written_by_us() -> None:
    """Even if it was the driver that sent it twice: nobody else can have made that id."""
    store = memory()
    await store.write("records", WriteKind.CREATE, mutations(["a"]), atomic=False)

    assert await stack(retry(), executor=store).run(create("a", own=True)) == ["a"]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.asyncio
async def test_a_value_that_another_record_has_was_not_written_by_us(atomic: bool) -> None:
    """Another writer may have taken a value of a unique field, whether or not the id was generated."""
    store = memory()
    await store.make_unique("records", *unique_of([["n"]]))
    await store.write("records", WriteKind.CREATE, [Mutation("a", {"n": 1}, None)], atomic=False)
    claim = Mutation("b", {"n": 1}, None)
    claim.own_id = True
    op = Write("records", WriteKind.CREATE, [claim], atomic)

    (result,) = await stack(retry(), executor=store).run(op)

    assert isinstance(result, AlreadyExistsError)
    assert (result.field, result.record_id) == ("n", "a")


@pytest.mark.parametrize("fault", [lost, lost_before])
@pytest.mark.asyncio
async def test_a_compare_and_set_in_doubt_is_done_once_or_left_in_doubt(fault: Any) -> None:
    """The version admits it once; a conflict on repeating may be our own change or another's."""
    store = memory()
    await store.write("records", WriteKind.CREATE, mutations(["a"]), atomic=False)
    (record,) = await store.read("records", ["a"])
    op = Write(
        "records", WriteKind.REPLACE, mutations(["a"], if_version=record.version if record else ""), False
    )

    (result,) = await stack(retry(), Scripted(fault), executor=store).run(op)

    if fault is lost_before:
        assert isinstance(result, str)
    else:
        assert isinstance(result, UnavailableError)
        assert result.applied is Applied.MAYBE


@pytest.mark.asyncio
async def test_a_doubt_outlives_later_failures() -> None:
    """A lost answer and then a refused connection: the write may still have been done."""
    script = Scripted(lost, refused, refused)

    with pytest.raises(ConnectError) as caught:
        await stack(retry(attempts=3), script).run(create("a", own=True))

    assert caught.value.applied is Applied.MAYBE


@pytest.mark.asyncio
async def test_only_the_failed_items_of_a_batch_are_repeated() -> None:
    """What a busy store accepted is not sent again."""

    async def busy(op: Op[Any], call_next: Next) -> Any:
        results = await call_next(Write(op.collection, op.kind, op.mutations[:1], False))
        return [*results, RateLimitedError("429"), RateLimitedError("429")]

    store = memory()
    script = Scripted(busy)

    assert await stack(retry(), script, executor=store).run(create("a", "b", "c")) == ["a", "b", "c"]

    assert [change.id for change in script.attempts[1].mutations] == ["b", "c"]


@pytest.mark.asyncio
async def test_of_two_changes_to_one_record_neither_is_repeated_alone() -> None:
    """The repeated first one would overtake the second."""

    async def busy(op: Op[Any], call_next: Next) -> Any:
        return [
            RateLimitedError("429"),
            *(await call_next(Write(op.collection, op.kind, op.mutations[1:], False))),
        ]

    script = Scripted(busy)
    op = Write("records", WriteKind.UPSERT, mutations(["a", "a"]), False)

    results = await stack(retry(), script).run(op)

    assert isinstance(results[0], RateLimitedError)
    assert len(script.attempts) == 1


@pytest.mark.asyncio
async def test_a_partly_done_batch_returns_what_was_done() -> None:
    """When the repetition fails for good, the first attempt's successes are not lost."""

    async def busy(op: Op[Any], call_next: Next) -> Any:
        results = await call_next(Write(op.collection, op.kind, op.mutations[:1], False))
        return [*results, RateLimitedError("429")]

    results = await stack(retry(attempts=2), Scripted(busy, refused)).run(create("a", "b"))

    assert results[0] == "a"
    assert isinstance(results[1], ConnectError)
    assert results[1].applied is Applied.NO


@pytest.mark.parametrize("jitter", ["decorrelated", "full"])
@pytest.mark.asyncio
async def test_pauses_are_jittered_and_capped(jitter: Any) -> None:
    """No two are alike, none is above the cap; a store's own wish is respected."""
    clock = VirtualClock(auto=True)
    script = Scripted(*[refused] * 9)

    await stack(retry(clock, attempts=10, base=0.1, cap=1.0, jitter=jitter), script).run(READ)

    assert len(set(clock.slept)) > 5
    assert all(0 <= pause <= 1.0 for pause in clock.slept)


@pytest.mark.asyncio
async def test_the_store_is_given_the_time_that_it_asked_for() -> None:
    """`retry_after` is a floor."""

    async def later(op: Op[Any], call_next: Next) -> Any:
        raise RateLimitedError("429", retry_after=7.0)

    clock = VirtualClock(auto=True)

    await stack(retry(clock), Scripted(later)).run(READ)

    assert clock.slept == [7.0]


@pytest.mark.asyncio
async def test_no_retry_begins_that_the_deadline_would_end() -> None:
    """The caller gets the store's error, early, and not the deadline's, late."""

    async def later(op: Op[Any], call_next: Next) -> Any:
        raise RateLimitedError("429", retry_after=7.0)

    clock = VirtualClock(auto=True)

    with pytest.raises(RateLimitedError):
        await stack(Deadline(seconds=5, clock=clock), retry(clock), Scripted(later)).run(READ)

    assert clock.slept == []


@pytest.mark.asyncio
async def test_retries_dry_up_in_an_outage() -> None:
    """60 s at 200 operations a second, all failing: at most 10 % more traffic."""
    clock = VirtualClock(auto=True)
    script = Scripted(*[refused] * 100_000)
    layer = retry(clock, attempts=3)
    stacked = stack(layer, script)
    operations = 60 * 200

    for _ in range(operations):
        with pytest.raises(ConnectError):
            await stacked.run(Read("records", ("a",)))

    added = len(script.attempts) - operations
    assert layer.counts()["retries"] == added
    assert operations * 0.05 < added <= operations * 0.10
