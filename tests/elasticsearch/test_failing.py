"""Failures are typed, say whether a write was done, and never look like an empty answer."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import threading
import time
import warnings
from typing import Any

import elastic_transport
import elasticsearch.exceptions
import pytest

import elasticsearch
from isthmus import field
from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._core.loop_pools import open_pools
from isthmus._core.op import Count
from isthmus._core.stack import Stack
from isthmus._path import parse_path
from isthmus._query.ast import TRUE, And, Contains, Equal, In, Like, Or, Regex
from isthmus.backends.elasticsearch import plugin
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.errors import translate_exception, translate_response
from isthmus.errors import (
    AccessError,
    Applied,
    ClosedError,
    ConnectError,
    DeadlineError,
    InvalidRecordError,
    IsthmusError,
    PoolTimeoutError,
    QueryError,
    RateLimitedError,
    StoreError,
    UnavailableError,
    UnexpectedError,
)
from isthmus.layers.plan import Plan
from tests.elasticsearch.conftest import Build
from tests.servers import ElasticsearchServer

pytestmark = pytest.mark.backend("elasticsearch")


def driver_exceptions() -> list[type[Exception]]:
    """Return every exception class that the client and its transport define."""
    found: set[type[Exception]] = set()
    for module in (elasticsearch, elasticsearch.exceptions, elastic_transport):
        for _, thing in inspect.getmembers(module, inspect.isclass):
            if issubclass(thing, Exception) and not issubclass(thing, Warning):
                found.add(thing)
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def meta(status: int) -> elastic_transport.ApiResponseMeta:
    """Return what the transport says of an answer."""
    node = elastic_transport.NodeConfig("http", "localhost", 9200)
    return elastic_transport.ApiResponseMeta(status, "1.1", elastic_transport.HttpHeaders(), 0.1, node)


# What each of the driver's exceptions becomes; an exception that is not in here fails the walk.
EXPECTED: dict[str, type[IsthmusError]] = {
    "TransportError": UnexpectedError,
    "SniffingError": UnavailableError,
    "SerializationError": UnexpectedError,
    "ConnectionError": UnavailableError,
    "TlsError": ConnectError,
    "ConnectionTimeout": DeadlineError,
    "ApiError": UnexpectedError,
    "NotFoundError": UnexpectedError,
    "ConflictError": UnexpectedError,
    "BadRequestError": UnexpectedError,
    "AuthenticationException": AccessError,
    "AuthorizationException": AccessError,
    "UnsupportedProductError": UnexpectedError,
}
STATUS = {
    "NotFoundError": 404,
    "ConflictError": 409,
    "AuthenticationException": 401,
    "AuthorizationException": 403,
}


@pytest.mark.parametrize("driver", driver_exceptions(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_exception_of_the_driver_has_a_name_of_ours(driver: type[Exception]) -> None:
    """A new exception in a later client fails here until somebody decides what it means."""
    if issubclass(driver, elastic_transport.ApiError):
        error: Exception = driver("m", meta(STATUS.get(driver.__name__, 400)), {"error": "x"})  # type: ignore[call-arg]
    else:
        error = driver("m")

    mapped = translate_exception(error, "doing", writes=True)

    assert type(mapped) is EXPECTED[driver.__name__]
    if isinstance(error, elastic_transport.TransportError) and not isinstance(
        error, elastic_transport.TlsError | elastic_transport.SniffingError
    ):
        assert mapped.applied is Applied.MAYBE
        assert translate_exception(error, "doing", writes=False).applied is Applied.NO


@pytest.mark.parametrize(
    ("status", "kind", "expected", "transient"),
    [
        (400, "too_many_clauses", QueryError, False),
        (400, "index_closed_exception", UnavailableError, False),
        (400, "media_type_header_exception", IsthmusError, False),
        (401, "security_exception", AccessError, False),
        (403, "cluster_block_exception", AccessError, False),
        (404, "search_context_missing_exception", UnavailableError, False),
        (408, "timeout", DeadlineError, True),
        (429, "cluster_block_exception", UnavailableError, True),
        (429, "circuit_breaking_exception", RateLimitedError, True),
        (500, "null_pointer_exception", UnexpectedError, False),
        (502, "", UnavailableError, True),
        (503, "unavailable_shards_exception", UnavailableError, True),
        (504, "", DeadlineError, True),
    ],
)
def test_each_status_has_its_class(
    status: int, kind: str, expected: type[Exception], transient: bool
) -> None:
    """The class says what happened, `transient` whether trying again may help."""
    error = translate_response(
        status, {"error": {"type": kind, "reason": "r"}}, {"retry-after": "3"}, "x", writes=True
    )

    assert isinstance(error, expected)
    assert error.transient is transient
    if expected is RateLimitedError:
        assert error.retry_after == 3


@pytest.mark.asyncio
async def test_a_node_that_is_down_fails_at_once_and_nothing_was_applied() -> None:
    """Refused connections are tried on every node; the error says that no node has seen the write."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ElasticsearchConfig.load({"hosts": [f"http://127.0.0.1:{port}"], "index": "x"}, environ={})
    backend = plugin.build(config)

    with pytest.raises(ConnectError) as caught:
        await backend.open("x")

    assert caught.value.transient
    assert caught.value.applied is Applied.NO
    await backend.close()
    assert open_pools() == 0


