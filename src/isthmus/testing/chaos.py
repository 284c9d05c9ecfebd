"""A layer that fails operations by a seed: the same seed, the same failures."""

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
    """Fails a share of the attempts, next to the store: `layers={"chaos": Chaos(seed=1, refused=0.1)}`.

    `refused`: nothing is sent. `lost`: it is done and the answer is lost. `dropped`: it is not done
    and nobody knows. `busy`: the store asks for less. `slow`: it takes `delay` seconds more.
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
            raise ValueError("the shares are at least 0 and at most 1 together")
        self.seed = seed
        self._random = Random(seed)  # noqa: S311 - failures that can be repeated
        self._shares = {"refused": refused, "lost": lost, "dropped": dropped, "busy": busy, "slow": slow}
        self._delay = delay
        self._clock = clock
        self.struck = dict.fromkeys(self._shares, 0)
        """How many attempts met each failure."""

    def metrics(self) -> dict[str, float]:
        """Return how many attempts met each failure."""
        return dict(self.struck)

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation, or fail it."""
        name = self._next()
        where = f"chaos with seed {self.seed}"
        maybe = Applied.MAYBE if op.writes else Applied.NO
        match name:
            case "refused":
                raise ConnectError(f"{where}: connection refused")
            case "busy":
                raise RateLimitedError(f"{where}: the store is busy")
            case "dropped":
                await asyncio.sleep(0)
                raise UnavailableError(f"{where}: the connection was cut", applied=maybe)
            case "slow":
                await self._clock.sleep(self._delay)
        result: R = await call_next(op)
        if name == "lost":
            raise UnavailableError(f"{where}: the answer was lost", applied=maybe)
        return result

    def _next(self) -> str | None:
        drawn = self._random.random()
        for name, share in self._shares.items():
            if drawn < share:
                self.struck[name] += 1
                return name
            drawn -= share
        return None
