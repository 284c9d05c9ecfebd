"""OpenTelemetry: spans and metrics by the semantic conventions for database clients.

    db = await AsyncDatabase.create("postgres", {..., "layers": instrument()})
    observe_pool(db)

Names and sizes are exported, never values: no record, id, operand, statement or URL, and no error
message, since a store may quote values in it. The application conmetrics the SDK and its exporters.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

NAME = "isthmus"


def instrument(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> dict[str, Any]:
    """Return the setting `layers` that records spans and durations; add other layers to it.

    The global providers are used by default.
    """
    return {"trace": spans(tracer_provider=tracer_provider, meter_provider=meter_provider)}


def spans(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Spans:
    """Return the layer `trace` that records a client span and `db.client.operation.duration`.

    The duration in seconds is the time the caller waited, including queueing and retries. A batch
    with failed items has the `error.type` of the most frequent class among them.
    """
    trace = import_driver("opentelemetry.trace", extra="otel")
    metrics = import_driver("opentelemetry.metrics", extra="otel")
    tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
    duration = metrics.get_meter(NAME, meter_provider=meter_provider).create_histogram(
        DURATION,
        unit="s",
        description=DURATION_DESCRIPTION,
        explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
    )

    @contextlib.contextmanager
    def span(call: Call) -> Iterator[Callable[[Mapping[str, int]], None]]:
        attributes: dict[str, Any] = {**call_attributes(call)}
        # Only spans have the size: as an attribute of the metric, each size would be a time series.
        size = {} if call.size is None or call.size < 2 else {"db.operation.batch.size": call.size}
        start = time.perf_counter()
        with tracer.start_as_current_span(
            f"{call.operation} {call.collection}",
            kind=trace.SpanKind.CLIENT,
            attributes={**attributes, **size},
            record_exception=False,  # its message may contain values
            set_status_on_exception=False,
        ) as current:

            def set_error(error: str) -> None:
                attributes[ERROR] = error
                current.set_attribute(ERROR, error)
                current.set_status(trace.StatusCode.ERROR)

            try:
                yield lambda counts: set_error(most_frequent_error(counts))
            except BaseException as error:  # including cancellation
                set_error(type(error).__name__)
                raise
            finally:
                duration.record(time.perf_counter() - start, attributes)

    return span


def observe_pool(
    db: AsyncDatabase, *, meter_provider: MeterProvider | None = None, name: str | None = None
) -> None:
    """Report the pool of the running loop whenever metrics are collected, while the handle exists.

    Call it on the loop that uses the handle. `name` is the attribute `db.client.connection.pool.name`,
    by default the backend and the default collection.
    """
    metrics = import_driver("opentelemetry.metrics", extra="otel")
    meter = metrics.get_meter(NAME, meter_provider=meter_provider)
    pool = {POOL: name or pool_name(db)}
    probe = PoolProbe(db, asyncio.get_running_loop())

    def make_callbacks(metric: PoolMetric) -> Any:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            stats = probe()
            if stats is None:
                return []
            return [
                metrics.Observation(value, pool if metric.key is None else {**pool, metric.key: label})
                for label, value in metric.values(stats).items()
            ]

        return [callback]

    for metric in POOL_METRICS:
        create = (
            meter.create_observable_counter if metric.monotonic else meter.create_observable_up_down_counter
        )
        create(metric.name, make_callbacks(metric), unit=metric.unit, description=metric.description)


def observe_changes(
    stream: ChangeStream[Any], name: str, *, meter_provider: MeterProvider | None = None
) -> None:
    """Report how far a follower lags behind at each collection of metrics, as long as it exists.

    That is `ChangeStream.lag`, and whether a transaction holds it back (`held_by`). `name` is the
    attribute `isthmus.follower`.
    """
    metrics = import_driver("opentelemetry.metrics", extra="otel")
    followed = weakref.ref(stream)

    def observe(read: Callable[[ChangeStream[Any]], float]) -> Any:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            current = followed()
            return [] if current is None else [metrics.Observation(read(current), {FOLLOWER: name})]

        return [callback]

    meter = metrics.get_meter(NAME, meter_provider=meter_provider)
    lag, held = observe(lambda stream: stream.lag), observe(lambda stream: stream.held_by is not None)
    meter.create_observable_gauge(LAG, lag, unit="s", description=LAG_DESCRIPTION)
    meter.create_observable_gauge(HELD, held, description=HELD_DESCRIPTION)


__all__ = ["instrument", "observe_changes", "observe_pool", "spans"]