@pytest.mark.asyncio
async def test_one_node_that_is_down_is_passed_over(build: Build, url: str) -> None:
    """Writes too: a request that no node has seen is sent to the next."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    backend = build(hosts=[f"http://127.0.0.1:{port}", url])
    await backend.open(backend.default_collection)

    for at in range(6):
        written = await backend.write(
            backend.default_collection, WriteKind.CREATE, [Mutation(f"r{at}", {"n": at})], atomic=False
        )
        assert written == [f"r{at}"]

    assert (await backend.count(backend.default_collection, TRUE)).count == 6


@pytest.mark.asyncio
async def test_a_read_only_index_refuses_writes_by_name(backend: ElasticsearchBackend) -> None:
    """`index.blocks.read_only` by hand is a lack of rights; reads go on."""
    index = backend.default_collection
    native = await backend.native()
    await native.indices.put_settings(index=index, settings={"index.blocks.read_only": True})
    try:
        with pytest.raises(AccessError, match="read-only"):
            await backend.write(index, WriteKind.CREATE, [Mutation("a", {"n": 1})], atomic=False)
        assert (await backend.count(index, TRUE)).count == 0
    finally:
        await native.indices.put_settings(index=index, settings={"index.blocks.read_only": None})


@pytest.mark.asyncio
async def test_a_node_out_of_disk_space_refuses_writes_for_now(backend: ElasticsearchBackend) -> None:
    """The flood stage sets `read_only_allow_delete`; it passes, so the error is transient."""
    index = backend.default_collection
    await backend.write(index, WriteKind.CREATE, [Mutation("a", {"n": 1})], atomic=False)
    native = await backend.native()
    await native.indices.put_settings(index=index, settings={"index.blocks.read_only_allow_delete": True})
    try:
        (result,) = await backend.write(index, WriteKind.UPSERT, [Mutation("a", {"n": 2})], atomic=False)
        assert isinstance(result, UnavailableError)
        assert result.transient
    finally:
        await native.indices.put_settings(index=index, settings={"index.blocks.read_only_allow_delete": None})


@pytest.mark.asyncio
async def test_a_closed_index_is_unavailable(backend: ElasticsearchBackend) -> None:
    """Neither an empty answer nor "not found"."""
    index = backend.default_collection
    native = await backend.native()
    await native.indices.close(index=index)
    try:
        with pytest.raises(StoreError):
            await backend.count(index, TRUE)
        with pytest.raises(StoreError):
            await backend.read(index, ["a"])
    finally:
        await native.indices.open(index=index)


@pytest.mark.asyncio
async def test_limits_of_queries_are_met_or_told(backend: ElasticsearchBackend) -> None:
    """100,000 values in one `in`, long patterns and deep trees: an exact answer or a QueryError."""
    index = backend.default_collection
    records = [Mutation(f"r{at}", {"n": at, "t": f"text {at}" + "x" * 700}) for at in range(50)]
    await backend.write(index, WriteKind.CREATE, records, atomic=False)
    stack = Stack([Plan(backend)], backend)
    number, text = parse_path("n"), parse_path("t")

    async def count(where: Any) -> int:
        return (await stack.run(Count(index, where))).count

    assert await count(In(number, tuple(range(10, 100_010)))) == 40
    assert await count(In(text, tuple(f"{at}" for at in range(100_000)))) == 0
    assert await count(Contains(text, "x" * 650)) == 50
    assert await count(Like(text, "%x" * 30 + "%")) == 50
    assert await count(Like(text, "%x" + "_" * 200)) == 50
    assert await count(Regex(text, "x.{150}x")) == 50
    assert await count(Regex(text, "(x|y){200}")) == 50
    assert await count(Regex(text, r"\b\w+ \d+x")) == 50
    assert await count(Or(tuple(Equal(number, at) for at in range(3_000)))) == 50
    deep: Any = Equal(number, 1)
    for at in range(60):
        deep = Or((And((deep, Equal(number, 1))), Equal(number, -at)))
    assert await count(deep) == 1


@pytest.mark.asyncio
async def test_a_stream_that_stood_still_for_too_long_says_so(build: Build) -> None:
    """The snapshot is gone; the error names keep_alive."""
    backend = build()
    index = backend.default_collection
    await backend.write(
        index, WriteKind.CREATE, [Mutation(f"r{at}", {"n": at}) for at in range(20)], atomic=False
    )
    page = await backend.fetch(index, PageRequest(TRUE, None, 5))
    assert page.after is not None
    await backend.release(index, page.after)

    with pytest.raises(UnavailableError, match="keep_alive"):
        await backend.fetch(index, PageRequest(TRUE, None, 5, page.after))

    await backend.release(index, page.after)


@pytest.mark.asyncio
async def test_a_full_pool_fails_within_its_timeout_and_names_the_holders(build: Build) -> None:
    """One connection, twenty requests: those that got none within 10 ms fail; the pool serves on."""
    backend = build(pool={"maxsize": 1, "timeout": 0.01})
    index = backend.default_collection
    batch = [Mutation(f"r{at}", {"n": at, "t": "x" * 1_000}) for at in range(1_000)]
    await backend.write(index, WriteKind.CREATE, batch, atomic=False)

    requests = (backend.fetch(index, PageRequest(TRUE, (), 1_000)) for _ in range(20))
    results = await asyncio.gather(*requests, return_exceptions=True)

    failed = [result for result in results if isinstance(result, PoolTimeoutError)]
    assert failed
    assert all(isinstance(r, PoolTimeoutError) for r in results if isinstance(r, BaseException))
    assert "1 of 1 are in use by Task-" in str(failed[0])
    assert backend.stats().in_use == 0
    assert (await backend.count(index, TRUE)).count == 1_000


@pytest.mark.asyncio
async def test_calls_that_wait_for_the_loop_are_not_refused_by_the_pool(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once take longer than the pool's timeout, in a loop that works all the time."""
    monkeypatch.setattr(time, "thread_time", time.monotonic)
    backend = build(pool={"maxsize": 1, "timeout": 0.02})
    index = backend.default_collection
    await backend.open(index)
    start = time.monotonic()

    results = await asyncio.gather(*(backend.read(index, ["a"]) for _ in range(100)))

    assert results == [[None]] * 100
    assert time.monotonic() - start > 0.04
    assert backend.stats().timeouts == 0


