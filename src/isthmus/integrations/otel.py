"""OpenTelemetry: spans and metrics by the semantic conventions for database clients.

db = await AsyncDatabase.create("postgres", {..., "layers": instrument()})
observe_pool(db)

Names and sizes are told, never values: no record, id, operand, statement or URL, and no error's
message, in which a store may quote them. The SDK and its exporters are the application's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._core.registry import import_driver
from isthmus._database import AsyncDatabase
from isthmus.integrations._telemetry import (
    BOUNDS,
    DURATION,
    DURATION_TEXT,
    ERROR,
    FIGURES,
    POOL,
    Figure,
    Look,
    most_frequent,
    names_of,
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
    trace = import_driver("opentelemetry.trace", extra="otel")
    metrics = import_driver("opentelemetry.metrics", extra="otel")
    tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
    duration = metrics.get_meter(NAME, meter_provider=meter_provider).create_histogram(
        DURATION,
        unit="s",
        description=DURATION_TEXT,
        explicit_bucket_boundaries_advisory=BOUNDS,
    )

    @contextlib.contextmanager
    def span(call: Call) -> Iterator[Callable[[Mapping[str, int]], None]]:
        attributes: dict[str, Any] = {**names_of(call)}
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
                attributes[ERROR] = error
                current.set_attribute(ERROR, error)
                current.set_status(trace.StatusCode.ERROR)

            try:
                yield lambda items: failed(most_frequent(items))
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
    metrics = import_driver("opentelemetry.metrics", extra="otel")
    meter = metrics.get_meter(NAME, meter_provider=meter_provider)
    pool = {POOL: name or pool_name(db)}
    look = Look(db, asyncio.get_running_loop())

    def observed(figure: Figure) -> Any:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            stats = look()
            if stats is None:
                return []
            return [
                metrics.Observation(value, pool if figure.key is None else {**pool, figure.key: word})
                for word, value in figure.values(stats).items()
            ]

        return [callback]

    for figure in FIGURES:
        make = meter.create_observable_counter if figure.grows else meter.create_observable_up_down_counter
        make(figure.name, observed(figure), unit=figure.unit, description=figure.text)


__all__ = ["instrument", "observe_pool", "spans"]
