"""How far a copy is, how fast, and how it is held back."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus._core.clock import Clock

_MEMORY = 10.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a running copy; times in seconds."""

    done: int
    """Records read and dealt with, those of earlier runs included."""
    total: int | None
    """Records to be read, as counted at the start; None until that is known."""
    rate: float
    """Records a second over about the last ten seconds."""
    seconds: float
    """Since this run began."""

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at this rate."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0, self.total - self.done) / self.rate


class Pace:
    """Measures the rate of a run, and holds it under a limit."""

    def __init__(self, clock: Clock, *, throttle: float | None = None) -> None:
        self._clock = clock
        self._throttle = throttle
        self.start = self._last = clock.now()
        self._count = 0
        self._rate = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.now() - self.start

    @property
    def rate(self) -> float:
        """Records a second, recent ones weighing more."""
        return self._rate

    async def spend(self, count: int) -> None:
        """Count records in, and wait until the limit allows the next ones."""
        self._count += count
        if self._throttle is not None:
            early = self._count / self._throttle - self.seconds
            if early > 0:
                await self._clock.sleep(early)
        now = self._clock.now()
        took, self._last = max(now - self._last, 1e-6), now
        weight = 1.0 if self._rate == 0 else min(1.0, took / _MEMORY)
        self._rate += weight * (count / took - self._rate)