@pytest.mark.asyncio
async def test_a_closed_database_says_so(build: Build) -> None:
    """Also a second close is fine."""
    backend = build()
    await backend.open(backend.default_collection)
    await backend.close()
    await backend.close()

    with pytest.raises(ClosedError):
        await backend.count(backend.default_collection, TRUE)

    await backend.open(backend.default_collection)


def test_loops_come_and_go_without_a_warning(url: str) -> None:
    """Ten loops one after another, two threads, and a loop that was closed under an open handle."""
    config = ElasticsearchConfig.load({"hosts": [url], "index": "test-loops", "replicas": 0}, environ={})
    backend = plugin.build(config)

    async def use() -> int:
        await backend.write("test-loops", WriteKind.UPSERT, [Mutation("a", {"n": 1})], atomic=False)
        return (await backend.count("test-loops", TRUE)).count

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            assert asyncio.run(use()) == 1
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(asyncio.run(use()))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [1, 1]

        async def finish() -> None:
            await backend.remove("test-loops", TRUE)
            await backend.close()

        asyncio.run(finish())
        gc.collect()
    assert open_pools() == 0


@pytest.mark.asyncio
async def test_a_cancelled_search_gives_its_connection_back(build: Build) -> None:
    """However early it is cancelled."""
    backend = build(pool={"maxsize": 2, "timeout": 5})
    index = backend.default_collection
    await backend.write(
        index, WriteKind.CREATE, [Mutation(f"r{at}", {"n": at}) for at in range(500)], atomic=False
    )

    for turns in range(60):
        task = asyncio.create_task(_stream(backend, index))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(10):
        while backend.stats().in_use:  # a snapshot is given back after the cancellation has been told
            await asyncio.sleep(0)
    assert (await backend.count(index, field("n") >= 0)).count == 500


