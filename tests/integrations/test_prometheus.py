"""Prometheus by its real client: an exposition that its parser takes, with names and without values."""

import asyncio
import gc
import math
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from isthmus import AsyncDatabase, BatchError, NotFoundError, Record, UnavailableError, field
from isthmus.integrations.prometheus import instrument, observe_changes, observe_pool
from isthmus.testing.chaos import Chaos

SECRET = "s3cr3t-canary"
DURATION = "db_client_operation_duration_seconds"
COUNT = "db_client_connection_count"
POOL = "db_client_connection_pool_name"

pytestmark = pytest.mark.asyncio

Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry of the test's own."""
    return CollectorRegistry()


@pytest.fixture
def address(registry: CollectorRegistry) -> Iterator[str]:
    """Serve the registry from a thread, as an application does; yield the address."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def parsed(text: str) -> Samples:
    """Return the samples by name, as a scraper reads them; each family and each series stands once."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    found: Samples = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    for samples in found.values():
        assert len({tuple(sorted(labels.items())) for labels, _ in samples}) == len(samples)
    return found


def read(address: str) -> str:
    """Scrape over HTTP."""
    with urllib.request.urlopen(address, timeout=10) as response:
        text: str = response.read().decode()
    return text


async def scraped(address: str) -> Samples:
    """Scrape while this loop runs."""
    return parsed(await asyncio.to_thread(read, address))


async def test_durations_are_one_series_for_each_operation_and_error(registry: CollectorRegistry) -> None:
    """A histogram in seconds with the advised buckets; sizes make no series."""
    db = await AsyncDatabase.create("memory", {"layers": instrument(registry)})
    for size in (1, 2, 3):
        await db.create_batch([{"n": n} for n in range(size)])
    with pytest.raises(NotFoundError):
        await db.replace("x", {})
    await db.close()

    samples = parsed(generate_latest(registry).decode())

    same = {"db_system_name": "memory", "db_collection_name": "records"}
    assert samples[f"{DURATION}_count"] == [
        ({**same, "db_operation_name": "create", "error_type": ""}, 3.0),
        ({**same, "db_operation_name": "replace", "error_type": "NotFoundError"}, 1.0),
    ]
    bounds = {labels["le"] for labels, _ in samples[f"{DURATION}_bucket"]}
    assert bounds == {"0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1.0", "5.0", "10.0", "+Inf"}
    assert all(0 < value < 10 for _, value in samples[f"{DURATION}_sum"])


async def test_two_handles_share_a_registry(registry: CollectorRegistry, tmp_path: object) -> None:
    """Both take their durations into one histogram."""
    one = await AsyncDatabase.create("memory", {"layers": instrument(registry)})
    two = await AsyncDatabase.create("sqlite", {"path": f"{tmp_path}/x.db", "layers": instrument(registry)})
    await one.count()
    await two.count()
    await one.close()
    await two.close()

    samples = parsed(generate_latest(registry).decode())[f"{DURATION}_count"]

    assert [(labels["db_system_name"], value) for labels, value in samples] == [
        ("memory", 1.0),
        ("sqlite", 1.0),
    ]


async def test_failures_are_told_by_class_and_nothing_by_value(
    registry: CollectorRegistry, address: str
) -> None:
    """No record, id, operand, setting or message is in a scrape, whatever fails."""
    layers = instrument(registry)
    db = await AsyncDatabase.create("memory", {"layers": layers})
    observe_pool(db, registry)
    await db.create(Record({"n": SECRET}, id=SECRET))
    with pytest.raises(NotFoundError):
        await db.update(f"{SECRET}-2", {"n": 1})
    with pytest.raises(BatchError):
        await db.create_batch([Record({}, id=SECRET), Record({"x": SECRET})])
    await db.search(field("n") == SECRET)
    down = await AsyncDatabase.create(
        "memory", {"layers": {**layers, "chaos": Chaos(seed=1, refused=1.0)}}, lazy=True
    )
    with pytest.raises(UnavailableError):
        await down.count(field("n") == SECRET)

    text = await asyncio.to_thread(read, address)
    await db.close()
    await down.close()

    errors = {
        (labels["db_operation_name"], labels["error_type"])
        for labels, _ in parsed(text)[f"{DURATION}_count"]
        if labels["error_type"]
    }
    assert ("update", "NotFoundError") in errors
    assert errors & {("create", "AlreadyExistsError"), ("create", "NotWrittenError")}
    assert ("open", "ConnectError") in errors  # a lazy handle connects within its first call
    assert SECRET not in text


@pytest.mark.backend("postgres")
async def test_a_secret_of_the_config_is_in_no_scrape(registry: CollectorRegistry) -> None:
    """Not even when the connection fails."""
    config = {
        "host": "localhost", "port": 1, "user": SECRET, "password": SECRET, "connect_timeout": 2,
        "layers": instrument(registry),
    }  # fmt: skip
    db = await AsyncDatabase.create("postgres", config, lazy=True)
    observe_pool(db, registry)
    with pytest.raises(UnavailableError):
        await db.get("x")

    text = generate_latest(registry).decode()
    await db.close()

    ((labels, _),) = parsed(text)[f"{DURATION}_count"]
    assert (labels["db_system_name"], labels["error_type"]) == ("postgresql", "ConnectError")
    assert parsed(text)[COUNT]
    assert SECRET not in text


