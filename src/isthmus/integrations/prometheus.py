"""Prometheus: durations and pools for a scrape, under the names that OpenTelemetry's exporter gives them.

db = await AsyncDatabase.create("postgres", {..., "layers": instrument()})
observe_pool(db)

Names are told, never values: no record, id, operand, statement or URL, and no error's message, in
which a store may quote them. Serving `/metrics` is the application's, as prometheus-client does it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._core.registry import import_driver
from isthmus._database import AsyncDatabase
from isthmus.integrations._telemetry import (
    BOUNDS,
    DURATION,
    DURATION_TEXT,
    ERROR,
    FIGURES,
    PATIENCE,
    POOL,
    Figure,
    Look,
    most_frequent,
    names_of,
    pool_name,
)
from isthmus.layers.trace import Call, Spans

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Histogram
    from prometheus_client.metrics_core import Metric

LABELS = ("db.system.name", "db.operation.name", "db.collection.name", ERROR)

# A registry takes each name once, so what is in it already is used again.
_lock = threading.Lock()
_durations: weakref.WeakKeyDictionary[CollectorRegistry, Histogram] = weakref.WeakKeyDictionary()
_pools: weakref.WeakKeyDictionary[CollectorRegistry, _Pools] = weakref.WeakKeyDictionary()


def instrument(registry: CollectorRegistry | None = None) -> dict[str, Any]:
    """Return the layer that takes durations, for `layers` of a config; merge others in.

    Without a registry the global one is used. Handles may share one.
    """
    return {"trace": durations(registry)}


def durations(registry: CollectorRegistry | None = None) -> Spans:
    """Return what the layer `trace` calls: the histogram `db_client_operation_duration_seconds`.

    The duration is what the caller waited, queueing and retries in it. The label `error_type` is empty
    if there was none; a batch of which items failed has the most frequent class among them.
    """
    prometheus = import_driver("prometheus_client", extra="prometheus")
    registry = prometheus.REGISTRY if registry is None else registry
    with _lock:
        histogram = _durations.get(registry)
        if histogram is None:
            histogram = prometheus.Histogram(
                f"{_named(DURATION)}_seconds",
                DURATION_TEXT,
                [_named(label) for label in LABELS],
                registry=registry,
                buckets=BOUNDS,
            )
            _durations[registry] = histogram

    @contextlib.contextmanager
    def timed(call: Call) -> Iterator[Callable[[Mapping[str, int]], None]]:
        labels = {**names_of(call), ERROR: ""}

        def failed(items: Mapping[str, int]) -> None:
            labels[ERROR] = most_frequent(items)

        begun = time.perf_counter()
        try:
            yield failed
        except BaseException as error:  # a cancelled call took its time too
            labels[ERROR] = type(error).__name__
            raise
        finally:
            histogram.labels(*(labels[label] for label in LABELS)).observe(time.perf_counter() - begun)

    return timed


def observe_pool(
    db: AsyncDatabase, registry: CollectorRegistry | None = None, name: str | None = None
) -> None:
    """Report the pool of the running loop at each scrape, until the handle is gone or closed.

    Call it on the loop that uses the handle. `name` is the label `db_client_connection_pool_name`, the
    backend and the default collection if not given; pools of one name are added up.
    """
    prometheus = import_driver("prometheus_client", extra="prometheus")
    registry = prometheus.REGISTRY if registry is None else registry
    with _lock:
        pools = _pools.get(registry)
        if pools is None:
            pools = _Pools(import_driver("prometheus_client.core", extra="prometheus"))
            registry.register(pools)
            _pools[registry] = pools
        pools.add(name or pool_name(db), db, asyncio.get_running_loop())


class _Pools:
    """All pools of one registry: a second collector with the same families would make a scrape invalid."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._looks: list[tuple[str, Look]] = []

    def add(self, name: str, db: AsyncDatabase, loop: asyncio.AbstractEventLoop) -> None:
        """Report one more; one that is there already takes the new name."""
        self._looks = [
            *((n, look) for n, look in self._looks if not look.over and not look.sees(db, loop)),
            (name, Look(db, loop)),
        ]

    def describe(self) -> list[Metric]:
        """Return the families, so that registering asks no pool."""
        return [self._family(figure) for figure in FIGURES]

    def collect(self) -> Iterator[Metric]:
        """Yield the families with the pools that answer; all that do not cost one wait together."""
        asked = [(name, look.asked()) for name, look in self._looks]
        concurrent.futures.wait([answer for _, answer in asked], PATIENCE)
        found = [
            (name, stats)
            for name, answer in asked
            if answer.done() and (stats := answer.result()) is not None
        ]
        for figure in FIGURES:
            sums: Counter[tuple[str, ...]] = Counter()
            for name, stats in found:
                for word, value in figure.values(stats).items():
                    sums[(name,) if figure.key is None else (name, word)] += value
            family = self._family(figure)
            for labels, value in sums.items():
                family.add_metric(labels, value)
            yield family

    def _family(self, figure: Figure) -> Any:
        kind = self._core.CounterMetricFamily if figure.grows else self._core.GaugeMetricFamily
        labels = (POOL,) if figure.key is None else (POOL, figure.key)
        return kind(_named(figure.name), figure.text, labels=[_named(label) for label in labels])


def _named(name: str) -> str:
    """Return a convention's name as Prometheus writes it."""
    return name.replace(".", "_")


__all__ = ["durations", "instrument", "observe_pool"]
