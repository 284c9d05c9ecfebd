"""Counts calls and their durations by operation, in fixed buckets."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.op import Modify, Op, Write
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._value import Value
from isthmus.errors import IsthmusError

R = TypeVar("R")

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds; longer calls are in one more bucket without a bound."""


class Latency(Value):
    """The calls of one operation: count, total time, distribution and errors."""

    calls: int
    seconds: float
    buckets: tuple[int, ...]
    """How many calls lie in each of `BUCKETS`, and beyond: not cumulative."""
    items: int
    """Records written, for a write."""
    errors: dict[str, int]
    """By the class of the error; failed items of a batch are counted too."""


class _Series:
    __slots__ = ("buckets", "calls", "errors", "items", "seconds")

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.items = 0
        self.errors: dict[str, int] = {}


class Metrics(Layer):
    """Measures the time that the caller waited: queueing, retries and pauses included."""

    order = LayerOrder.METRICS
    in_transaction = True

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._series: dict[str, _Series] = {}
        # Threads with loops of their own share a handle; += is not atomic.
        self._lock = threading.Lock()

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation and count it."""
        begun = self._clock.now()
        failed: dict[str, int] = {}
        done = 0
        try:
            result: R = await call_next(op)
        except BaseException as error:  # a cancelled call took its time too
            failed[type(error).__name__] = 1
            raise
        else:
            if isinstance(op, Write | Modify) and isinstance(result, list):
                for item in result:
                    if isinstance(item, IsthmusError):
                        name = type(item).__name__
                        failed[name] = failed.get(name, 0) + 1
                done = len(result) - sum(failed.values())
        finally:
            self._add(op.name, self._clock.now() - begun, done, failed)
        return result

    def _add(self, name: str, seconds: float, items: int, failed: dict[str, int]) -> None:
        with self._lock:
            series = self._series.get(name)
            if series is None:
                series = self._series[name] = _Series()
            series.calls += 1
            series.seconds += seconds
            series.buckets[bisect_left(BUCKETS, seconds)] += 1
            series.items += items
            for error, count in failed.items():
                series.errors[error] = series.errors.get(error, 0) + count

    def latencies(self) -> dict[str, Latency]:
        """Return a snapshot by operation."""
        with self._lock:
            return {
                name: Latency(s.calls, s.seconds, tuple(s.buckets), s.items, dict(s.errors))
                for name, s in self._series.items()
            }

    def metrics(self) -> dict[str, float]:
        """Return the snapshot flat: `get.calls`, `get.le_0.001` (cumulative), `get.errors.ConflictError`."""
        flat: dict[str, float] = {}
        for name, latency in self.latencies().items():
            flat[f"{name}.calls"] = latency.calls
            flat[f"{name}.seconds"] = latency.seconds
            if latency.items:
                flat[f"{name}.items"] = latency.items
            below = 0
            for bound, count in zip(BUCKETS, latency.buckets, strict=False):
                below += count
                flat[f"{name}.le_{bound:g}"] = below
            for error, count in latency.errors.items():
                flat[f"{name}.errors.{error}"] = count
        return flat
