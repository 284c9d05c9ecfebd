"""Pools per event loop: shared by key, opened once, leased, self-cleaning."""

import asyncio
import os
import threading

import pytest

from isthmus._core import loop_pools
from isthmus._core.loop_pools import LoopBound, lease, open_pools


class Pool:
    """Counts what becomes of it."""

    def __init__(self) -> None:
        self.closed = 0
        self.abandoned = 0
        self.well = True

    async def close(self) -> None:
        """Count a close."""
        await asyncio.sleep(0)
        self.closed += 1

    def discard(self) -> None:
        """Count a drop without await."""
        self.abandoned += 1

    def is_healthy(self) -> bool:
        """Say what the test set."""
        return self.well


class Opener:
    """Opens pools when it is let."""

    def __init__(self) -> None:
        self.pools: list[Pool] = []
        self.gate: asyncio.Event | None = None
        self.fail = False

    async def __call__(self) -> Pool:
        """Return a new pool, after the gate if there is one."""
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.fail:
            raise ConnectionError("no")
        self.pools.append(Pool())
        return self.pools[-1]


@pytest.mark.asyncio
async def test_equal_keys_share_a_pool_and_the_last_lease_closes_it() -> None:
    """Closing one handle does not close another's pool."""
    opener = Opener()
    first, second = LoopBound("k", opener), LoopBound("k", opener)
    pool = await first.pool()
    assert await second.pool() is pool

    await first.close()
    assert pool.closed == 0
    await second.close()

    assert pool.closed == 1
    assert open_pools() == 0


@pytest.mark.asyncio
async def test_concurrent_first_uses_open_once() -> None:
    """Single flight."""
    opener = Opener()
    handles = [LoopBound("k", opener) for _ in range(20)]

    pools = await asyncio.gather(*(handle.pool() for handle in handles))

    assert len(opener.pools) == 1
    assert all(pool is pools[0] for pool in pools)
    for handle in handles:
        await handle.close()
    assert open_pools() == 0


@pytest.mark.asyncio
async def test_other_keys_do_not_share() -> None:
    """The key holds all that matters."""
    opener = Opener()
    one, other = await lease(("h", 2), opener), await lease(("h", 9), opener)
    assert one.pool is not other.pool
    await one.release()
    await other.release()
    assert [pool.closed for pool in opener.pools] == [1, 1]


@pytest.mark.asyncio
async def test_a_failed_opening_fails_its_callers_and_the_next_call_tries_anew() -> None:
    """An outage is not remembered."""
    opener = Opener()
    opener.fail = True
    handle = LoopBound("k", opener)
    results = await asyncio.gather(handle.pool(), handle.pool(), return_exceptions=True)
    assert all(isinstance(result, ConnectionError) for result in results)
    opener.fail = False
    assert await handle.pool() is opener.pools[0]
    await handle.close()
    assert open_pools() == 0


@pytest.mark.asyncio
async def test_a_cancelled_first_caller_does_not_disturb_the_others() -> None:
    """The opening goes on for those who still wait."""
    opener = Opener()
    opener.gate = asyncio.Event()
    first = asyncio.create_task(lease("k", opener))
    second = asyncio.create_task(lease("k", opener))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    opener.gate.set()

    held = await second

    assert first.cancelled()
    await held.release()
    assert held.pool.closed == 1
    assert open_pools() == 0


@pytest.mark.asyncio
async def test_when_all_callers_are_cancelled_the_opening_is_too() -> None:
    """Nothing opens for nobody."""
    opener = Opener()
    opener.gate = asyncio.Event()
    tasks = [asyncio.create_task(lease("k", opener)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    opener.gate.set()
    await asyncio.sleep(0)
    assert opener.pools == []
    assert open_pools() == 0


@pytest.mark.asyncio
async def test_a_broken_pool_is_replaced() -> None:
    """Validated before use, rebuilt if broken."""
    opener = Opener()
    handle = LoopBound("k", opener)
    broken = await handle.pool()
    broken.well = False

    fresh = await handle.pool()

    assert fresh is not broken
    assert broken.closed == 1
    await handle.close()
    assert open_pools() == 0


def test_each_loop_has_its_own_pool_and_a_dead_loops_pool_is_dropped() -> None:
    """50 loops in a row with one handle: no pool is used on another loop, none piles up."""
    opener = Opener()
    handle = LoopBound("k", opener)
    for _ in range(50):
        asyncio.run(handle.pool())  # type: ignore[arg-type]
    loop_pools.sweep()
    assert len(opener.pools) == 50
    assert sum(pool.abandoned for pool in opener.pools) == 50
    assert open_pools() == 0


def test_threads_with_their_own_loops_have_their_own_pools() -> None:
    """And closing the handle in one loop closes the pools of the others on theirs."""
    opener = Opener()
    handle = LoopBound("k", opener)
    ready, leave = threading.Barrier(5), threading.Event()

    async def use() -> None:
        await handle.pool()
        await asyncio.to_thread(ready.wait)
        while not leave.is_set():
            await asyncio.sleep(0.001)

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait()
    asyncio.run(handle.close())
    for _ in range(2000):
        if all(pool.closed for pool in opener.pools):
            break
        threading.Event().wait(0.001)
    leave.set()
    for thread in threads:
        thread.join()
    assert [pool.closed for pool in opener.pools] == [1] * 4
    assert open_pools() == 0


def test_a_forked_child_starts_fresh() -> None:
    """It neither uses nor closes what its parent has open."""
    opener = Opener()
    handle = LoopBound("k", opener)
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(handle.pool())

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = asyncio.run(_in_the_child(handle, pool))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    loop.run_until_complete(handle.close())
    loop.close()
    assert (pool.closed, pool.abandoned) == (1, 0)
    assert open_pools() == 0


async def _in_the_child(handle: LoopBound[Pool], parents: Pool) -> int:
    """Return 0 if the handle opens a pool of its own and leaves the parent's alone."""
    own = await handle.pool()
    await handle.close()
    return 0 if own is not parents and (parents.closed, parents.abandoned, own.closed) == (0, 0, 1) else 1