async def _stream(backend: ElasticsearchBackend, index: str) -> None:
    after = None
    while True:
        page = await backend.fetch(index, PageRequest(TRUE, None, 100, after))
        after = page.after
        if after is None:
            return


@pytest.mark.asyncio
async def test_passwords_certificates_and_small_limits_on_a_node_of_its_own() -> None:
    """TLS is verified, a wrong password is an AccessError, and 413 cuts a batch instead of failing it."""
    secret = "canary-9f3b"
    limits = {"http.max_content_length": "1mb"}
    with ElasticsearchServer(password=secret, tls=True, config=limits) as node:
        assert node.certificate is not None
        settings: dict[str, Any] = {"hosts": [node.url], "index": "secure", "user": "elastic", "replicas": 0}

        def build(**more: Any) -> ElasticsearchBackend:
            made = plugin.build(ElasticsearchConfig.load({**settings, **more}, environ={}))
            assert isinstance(made, ElasticsearchBackend)
            return made

        unknown = build(password=secret)
        with pytest.raises(ConnectError) as caught:
            await unknown.open("secure")
        assert not caught.value.transient
        await unknown.close()

        wrong = build(password="not it", ca=node.certificate.authority)
        with pytest.raises(AccessError) as denied:
            await wrong.open("secure")
        assert "not it" not in str(denied.value)
        await wrong.close()

        backend = build(password=secret, ca=node.certificate.authority)
        assert secret not in repr(backend._config)
        texts = [Mutation(f"r{at}", {"t": f"{at}" + "x" * 100_000}) for at in range(40)]
        results = await backend.write(
            "secure", WriteKind.CREATE, [*texts, Mutation("big", {"t": "y" * 2_000_000})], atomic=False
        )
        assert results[:-1] == [change.id for change in texts]
        assert isinstance(results[-1], InvalidRecordError)
        assert (await backend.count("secure", TRUE)).count == 40
        await backend.close()


@pytest.mark.asyncio
async def test_the_native_client_speaks_to_this_server_whatever_its_major(
    backend: ElasticsearchBackend,
) -> None:
    """The header transport asks for plain JSON; the client's own would be refused by another major."""
    native = await backend.native()

    health = await native.cluster.health()
    answer = await native.search(index=backend.default_collection, query={"match_all": {}})

    assert health["status"] in ("green", "yellow")
    assert answer["hits"]["total"]["value"] == 0
