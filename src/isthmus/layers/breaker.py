"""A circuit breaker: holds calls back from a store that fails, and lets one probe at a time."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.op import Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.errors import (
    CircuitOpenError,
    DeadlineError,
    PoolTimeoutError,
    RateLimitedError,
    UnavailableError,
)

R = TypeVar("R")


class Breaker(Layer):
    """Opens after consecutive failures of the store, refuses for a while, then lets a probe through.

    Only failures of the store count, not refused records, full pools or rate limits (those are
    responses). A probe that succeeds closes the breaker; one that fails opens it for the same time
    again, so that a recovered store serves within that time. The time is jittered, so that not all
    processes probe at once.
    """

    order = LayerOrder.BREAKER

    def __init__(
        self,
        *,
        failures: int = 5,
        open_seconds: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
    ) -> None:
        self._threshold = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - spreads load, keeps no secret
        self._failures = 0
        self._until: float | None = None
        self._probing = False
        self._opened = 0
        self._refused = 0

    def metrics(self) -> dict[str, float]:
        """Return how often it opened, how many calls it refused, and whether it is open now."""
        return {"opened": self._opened, "refused": self._refused, "open": float(self._until is not None)}

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation unless the breaker is open."""
        probe = self._admit()
        try:
            result: R = await call_next(op)
        except (UnavailableError, DeadlineError) as error:
            if not isinstance(error, (PoolTimeoutError, RateLimitedError)):
                self._record_failure()
            raise
        finally:
            # A cancelled probe reveals nothing about the store: the next call is the probe.
            if probe:
                self._probing = False
        self._failures = 0
        self._until = None
        return result

    def _admit(self) -> bool:
        """Return whether this call is the probe; raises `CircuitOpenError` if it may not pass."""
        if self._until is None:
            return False
        remaining = self._until - self._clock.now()
        if remaining > 0 or self._probing:
            self._refused += 1
            raise CircuitOpenError(
                f"the store failed {self._failures} times in a row; calls are held back for another"
                f" {max(remaining, 0.0):.1f} s",
                retry_after=max(remaining, 0.0),
            )
        self._probing = True
        return True

    def _record_failure(self) -> None:
        self._failures += 1
        if self._failures >= self._threshold:
            if self._until is None:
                self._opened += 1
            pause = self._open_seconds * self._random.uniform(0.75, 1.0)
            self._until = self._clock.now() + pause
