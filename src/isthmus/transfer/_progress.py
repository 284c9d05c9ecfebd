"""Progress of a copy, and its throttle."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus._core.clock import Clock

_WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a running copy; times are in seconds."""

    done: int
    """Records read and processed, including those of earlier runs."""
    total: int | None
    """Records to read, counted when the copy starts; None until the count is known."""
    rate: float
    """Records per second, averaged over about the last ten seconds."""
    seconds: float
    """Time since this run started."""

    @property
    def left(self) -> float | None:
        """Estimated seconds until the end at the current rate; None if it is not known."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0, self.total - self.done) / self.rate


class RateLimiter:
    """Measures the rate of a run and keeps it below a limit.

    `limit` is in records per second; None for no limit.
    """

    def __init__(self, clock: Clock, *, limit: float | None = None) -> None:
        self._clock = clock
        self._limit = limit
        self._start = self._last = clock.now()
        self._count = 0
        self.rate = 0.0
        """Records per second, an exponential moving average."""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.now() - self._start

    async def spend(self, count: int) -> None:
        """Count `count` records, and wait until the limit allows the next ones."""
        self._count += count
        if self._limit is not None:
            ahead = self._count / self._limit - self.seconds
            if ahead > 0:
                await self._clock.sleep(ahead)
        now = self._clock.now()
        elapsed, self._last = max(now - self._last, 1e-6), now
        weight = 1.0 if self.rate == 0 else min(1.0, elapsed / _WINDOW_SECONDS)
        self.rate += weight * (count / elapsed - self.rate)
