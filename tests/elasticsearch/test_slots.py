"""Slots for connections: in order of arrival, never lost, and an error that names who has them."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from isthmus.backends.elasticsearch.slots import Slots
from isthmus.errors import PoolTimeoutError
from tests.seeds import drawn


async def _hold(slots: Slots, until: asyncio.Event) -> None:
    async with slots.hold():
        await until.wait()


@pytest.mark.asyncio
async def test_an_error_names_the_holders_though_slots_change_hands_in_the_same_turn() -> None:
    """A slot is given to the next in line at once, so a caller that times out then sees it in use."""
    slots = Slots(1, 0.02)
    until = asyncio.Event()
    tasks = [asyncio.create_task(_hold(slots, until), name=f"holder-{n}") for n in range(4)]
    await asyncio.sleep(0)
    until.set()
    # Past every timeout: the loop then finds the slot released and the timers due in one turn.
    asyncio.get_running_loop().call_soon(time.sleep, 0.03)

    results = await asyncio.gather(*tasks, return_exceptions=True)

    failed = [result for result in results if result is not None]
    assert failed
    assert all(isinstance(error, PoolTimeoutError) for error in failed)
    assert all("1 of 1 are in use by holder-" in str(error) for error in failed)
    assert slots.stats(0).in_use == 0
    assert slots.stats(0).timeouts == len(failed)


@pytest.mark.asyncio
async def test_slots_go_in_order_of_arrival() -> None:
    """Also past a caller that was cancelled while it waited."""
    slots = Slots(1, None)
    order: list[int] = []

    async def use(n: int) -> None:
        async with slots.hold():
            order.append(n)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(use(n)) for n in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()

    await asyncio.gather(*tasks, return_exceptions=True)

    assert order == [0, 1, 3, 4]


@pytest.mark.asyncio
async def test_cancelled_callers_lose_no_slot() -> None:
    """However they are cancelled: waiting, handed a slot in the same turn, or using it."""
    pick = Random(drawn())
    slots = Slots(3, 0.004)

    async def use() -> None:
        async with slots.hold():
            await asyncio.sleep(pick.random() * 0.001)

    for _ in range(60):
        tasks = [asyncio.create_task(use()) for _ in range(20)]
        for _ in range(pick.randrange(6)):
            await asyncio.sleep(0)
        for task in pick.sample(tasks, 10):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slots.stats(0).in_use == slots.stats(0).waiting == 0
        async with asyncio.timeout(5):
            await asyncio.gather(*(use() for _ in range(3)))
