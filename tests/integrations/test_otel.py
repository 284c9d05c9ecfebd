"""OpenTelemetry by its real SDK: spans and metrics follow the conventions and hold no values."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from isthmus import AsyncDatabase, BatchError, NotFoundError, Record, UnavailableError, field
from isthmus.integrations.otel import instrument, observe_changes, observe_pool
from isthmus.testing.chaos import Chaos

SECRET = "s3cr3t-canary"


@dataclass
class Telemetry:
    """What the SDK collected."""

    spans: InMemorySpanExporter
    tracing: TracerProvider
    reader: InMemoryMetricReader
    metering: MeterProvider

    @property
    def layers(self) -> dict[str, Any]:
        """The layers for a config."""
        return instrument(tracer_provider=self.tracing, meter_provider=self.metering)

    def finished(self) -> list[ReadableSpan]:
        """Return the finished spans."""
        return list(self.spans.get_finished_spans())

    def points(self) -> dict[str, list[Any]]:
        """Return the data points by metric."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Collect in memory, with providers of the test's own."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    metering = MeterProvider([reader])
    yield Telemetry(spans, tracing, reader, metering)
    tracing.shutdown()
    metering.shutdown()


@pytest.mark.asyncio
async def test_a_span_names_the_call_and_is_a_child_of_the_callers(telemetry: Telemetry) -> None:
    """System, operation, collection, batch size; a client span under the current one."""
    db = await AsyncDatabase.create("memory", {"layers": telemetry.layers})
    with telemetry.tracing.get_tracer("app").start_as_current_span("request"):
        await db.create_batch([{"n": 1}, {"n": 2}])
        await db.count(field("n") == 1)
    await db.close()

    create, count, request = telemetry.finished()
    assert [create.name, count.name, request.name] == ["create records", "count records", "request"]
    assert create.kind is SpanKind.CLIENT
    assert dict(create.attributes or {}) == {
        "db.system.name": "memory",
        "db.operation.name": "create",
        "db.collection.name": "records",
        "db.operation.batch.size": 2,
    }
    assert count.parent is not None
    assert count.parent.span_id == request.context.span_id


@pytest.mark.asyncio
async def test_failures_are_marked_without_their_messages(telemetry: Telemetry) -> None:
    """`error.type` is the class, for a failed call and for a failed item of a batch."""
    db = await AsyncDatabase.create("memory", {"layers": telemetry.layers})
    await db.create(Record({"n": SECRET}, id=SECRET))
    with pytest.raises(NotFoundError):
        await db.update(f"{SECRET}-2", {"n": 1})
    with pytest.raises(BatchError):
        await db.create_batch([Record({}, id=SECRET), Record({"x": SECRET})])
    await db.search(field("n") == SECRET)
    await db.close()
    down = await AsyncDatabase.create(
        "memory", {"layers": {**telemetry.layers, "chaos": Chaos(seed=1, refused=1.0)}}, lazy=True
    )
    with pytest.raises(UnavailableError):
        await down.count()
    await down.close()

    failed = [span for span in telemetry.finished() if span.status.status_code is StatusCode.ERROR]
    kinds = [(span.attributes or {})["error.type"] for span in failed]
    assert kinds[0] == "NotFoundError"
    assert kinds[1] in ("AlreadyExistsError", "NotWrittenError")
    assert len(kinds) == 3
    assert not any(span.events or span.status.description for span in failed)
    told = "".join(span.to_json() for span in telemetry.finished())
    assert SECRET not in told + repr(telemetry.reader.get_metrics_data())


@pytest.mark.asyncio
async def test_durations_are_one_series_for_each_operation_and_error(telemetry: Telemetry) -> None:
    """A histogram in seconds with the advised buckets; sizes make no series."""
    db = await AsyncDatabase.create("memory", {"layers": telemetry.layers})
    for size in (1, 2, 3):
        await db.create_batch([{"n": n} for n in range(size)])
    with pytest.raises(NotFoundError):
        await db.replace("x", {})
    await db.close()

    points = {
        tuple(sorted(p.attributes.items())): p for p in telemetry.points()["db.client.operation.duration"]
    }
    counts = {
        (p.attributes["db.operation.name"], p.attributes.get("error.type")): p.count for p in points.values()
    }
    assert counts == {("create", None): 3, ("replace", "NotFoundError"): 1}
    assert all(p.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10) for p in points.values())


@pytest.mark.asyncio
async def test_a_pool_is_observed_from_the_loop_and_from_an_exporters_thread(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    """The figures are those of `db.stats()`; a closed handle reports nothing."""
    db = await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "x.db"), "pool": {"readers": 2}})
    await db.create({"n": 1})
    observe_pool(db, meter_provider=telemetry.metering)

    here = telemetry.points()
    there = await asyncio.to_thread(telemetry.points)

    stats = db.stats().pool
    for points in (here, there):
        states = {
            p.attributes["db.client.connection.state"]: p.value for p in points["db.client.connection.count"]
        }
        assert states == {"idle": stats.idle, "used": stats.in_use}
        assert [p.value for p in points["db.client.connection.max"]] == [stats.max_size]
        assert [p.value for p in points["db.client.connection.timeouts"]] == [0]
    await db.close()
    assert "db.client.connection.count" not in telemetry.points()


@pytest.mark.backend("postgres")
@pytest.mark.asyncio
async def test_a_secret_of_the_config_is_in_no_span(telemetry: Telemetry) -> None:
    """Not even when the connection fails."""
    config = {
        "host": "localhost", "port": 1, "user": "u", "password": SECRET, "connect_timeout": 2,
        "layers": telemetry.layers,
    }  # fmt: skip
    db = await AsyncDatabase.create("postgres", config, lazy=True)
    with pytest.raises(UnavailableError):
        await db.get("x")
    await db.close()

    (span,) = telemetry.finished()
    assert dict(span.attributes or {})["db.system.name"] == "postgresql"
    assert dict(span.attributes or {})["error.type"] == "ConnectError"
    assert SECRET not in span.to_json()


@pytest.mark.asyncio
async def test_the_lag_of_a_follower_is_reported_while_it_exists(telemetry: Telemetry) -> None:
    """In seconds, by its name."""
    async with AsyncDatabase("memory", {"changes": True}) as db:
        stream = db.changes()
        observe_changes(stream, "index", meter_provider=telemetry.metering)

        [point] = telemetry.points()["isthmus.changes.lag"]
        assert point.attributes == {"isthmus.follower": "index"}
        assert 0 <= point.value <= stream.lag
        [point] = telemetry.points()["isthmus.changes.held"]
        assert (point.attributes, point.value) == ({"isthmus.follower": "index"}, 0)
        del stream
        assert "isthmus.changes.lag" not in telemetry.points()