async def test_a_pool_is_observed_from_the_loop_and_from_a_scrapers_thread(
    registry: CollectorRegistry, address: str, tmp_path: object
) -> None:
    """The figures are those of `db.stats()`; a closed handle reports nothing, one opened again does."""
    db = await AsyncDatabase.create("sqlite", {"path": f"{tmp_path}/x.db", "pool": {"readers": 2}})
    await db.create({"n": 1})
    observe_pool(db, registry)

    here = parsed(generate_latest(registry).decode())
    there = await scraped(address)

    stats, pool = db.stats().pool, {POOL: "sqlite/records"}
    assert stats.size > 0
    assert here == there
    assert here[COUNT] == [
        ({**pool, "db_client_connection_state": "idle"}, stats.idle),
        ({**pool, "db_client_connection_state": "used"}, stats.in_use),
    ]
    assert here["db_client_connection_max"] == [(pool, stats.max_size)]
    assert here["db_client_connection_idle_min"] == [(pool, stats.min_size)]
    assert here["db_client_connection_pending_requests"] == [(pool, 0.0)]
    assert here["db_client_connection_timeouts_total"] == [(pool, 0.0)]
    await db.close()
    assert await scraped(address) == {}
    await db.connect()
    assert COUNT in await scraped(address)
    await db.close()


async def test_pools_of_a_registry_share_its_families(registry: CollectorRegistry, tmp_path: object) -> None:
    """Each has series of its own; those of one name are added up, and one observed twice counts once."""
    limits = {"a": 1, "b": 2, "c": 4}
    handles = {
        name: await AsyncDatabase.create(
            "sqlite", {"path": f"{tmp_path}/{name}.db", "pool": {"readers": readers}}
        )
        for name, readers in limits.items()
    }
    for handle, name in (("a", None), ("a", "one"), ("b", "more"), ("c", "more")):
        observe_pool(handles[handle], registry, name)

    samples = parsed(generate_latest(registry).decode())["db_client_connection_max"]

    sizes = {name: handle.stats().pool.max_size for name, handle in handles.items()}
    assert [(labels[POOL], value) for labels, value in samples] == [
        ("one", sizes["a"]),
        ("more", sizes["b"] + sizes["c"]),
    ]
    for handle in handles.values():
        await handle.close()


async def test_a_handle_that_is_gone_reports_nothing(registry: CollectorRegistry) -> None:
    """Observing keeps no handle alive."""
    db = await AsyncDatabase.create("memory", {})
    observe_pool(db, registry)
    assert parsed(generate_latest(registry).decode())

    await db.close()
    await db.connect()
    del db
    gc.collect()

    assert parsed(generate_latest(registry).decode()) == {}


async def test_a_scrape_does_not_wait_for_a_busy_loop(registry: CollectorRegistry, address: str) -> None:
    """Its pools are left out after a second in all, and the rest is told."""
    layers = instrument(registry)
    handles = [await AsyncDatabase.create("memory", {"layers": layers}) for _ in range(8)]
    for number, db in enumerate(handles):
        await db.count()
        observe_pool(db, registry, f"pool {number}")
    texts: list[str] = []
    begun = time.monotonic()
    scraper = threading.Thread(target=lambda: texts.append(read(address)))
    scraper.start()

    scraper.join(20)  # blocks the loop until the scrape is done
    took = time.monotonic() - begun

    assert not scraper.is_alive()
    assert took < 6  # eight waits of a second would be longer
    (text,) = texts
    samples = parsed(text)
    assert COUNT not in samples
    assert [value for _, value in samples[f"{DURATION}_count"]] == [8.0]
    assert len((await scraped(address))["db_client_connection_max"]) == 8
    for db in handles:
        await db.close()


async def test_the_lag_of_a_follower_is_reported_while_it_exists(registry: CollectorRegistry) -> None:
    """By its name, which a later stream takes over; a stream that is gone has no number."""
    async with AsyncDatabase("memory", {"changes": True}) as db:
        first, second = db.changes(), db.changes(since="start")
        for stream, name in ((first, "index"), (second, "cache"), (second, "index")):
            observe_changes(stream, name, registry)
        await second.read(wait=False)

        for name in ("index", "cache"):
            lag = registry.get_sample_value("isthmus_changes_lag_seconds", {"isthmus_follower": name})
            assert lag is not None
            assert 0 <= lag <= second.lag
            held = {"isthmus_follower": name}
            assert registry.get_sample_value("isthmus_changes_held", held) == 0
        del stream, second
        gone = registry.get_sample_value("isthmus_changes_lag_seconds", {"isthmus_follower": "cache"})
        assert gone is not None
        assert math.isnan(gone)
