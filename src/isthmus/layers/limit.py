"""Bounds concurrency, and sheds calls that have waited too long."""

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
    """The running and waiting calls of one event loop; first come, first served."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Limit(Layer):
    """Lets at most `max_in_flight` operations run at once on each event loop; others queue in order.

    A call that has waited `max_wait` seconds, or that finds `max_waiting` calls in the queue, gets
    `RateLimitedError` with `applied=NO`: under overload the accepted work keeps its latency and the
    rest fails early.
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
        """Return the calls that run and wait now on all loops, and those that had to wait or were refused."""
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
        """Wait for a slot; a finished call hands its slot to the first waiter, so that none is overtaken."""
        if len(gate.waiting) >= self._max_waiting:
            self._shed += 1
            raise RateLimitedError(
                f"{gate.running} calls of this handle are running and {len(gate.waiting)} wait"
                " (limit.max_waiting): the load is more than the store takes",
                retry_after=self._max_wait,
            )
        self._queued += 1
        call = CALL.get()
        if call is not NO_CALL:
            call.sent = call.earlier  # a call that ends here was not sent
        slot: asyncio.Future[None] = loop.create_future()
        gate.waiting.append(slot)
        timer = self._clock.timeout(self._max_wait)
        try:
            async with timer as waiting:
                await slot
            if call is not NO_CALL:
                call.sent = True
            return
        except TimeoutError:
            if not waiting.expired():  # pragma: no cover - nothing else in the block raises it
                raise
            _leave(gate, slot)
        except BaseException:
            _leave(gate, slot)
            raise
        self._shed += 1
        raise RateLimitedError(
            f"{gate.running} calls of this handle are running, and this one waited {self._max_wait:g} s for"
            " its turn (limit.max_wait): the load is more than the store takes",
            retry_after=self._max_wait,
        )


def _hand_over(gate: _Gate) -> None:
    while gate.waiting:
        slot = gate.waiting.popleft()
        if not slot.done():
            slot.set_result(None)
            return
    gate.running -= 1


def _leave(gate: _Gate, slot: asyncio.Future[None]) -> None:
    """Remove a waiter from the queue, or pass on the slot that it was handed too late."""
    if slot.done() and not slot.cancelled():
        _hand_over(gate)
        return
    slot.cancel()
    if slot in gate.waiting:
        gate.waiting.remove(slot)
