"""Bounds how much runs at once, and refuses what has waited too long to be worth doing."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.op import Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.errors import RateLimitedError
from isthmus.layers._call_state import CALL, NO_CALL

R = TypeVar("R")


class _Gate:
    """What runs and what waits on one event loop; first come, first served."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Limit(Layer):
    """Lets so many operations run at once on each event loop; the others queue in order.

    A call that has waited `max_wait` seconds, or that finds `max_waiting` before it, is refused by
    `RateLimitedError`, which nothing was done for: under overload the accepted work keeps its
    latency and the rest fails early.
    """

    order = LayerOrder.LIMIT

    def __init__(
        self,
        *,
        max_in_flight: int = 64,
        max_wait: float = 1.0,
        max_waiting: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._max_in_flight = max_in_flight
        self._max_wait = max_wait
        self._max_waiting = max_waiting
        self._clock = clock
        self._gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate] = weakref.WeakKeyDictionary()
        self._queued = 0
        self._shed = 0

    def metrics(self) -> dict[str, float]:
        """Return what runs and waits now on all loops, and how many had to wait or were refused."""
        gates = list(self._gates.values())
        return {
            "running": sum(gate.running for gate in gates),
            "waiting": sum(len(gate.waiting) for gate in gates),
            "queued": self._queued,
            "refused": self._shed,
        }

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation when its turn comes."""
        loop = asyncio.get_running_loop()
        gate = self._gates.get(loop)
        if gate is None:
            gate = self._gates[loop] = _Gate()
        if gate.running < self._max_in_flight and not gate.waiting:
            gate.running += 1
        else:
            await self._queue(gate, loop)
        try:
            return await call_next(op)
        finally:
            _hand_over(gate)

    async def _queue(self, gate: _Gate, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for a place; whoever leaves hands it over, so that nobody overtakes."""
        if len(gate.waiting) >= self._max_waiting:
            self._shed += 1
            raise RateLimitedError(
                f"{gate.running} calls of this handle are running and {len(gate.waiting)} wait"
                " (limit.max_waiting): it is asked for more than the store takes",
                retry_after=self._max_wait,
            )
        self._queued += 1
        call = CALL.get()
        if call is not NO_CALL:
            call.sent = call.earlier  # what ends here was not begun
        place: asyncio.Future[None] = loop.create_future()
        gate.waiting.append(place)
        timer = self._clock.timeout(self._max_wait)
        try:
            async with timer as waiting:
                await place
            if call is not NO_CALL:
                call.sent = True
            return
        except TimeoutError:
            if not waiting.expired():  # pragma: no cover - nothing else in the block raises it
                raise
            _leave(gate, place)
        except BaseException:
            _leave(gate, place)
            raise
        self._shed += 1
        raise RateLimitedError(
            f"{gate.running} calls of this handle are running, and this one waited {self._max_wait:g} s for"
            " its turn (limit.max_wait): it is asked for more than the store takes",
            retry_after=self._max_wait,
        )


def _hand_over(gate: _Gate) -> None:
    while gate.waiting:
        place = gate.waiting.popleft()
        if not place.done():
            place.set_result(None)
            return
    gate.running -= 1


def _leave(gate: _Gate, place: asyncio.Future[None]) -> None:
    """Take back a waiter's place in the queue, or pass on the place that it was given too late."""
    if place.done() and not place.cancelled():
        _hand_over(gate)
        return
    place.cancel()
    if place in gate.waiting:
        gate.waiting.remove(place)
