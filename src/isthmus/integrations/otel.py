"""OpenTelemetry: spans and metrics by the semantic conventions for database clients.

db = await AsyncDatabase.create("postgres", {..., "layers": instrument()})
observe_pool(db)

Names and sizes are told, never values: no record, id, operand, statement or URL, and no error's
message, in which a store may quote them. The SDK and its exporters are the application's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._database import AsyncDatabase
from isthmus._executor import PoolStats
from isthmus._registry import driver
from isthmus.layers.trace import Call, Spans

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

NAME = "isthmus"
# The conventions' names where they have one.
SYSTEMS = {"postgres": "postgresql", "sqlalchemy": "other_sql"}
# What the conventions advise for db.client.operation.duration.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
# An exporter's thread waits this long for the loop to answer.
PATIENCE = 1.0


def instrument(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> dict[str, Any]:
    """Return the layer that makes spans and durations, for `layers` of a config; merge others in.

    Without arguments the global providers are used.
    """
    return {"trace": spans(tracer_provider=tracer_provider, meter_provider=meter_provider)}


def spans(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Spans:
    """Return what the layer `trace` calls: a client span, and `db.client.operation.duration`.

    The duration is what the caller waited, queueing and retries in it. A batch of which items
    failed has the `error.type` of the most frequent class among them.
    """
    trace = driver("opentelemetry.trace", extra="otel")
    metrics = driver("opentelemetry.metrics", extra="otel")
    tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
    duration = metrics.get_meter(NAME, meter_provider=meter_provider).create_histogram(
        "db.client.operation.duration",
        unit="s",
        description="Duration of database client operations.",
        explicit_bucket_boundaries_advisory=BOUNDS,
    )

    @contextlib.contextmanager
    def span(call: Call) -> Iterator[Callable[[Mapping[str, int]], None]]:
        attributes: dict[str, Any] = {
            "db.system.name": SYSTEMS.get(call.backend, call.backend),
            "db.operation.name": call.operation,
            "db.collection.name": call.collection,
        }
        # The size is told of a span only: as a metric's attribute it would make a series for each.
        size = {} if call.size is None or call.size < 2 else {"db.operation.batch.size": call.size}
        begun = time.perf_counter()
        with tracer.start_as_current_span(
            f"{call.operation} {call.collection}",
            kind=trace.SpanKind.CLIENT,
            attributes={**attributes, **size},
            record_exception=False,  # its message may hold values
            set_status_on_exception=False,
        ) as current:

            def failed(error: str) -> None:
                attributes["error.type"] = error
                current.set_attribute("error.type", error)
                current.set_status(trace.StatusCode.ERROR)

            try:
                yield lambda items: failed(max(items, key=lambda name: items[name]))
            except BaseException as error:  # a cancelled call took its time too
                failed(type(error).__name__)
                raise
            finally:
                duration.record(time.perf_counter() - begun, attributes)

    return span


def observe_pool(
    db: AsyncDatabase, *, meter_provider: MeterProvider | None = None, name: str | None = None
) -> None:
    """Report the pool of the running loop whenever metrics are collected, until the handle is gone.

    Call it on the loop that uses the handle. `name` is the attribute `db.client.connection.pool.name`,
    the backend and the default collection if not given.
    """
    metrics = driver("opentelemetry.metrics", extra="otel")
    meter = metrics.get_meter(NAME, meter_provider=meter_provider)
    pool = {"db.client.connection.pool.name": name or f"{db.backend}/{db.collection_name}"}
    look = _Look(db, asyncio.get_running_loop())

    def observed(figures: Callable[[PoolStats], Mapping[str, int]], key: str | None = None) -> Any:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            stats = look()
            if stats is None:
                return []
            return [
                metrics.Observation(value, pool if key is None else {**pool, key: word})
                for word, value in figures(stats).items()
            ]

        return [callback]

    connection = "{connection}"
    meter.create_observable_up_down_counter(
        "db.client.connection.count",
        observed(lambda s: {"idle": s.idle, "used": s.in_use}, "db.client.connection.state"),
        unit=connection,
        description="Connections by state.",
    )
    for what, unit, figure in (
        ("max", connection, lambda s: {"": s.max_size}),
        ("idle.min", connection, lambda s: {"": s.min_size}),
        ("pending_requests", "{request}", lambda s: {"": s.waiting}),
    ):
        meter.create_observable_up_down_counter(f"db.client.connection.{what}", observed(figure), unit=unit)
    meter.create_observable_counter(
        "db.client.connection.timeouts",
        observed(lambda s: {"": s.timeouts}),
        unit="{timeout}",
        description="Waits for a connection that ended by PoolTimeoutError.",
    )


class _Look:
    """Takes a snapshot of one loop's pool from whatever thread an exporter runs on."""

    def __init__(self, db: AsyncDatabase, loop: asyncio.AbstractEventLoop) -> None:
        self._db = weakref.ref(db)
        self._loop = loop

    def __call__(self) -> PoolStats | None:
        """Return the figures, or None if the handle is closed or its loop does not answer."""
        if asyncio._get_running_loop() is self._loop:
            return self._read()
        if not self._loop.is_running():
            return None
        answer: concurrent.futures.Future[PoolStats | None] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(lambda: answer.set_result(self._read()))
            return answer.result(PATIENCE)
        except (TimeoutError, RuntimeError):  # a loop that is busy, or was closed just now
            return None

    def _read(self) -> PoolStats | None:
        db = self._db()
        return None if db is None or db.closed else db.stats().pool


__all__ = ["instrument", "observe_pool", "spans"]
