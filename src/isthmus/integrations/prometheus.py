"""Prometheus: metrics of calls and pools, under the names of OpenTelemetry's Prometheus exporter.

    db = await AsyncDatabase.create("postgres", {..., "layers": instrument()})
    observe_pool(db)

Names are exported, never values: no record, id, operand, statement or URL, and no error message,
since a store may quote values in it. The application serves `/metrics` with prometheus-client.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._change_stream import ChangeStream
from isthmus._core.registry import import_driver
from isthmus._database import AsyncDatabase
from isthmus.integrations._telemetry import (
    DURATION,
    DURATION_BUCKETS,
    DURATION_DESCRIPTION,
    ERROR,
    FOLLOWER,
    HELD,
    HELD_DESCRIPTION,
    LAG,
    LAG_DESCRIPTION,
    LOOP_TIMEOUT,
    POOL,
    POOL_METRICS,
    PoolMetric,
    PoolProbe,
    call_attributes,
    most_frequent_error,
    pool_name,
)
from isthmus.layers.trace import Call, Spans

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge, Histogram
    from prometheus_client.metrics_core import Metric

LABELS = ("db.system.name", "db.operation.name", "db.collection.name", ERROR)

# A registry accepts each name only once, so existing collectors are reused.
_lock = threading.Lock()
_durations: weakref.WeakKeyDictionary[CollectorRegistry, Histogram] = weakref.WeakKeyDictionary()
_follower_gauges: weakref.WeakKeyDictionary[CollectorRegistry, tuple[Gauge, Gauge]] = (
    weakref.WeakKeyDictionary()
)
_pools: weakref.WeakKeyDictionary[CollectorRegistry, _PoolCollector] = weakref.WeakKeyDictionary()


def instrument(registry: CollectorRegistry | None = None) -> dict[str, Any]:
    """Return the setting `layers` that records durations; add other layers to it.

    The global registry is used by default. Handles may share a registry.
    """
    return {"trace": durations(registry)}


def durations(registry: CollectorRegistry | None = None) -> Spans:
    """Return the layer `trace` that records the histogram `db_client_operation_duration_seconds`.

    The duration is the time the caller waited, including queueing and retries. The label
    `error_type` is empty for a call without an error; a batch with failed items has the most
    frequent class among them.
    """
    prometheus = import_driver("prometheus_client", extra="prometheus")
    registry = prometheus.REGISTRY if registry is None else registry
    with _lock:
        histogram = _durations.get(registry)
        if histogram is None:
            histogram = prometheus.Histogram(
                f"{_prometheus_name(DURATION)}_seconds",
                DURATION_DESCRIPTION,
                [_prometheus_name(label) for label in LABELS],
                registry=registry,
                buckets=DURATION_BUCKETS,
            )
            _durations[registry] = histogram

    @contextlib.contextmanager
    def measure(call: Call) -> Iterator[Callable[[Mapping[str, int]], None]]:
        labels = {**call_attributes(call), ERROR: ""}

        def set_error(counts: Mapping[str, int]) -> None:
            labels[ERROR] = most_frequent_error(counts)

        start = time.perf_counter()
        try:
            yield set_error
        except BaseException as error:  # including cancellation
            labels[ERROR] = type(error).__name__
            raise
        finally:
            histogram.labels(*(labels[label] for label in LABELS)).observe(time.perf_counter() - start)

    return measure


def observe_pool(
    db: AsyncDatabase, registry: CollectorRegistry | None = None, name: str | None = None
) -> None:
    """Report the pool of the running loop at each scrape, while the handle is open.

    Call it on the loop that uses the handle. `name` is the label `db_client_connection_pool_name`, by
    default the backend and the default collection; pools of the same name are added up.
    """
    prometheus = import_driver("prometheus_client", extra="prometheus")
    registry = prometheus.REGISTRY if registry is None else registry
    with _lock:
        pools = _pools.get(registry)
        if pools is None:
            pools = _PoolCollector(import_driver("prometheus_client.core", extra="prometheus"))
            registry.register(pools)
            _pools[registry] = pools
        pools.add(name or pool_name(db), db, asyncio.get_running_loop())


def observe_changes(stream: ChangeStream[Any], name: str, registry: CollectorRegistry | None = None) -> None:
    """Report how far a follower lags behind at each scrape, as long as it exists.

    That is `ChangeStream.lag`, and whether a transaction holds it back (`held_by`). `name` is the label
    `isthmus_follower`; a later stream of the same name takes its place.
    """
    prometheus = import_driver("prometheus_client", extra="prometheus")
    registry = prometheus.REGISTRY if registry is None else registry
    with _lock:
        gauges = _follower_gauges.get(registry)
        if gauges is None:
            labels = [_prometheus_name(FOLLOWER)]
            gauges = (
                prometheus.Gauge(
                    f"{_prometheus_name(LAG)}_seconds", LAG_DESCRIPTION, labels, registry=registry
                ),
                prometheus.Gauge(_prometheus_name(HELD), HELD_DESCRIPTION, labels, registry=registry),
            )
            _follower_gauges[registry] = gauges
    followed = weakref.ref(stream)

    def read_lag() -> float:
        current = followed()
        return math.nan if current is None else current.lag

    def read_held() -> float:
        current = followed()
        return math.nan if current is None else current.held_by is not None

    for gauge, read in zip(gauges, (read_lag, read_held), strict=True):
        gauge.labels(name).set_function(read)


class _PoolCollector:
    """Collects all pools of a registry, since two collectors of the same metric make a scrape invalid."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._probes: list[tuple[str, PoolProbe]] = []

    def add(self, name: str, db: AsyncDatabase, loop: asyncio.AbstractEventLoop) -> None:
        """Report a pool; one that is reported already gets the new name."""
        self._probes = [
            *((n, probe) for n, probe in self._probes if not probe.finished and not probe.observes(db, loop)),
            (name, PoolProbe(db, loop)),
        ]

    def describe(self) -> list[Metric]:
        """Return the metrics without values, so that registration reads no pool."""
        return [self._family(metric) for metric in POOL_METRICS]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the pools that respond; waits at most one second for all others together."""
        requests = [(name, probe.request()) for name, probe in self._probes]
        concurrent.futures.wait([future for _, future in requests], LOOP_TIMEOUT)
        pools = [
            (name, stats)
            for name, future in requests
            if future.done() and (stats := future.result()) is not None
        ]
        for metric in POOL_METRICS:
            sums: Counter[tuple[str, ...]] = Counter()
            for name, stats in pools:
                for label, value in metric.values(stats).items():
                    sums[(name,) if metric.key is None else (name, label)] += value
            family = self._family(metric)
            for labels, value in sums.items():
                family.add_metric(labels, value)
            yield family

    def _family(self, metric: PoolMetric) -> Any:
        kind = self._core.CounterMetricFamily if metric.monotonic else self._core.GaugeMetricFamily
        labels = (POOL,) if metric.key is None else (POOL, metric.key)
        return kind(
            _prometheus_name(metric.name),
            metric.description,
            labels=[_prometheus_name(label) for label in labels],
        )


def _prometheus_name(name: str) -> str:
    """Return a name of the conventions in the form that Prometheus allows."""
    return name.replace(".", "_")


__all__ = ["durations", "instrument", "observe_changes", "observe_pool"]
