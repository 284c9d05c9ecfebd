"""Deadline, attempt timeout, and how many run at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isthmus._core.op import Op
from isthmus._core.stack import Next
from isthmus.errors import Applied, DeadlineError, PoolTimeoutError, RateLimitedError
from isthmus.layers.attempt_timeout import AttemptTimeout
from isthmus.layers.deadline import Deadline
from isthmus.layers.limit import Limit
from isthmus.layers.retry import Retry
from isthmus.testing.clock import VirtualClock
from tests.layers.stores import READ, Scripted, create, refused, stack


async def hangs(op: Op[Any], call_next: Next) -> Any:
    """Never answer."""
    await asyncio.get_running_loop().create_future()


@pytest.mark.asyncio
async def test_a_stalled_read_ends_at_its_deadline() -> None:
    """By an error that is a TimeoutError, transient, and names the limit."""
    clock = VirtualClock(auto=True)

    with pytest.raises(DeadlineError, match=r"get on 'records' timed out after 5 s \(deadline\)") as caught:
        await stack(Deadline(seconds=5, clock=clock), Scripted(hangs)).run(READ)

    assert isinstance(caught.value, TimeoutError)
    assert caught.value.transient
    assert caught.value.applied is Applied.NO
    assert clock.now() == 5


@pytest.mark.asyncio
async def test_a_stalled_write_may_have_been_done() -> None:
    """Nobody knows, and the error says so."""
    clock = VirtualClock(auto=True)

    with pytest.raises(DeadlineError) as caught:
        await stack(Deadline(seconds=5, clock=clock), Scripted(hangs)).run(create("a"))

    assert caught.value.applied is Applied.MAYBE


@pytest.mark.asyncio
async def test_a_write_that_was_only_waiting_was_not_done() -> None:
    """In a back-off after a refused connection, or in the queue, no outcome is unknown."""
    clock = VirtualClock(auto=True)
    limit = Limit(max_in_flight=1, max_wait=60, clock=clock)
    first = asyncio.ensure_future(stack(limit, Scripted(hangs)).run(READ))
    await asyncio.sleep(0)

    with pytest.raises(DeadlineError) as caught:
        await stack(Deadline(seconds=5, clock=clock), limit).run(create("a"))

    assert caught.value.applied is Applied.NO
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_timeout_of_the_store_is_not_taken_for_the_deadline() -> None:
    """PoolTimeoutError is a TimeoutError too, and passes as it is."""

    async def full(op: Op[Any], call_next: Next) -> Any:
        raise PoolTimeoutError("full")

    with pytest.raises(PoolTimeoutError):
        await stack(Deadline(seconds=5, clock=VirtualClock()), Scripted(full)).run(READ)


@pytest.mark.asyncio
async def test_cancelling_a_caller_is_not_a_deadline() -> None:
    """A cancelled task ends as cancelled."""
    stacked = stack(Deadline(seconds=5, clock=VirtualClock()), Scripted(hangs))
    task = asyncio.ensure_future(stacked.run(READ))
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_a_stalled_attempt_leaves_time_for_another() -> None:
    """The second attempt answers within the call's deadline."""
    clock = VirtualClock(auto=True)
    layers = [
        Deadline(seconds=10, clock=clock),
        Retry(clock=clock),
        AttemptTimeout(seconds=2, clock=clock),
        Scripted(hangs),
    ]

    assert await stack(*layers).run(READ) == [None]

    assert 2 <= clock.now() < 10


@pytest.mark.asyncio
async def test_no_more_run_at_once_than_allowed_and_in_order() -> None:
    """First come, first served."""
    running = most = 0
    order: list[int] = []

    async def work(op: Op[Any], call_next: Next) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(int(op.ids[0]))
        await asyncio.sleep(0)
        running -= 1
        return await call_next(op)

    stacked = stack(Limit(max_in_flight=3, clock=VirtualClock()), Scripted(*[work] * 20))

    await asyncio.gather(*(stacked.run(type(READ)("records", (str(i),))) for i in range(20)))

    assert most == 3
    assert order == list(range(20))


@pytest.mark.asyncio
async def test_who_waits_too_long_is_refused_and_the_rest_is_served() -> None:
    """Under overload the rest fails early, and says that nothing was done."""
    clock = VirtualClock()
    limit = Limit(max_in_flight=1, max_wait=1.0, clock=clock)
    go = asyncio.Event()

    async def slow(op: Op[Any], call_next: Next) -> Any:
        await go.wait()
        return await call_next(op)

    stacked = stack(limit, Scripted(slow))
    first = asyncio.ensure_future(stacked.run(READ))
    early = asyncio.ensure_future(stacked.run(READ))
    await clock.advance(0.9)
    late = asyncio.ensure_future(stacked.run(READ))
    await clock.advance(0.2)
    go.set()

    assert await first == [None]
    with pytest.raises(RateLimitedError, match="max_wait") as caught:
        await early
    assert caught.value.applied is Applied.NO
    assert await late == [None]
    assert limit.counts() == {"running": 0, "waiting": 0, "queued": 2, "refused": 1}


@pytest.mark.asyncio
async def test_a_full_queue_refuses_at_once() -> None:
    """Memory is bounded, whatever comes."""
    limit = Limit(max_in_flight=1, max_waiting=2, clock=VirtualClock())
    stacked = stack(limit, Scripted(hangs))
    tasks = [asyncio.ensure_future(stacked.run(READ)) for _ in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(RateLimitedError, match="max_waiting"):
        await stacked.run(READ)

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert limit.counts()["running"] == 0


@pytest.mark.asyncio
async def test_cancelled_waiters_and_runners_lose_no_place() -> None:
    """After any cancellations as many may run as before."""
    limit = Limit(max_in_flight=2, clock=VirtualClock())

    async def brief(op: Op[Any], call_next: Next) -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        return await call_next(op)

    stacked = stack(limit, Scripted(*[brief] * 500))
    tasks = [asyncio.ensure_future(stacked.run(READ)) for _ in range(200)]
    for turn in range(100):
        await asyncio.sleep(0)
        tasks[(turn * 7) % 200].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert limit.counts()["running"] == 0
    assert limit.counts()["waiting"] == 0
    assert await stacked.run(READ) == [None]


@pytest.mark.asyncio
async def test_a_refused_connection_in_a_back_off_is_not_in_doubt() -> None:
    """The deadline ends the pause; nothing was ever sent."""
    clock = VirtualClock()
    layers = [Deadline(seconds=5, clock=clock), Retry(base=2, cap=2, clock=clock), Scripted(refused)]
    task = asyncio.ensure_future(stack(*layers).run(create("a")))
    await clock.advance(2.1)

    assert await task == ["a"]
