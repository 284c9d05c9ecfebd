"""Fault injection: a layer that fails a share of the operations, reproducible by its seed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.op import Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.errors import Applied, ConnectError, RateLimitedError, UnavailableError

__all__ = ["Chaos"]

R = TypeVar("R")


class Chaos(Layer):
    """Fails a share of the attempts just before the store: `layers={"chaos": Chaos(seed=1, refused=0.1)}`.

    Each share is a probability from 0 to 1, and their sum is at most 1. `refused`: the connection is
    refused, nothing is sent. `lost`: the operation succeeds and its response is lost. `dropped`: the
    connection breaks before the operation, so its outcome is unknown to the caller. `busy`: the
    store rejects the request by a rate limit. `slow`: the operation takes `delay` seconds longer.
    Raises `ValueError` for shares out of range.
    """

    order = LayerOrder.ATTEMPT_TIMEOUT

    def __init__(
        self,
        *,
        seed: int,
        refused: float = 0.0,
        lost: float = 0.0,
        dropped: float = 0.0,
        busy: float = 0.0,
        slow: float = 0.0,
        delay: float = 0.05,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if min(refused, lost, dropped, busy, slow) < 0 or refused + lost + dropped + busy + slow > 1:
            raise ValueError("shares must not be negative, and their sum must be at most 1")
        self.seed = seed
        self._random = Random(seed)  # noqa: S311 - reproducible failures
        self._shares = {"refused": refused, "lost": lost, "dropped": dropped, "busy": busy, "slow": slow}
        self._delay = delay
        self._clock = clock
        self.struck = dict.fromkeys(self._shares, 0)
        """The number of attempts by injected failure."""

    def metrics(self) -> dict[str, float]:
        """Return the number of attempts by injected failure."""
        return dict(self.struck)

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation, or fail it."""
        name = self._choose()
        origin = f"chaos with seed {self.seed}"
        maybe = Applied.MAYBE if op.writes else Applied.NO
        match name:
            case "refused":
                raise ConnectError(f"{origin}: connection refused")
            case "busy":
                raise RateLimitedError(f"{origin}: the store is busy")
            case "dropped":
                await asyncio.sleep(0)
                raise UnavailableError(f"{origin}: the connection was reset", applied=maybe)
            case "slow":
                await self._clock.sleep(self._delay)
        result: R = await call_next(op)
        if name == "lost":
            raise UnavailableError(f"{origin}: the response was lost", applied=maybe)
        return result

    def _choose(self) -> str | None:
        chance = self._random.random()
        for name, share in self._shares.items():
            if chance < share:
                self.struck[name] += 1
                return name
            chance -= share
        return None
