"""What goes wrong on the way: typed errors, nothing lost or done twice, no outage read as `not found`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.transport import conditional_put_probe
from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    ConnectError,
    IsthmusError,
    PoolTimeoutError,
    RateLimitedError,
    StoreError,
    UnavailableError,
    UnsupportedError,
)
from tests.s3.proxy import CUT_AFTER, CUT_BEFORE, CUT_BODY, PASS, Proxy, Rule, Seen, answer, proxied
from tests.s3.stores import config_for, create, endpoint_of, every, ids_of, kinds, opened, write

pytestmark = pytest.mark.backend("s3")


@dataclass
class Through:
    """A backend that reaches the server through a proxy."""

    backend: S3Backend
    proxy: Proxy


@pytest_asyncio.fixture
async def through(url: str, layout: str, transport: str) -> AsyncIterator[Through]:
    """Open a backend behind a proxy, its conditions probed already."""
    async with proxied(endpoint_of(url)) as proxy:
        settings = {"layout": layout, "transport": transport, "timeout": 5}
        async with opened(url, endpoint_url=proxy.endpoint, **settings) as backend:
            await create(backend, "first", n=0)
            proxy.seen.clear()
            yield Through(backend, proxy)


def record_put(seen: Seen) -> bool:
    """Return whether a request writes a record or an entry."""
    return seen.method == "PUT"


def once(wanted: str) -> Rule:
    """Return a rule that breaks the first write."""
    left = [wanted]

    def rule(seen: Seen) -> str:
        return left.pop() if left and record_put(seen) else PASS

    return rule


@pytest.mark.asyncio
async def test_a_lost_answer_is_not_taken_for_somebody_elses_write(through: Through) -> None:
    """The write was done, its answer lost, our repeat refused: that is success, told once."""
    backend, proxy = through.backend, through.proxy
    for kind, change in (
        (WriteKind.CREATE, Mutation("new", {"n": 1})),
        (WriteKind.UPDATE, Mutation("first", {"n": 2})),
        (WriteKind.REPLACE, Mutation("first", {"n": 3})),
        (WriteKind.UPSERT, Mutation("other", {"n": 4})),
    ):
        proxy.rule = once(CUT_AFTER)

        [result] = await write(backend, kind, change)

        assert isinstance(result, str), result
    [record] = await backend.read(DEFAULT, ["first"])
    assert record is not None
    proxy.rule = once(CUT_AFTER)
    [version] = await write(
        backend, WriteKind.REPLACE, Mutation("first", {"n": 5}, if_version=record.version)
    )
    [record] = await backend.read(DEFAULT, ["first"])
    assert record is not None
    assert (record.version, record.data) == (version, {"n": 5})
    assert await ids_of(backend) == ["first", "new", "other"]


@pytest.mark.asyncio
async def test_a_refused_create_stays_refused_when_answers_are_lost(through: Through) -> None:
    """A lost answer of a create that met a record is no success."""
    backend, proxy = through.backend, through.proxy
    proxy.rule = once(CUT_AFTER)

    [result] = await create(backend, "first", n=9)

    assert not isinstance(result, str)
    [record] = await backend.read(DEFAULT, ["first"])
    assert record is not None
    assert record.data == {"n": 0}


@pytest.mark.asyncio
async def test_an_unsent_write_is_sent_again(through: Through) -> None:
    """A connection that breaks before the server has the request costs a repeat, nothing else."""
    backend, proxy = through.backend, through.proxy
    proxy.rule = once(CUT_BEFORE)

    assert await create(backend, "new") == ["new"]
    assert await ids_of(backend) == ["first", "new"]


@pytest.mark.asyncio
async def test_a_write_whose_every_answer_is_lost_says_maybe(through: Through) -> None:
    """When nobody can tell, the error does: applied MAYBE; a later read shows what is there."""
    backend, proxy = through.backend, through.proxy
    proxy.rule = lambda seen: CUT_AFTER

    with pytest.raises(UnavailableError) as caught:
        results = await create(backend, "new")
        raise results[0] if isinstance(results[0], IsthmusError) else AssertionError(results)

    assert caught.value.applied is Applied.MAYBE
    proxy.rule = lambda seen: PASS
    assert await ids_of(backend) == ["first", "new"]
    assert kinds(await create(backend, "after")) == ["after"]


@pytest.mark.asyncio
async def test_an_outage_is_never_read_as_not_found(url: str, layout: str, transport: str) -> None:
    """A server that goes away: ConnectError at once from each verb, and from opening."""
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxied(endpoint_of(url)))
        endpoint = proxy.endpoint
        backend = await stack.enter_async_context(
            opened(url, endpoint_url=endpoint, layout=layout, transport=transport)
        )
        await create(backend, "a")
    # The proxy has gone, the handle has not: pools open again.
    loop = asyncio.get_running_loop()
    begun = loop.time()
    verbs: list[Callable[[], Awaitable[Any]]] = [
        lambda: backend.read(DEFAULT, ["a"]),
        lambda: backend.fetch(DEFAULT, PageRequest(TRUE, (), 10)),
        lambda: backend.count(DEFAULT, TRUE),
        lambda: backend.remove(DEFAULT, TRUE),
        backend.ping,
        lambda: write(backend, WriteKind.DELETE, Mutation("a")),
        lambda: write(backend, WriteKind.CREATE, Mutation("b", {}), Mutation("c", {})),
    ]
    for verb in verbs:
        with pytest.raises(ConnectError) as caught:
            await verb()
        assert caught.value.applied is Applied.NO
    with pytest.raises(ConnectError):
        async with opened(url, endpoint_url=endpoint, layout=layout, transport=transport):
            pass
    assert loop.time() - begun < 5
    await backend.close()


@pytest.mark.asyncio
async def test_wrong_keys_and_missing_buckets_are_named(url: str, layout: str, transport: str) -> None:
    """AccessError for keys, ConfigError for a bucket; a good handle beside them is not disturbed."""
    settings = {"layout": layout, "transport": transport}
    async with opened(url, **settings) as good:
        for keys in (("isthmus-test", "canary-secret"), ("nobody", "canary-secret")):
            wrong = {"aws_access_key_id": keys[0], "aws_secret_access_key": keys[1]}
            with pytest.raises(AccessError) as caught:
                async with opened(url, prefix=good.config.prefix, **settings, **wrong):
                    pass
            cause = caught.value.__cause__
            assert cause is not None
            assert "canary" not in f"{caught.value} {cause} {cause!r} {vars(cause)}"
        with pytest.raises(ConfigError, match="does not exist"):
            async with opened(url, bucket="isthmus-none", **settings):
                pass
        assert await create(good, "a") == ["a"]
        async with opened(url, bucket=f"isthmus-made-{transport}", create_bucket=True, **settings) as made:
            assert await create(made, "a") == ["a"]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (503, "SlowDown", RateLimitedError),
        (503, "ServiceUnavailable", UnavailableError),
        (500, "InternalError", UnavailableError),
        (403, "RequestTimeTooSkewed", AccessError),
        (403, "AccessDenied", AccessError),
        (400, "ExpiredToken", AccessError),
        (404, "NoSuchBucket", ConfigError),
        (404, "XAdminUserNotFound", AccessError),
        (301, "PermanentRedirect", ConfigError),
        (418, "Teapot", StoreError),
    ],
)
@pytest.mark.breadth(2)
@pytest.mark.asyncio
async def test_what_the_server_says_has_a_name(
    through: Through, status: int, code: str, expected: type[IsthmusError]
) -> None:
    """Each refusal becomes one class on every verb, whatever the transport."""
    backend, proxy = through.backend, through.proxy
    # botocore asks HEAD bucket for the right region; AWS answers that from any region.
    proxy.rule = lambda seen: PASS if seen.method == "HEAD" else answer(status, code)

    with pytest.raises(expected):
        await backend.read(DEFAULT, ["first"])
    with pytest.raises(expected):
        await backend.fetch(DEFAULT, PageRequest(TRUE, (), 10))
    proxy.rule = lambda seen: answer(status, code) if seen.method in ("PUT", "POST") else PASS
    with pytest.raises(expected):
        results = await create(backend, "new")
        raise results[0] if isinstance(results[0], IsthmusError) else AssertionError(results)
    proxy.rule = lambda seen: PASS
    assert await ids_of(backend) == ["first"]


@pytest.mark.asyncio
async def test_a_busy_server_is_asked_again(through: Through) -> None:
    """Two SlowDowns are waited out, in reads and in conditional writes."""
    backend, proxy = through.backend, through.proxy

    def twice() -> Rule:
        left = [1, 2]
        return lambda seen: answer(503, "SlowDown") if left and left.pop() else PASS

    proxy.rule = twice()
    assert await ids_of(backend) == ["first"]
    proxy.rule = twice()
    assert await create(backend, "new") == ["new"]
    proxy.rule = twice()
    assert await write(backend, WriteKind.DELETE, Mutation("new")) == [True]


@pytest.mark.asyncio
async def test_a_conditional_conflict_is_tried_again(through: Through) -> None:
    """409 ConditionalRequestConflict says `try again`, never `exists`."""
    backend, proxy = through.backend, through.proxy
    left = [1, 2]
    proxy.rule = lambda seen: (
        answer(409, "ConditionalRequestConflict") if record_put(seen) and left and left.pop() else PASS
    )

    assert await create(backend, "new") == ["new"]
    assert left == []


@pytest.mark.asyncio
async def test_a_body_that_ends_early_is_not_a_record(through: Through) -> None:
    """A truncated answer is repeated, and an error if it stays so."""
    backend, proxy = through.backend, through.proxy
    await write(backend, WriteKind.UPDATE, Mutation("first", {"text": "x" * 5000}))
    left = [1]
    proxy.rule = lambda seen: CUT_BODY if seen.method == "GET" and left and left.pop() else PASS
    [record] = await backend.read(DEFAULT, ["first"])
    assert record is not None
    assert len(record.data["text"]) == 5000

    proxy.rule = lambda seen: CUT_BODY if seen.method == "GET" else PASS
    if backend.config.layout == "object":  # a log's answer to a get is `no further entry`
        with pytest.raises(UnavailableError):
            await backend.read(DEFAULT, ["first"])
    with pytest.raises(StoreError):
        async with opened_again(backend) as again:
            await every(again)


@contextlib.asynccontextmanager
async def opened_again(backend: S3Backend) -> AsyncIterator[S3Backend]:
    """Open the same prefix with a pool of its own."""
    settings = {**backend.config.model_dump(exclude={"log", "pool", "cache"}), "timeout": 4}
    again = S3Backend(type(backend.config).load(settings))
    try:
        await again.open(DEFAULT)
        yield again
    finally:
        await again.close()


@pytest.mark.asyncio
async def test_each_failed_delete_of_a_batch_is_reported(url: str, transport: str) -> None:
    """A bulk delete answers 200 with errors inside: the items that failed say so, the others are gone."""
    from isthmus.backends.s3.keys import record_name

    async with (
        proxied(endpoint_of(url)) as proxy,
        opened(url, endpoint_url=proxy.endpoint, transport=transport) as backend,
    ):
        await create(backend, "a", "b", "c")
        key = backend.config.key_prefix + record_name("b")
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><DeleteResult>'
            f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
        ).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        proxy.rule = lambda seen: head.encode() + body if seen.method == "POST" else PASS

        results = await write(backend, WriteKind.DELETE, Mutation("a"), Mutation("b"), Mutation("none"))

        assert kinds(results) == [True, AccessError, False]


def deaf(head: bytes) -> bytes:
    """Return a request's head without its conditions."""
    conditions = (b"if-none-match:", b"if-match:")
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(conditions))


@pytest.mark.asyncio
async def test_a_server_that_ignores_conditions_is_found_out(
    running_server: Callable[[str], Any], layout: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race has many winners: create and compare-and-set refuse, upsert and delete go on.

    moto does not check signatures, so conditions can be dropped on the way to it.
    """
    # Another test's proxy may have had the same port, in front of an honest server.
    monkeypatch.setattr(conditional_put_probe, "_puts", {})
    url = str(running_server("moto").url)
    async with (
        proxied(endpoint_of(url), deaf) as proxy,
        opened(url, endpoint_url=proxy.endpoint, layout=layout, transport=transport) as backend,
    ):
        for kind in (WriteKind.CREATE, WriteKind.REPLACE, WriteKind.UPDATE):
            with pytest.raises(UnsupportedError):
                await write(backend, kind, Mutation("a", {}))
        with pytest.raises(UnsupportedError):
            await write(backend, WriteKind.UPSERT, Mutation("a", {}, if_version="1"))
        assert not backend.capabilities.conditional_create
        assert not backend.capabilities.compare_and_set
        if layout == "object":
            [version] = await write(backend, WriteKind.UPSERT, Mutation("a", {"n": 1}))
            assert isinstance(version, str)
            assert await write(backend, WriteKind.DELETE, Mutation("a")) == [True]


@pytest.mark.asyncio
async def test_requests_in_flight_never_exceed_the_pool(url: str, layout: str, transport: str) -> None:
    """max_connections bounds requests; a full pool fails within its timeout and says so."""
    async with (
        proxied(endpoint_of(url)) as proxy,
        opened(
            url,
            endpoint_url=proxy.endpoint,
            layout=layout,
            transport=transport,
            pool={"max_connections": 3, "timeout": 3},
            timeout=10,
        ) as backend,
    ):
        await create(backend, *(f"r{n:02}" for n in range(30)))
        assert len(await every(backend)) == 30
        assert proxy.open_connections <= 4  # the rare-verb client may hold one more
        requests = await backend._requests()
        release = asyncio.Event()

        async def held(_: object) -> None:
            await release.wait()

        holding = [asyncio.ensure_future(requests.send(held)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(PoolTimeoutError):
            await backend.ping()
        assert backend.stats().in_use == 3
        release.set()
        await asyncio.gather(*holding)


@pytest.mark.asyncio
async def test_a_cancelled_batch_leaves_no_task_and_no_slot(through: Through) -> None:
    """Cancelling in the middle gives back every slot; what was written is whole."""
    backend, proxy = through.backend, through.proxy
    task = asyncio.ensure_future(create(backend, *(f"r{n:03}" for n in range(200))))
    while len(proxy.seen) < 1:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    def ours() -> list[asyncio.Task[Any]]:
        return [t for t in asyncio.all_tasks() if "/isthmus/" in t.get_coro().cr_code.co_filename]  # type: ignore[union-attr]

    records = await every(backend)
    async with asyncio.timeout(5):  # the entry of a log was shared, and goes on
        while backend.stats().in_use or ours():
            await asyncio.sleep(0.01)
    assert backend.config.layout == "object" or len(records) in (1, 201)
    assert all(record.id == "first" or record.data == {} for record in records)


def test_credentials_are_not_mixed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Keys from the config never take a token from the environment; half a pair is refused."""
    from isthmus.backends.s3.transport.session import find_keys, pool_key

    monkeypatch.setenv("AWS_SESSION_TOKEN", "canary-token")
    given = config_for(url, aws_access_key_id="k", aws_secret_access_key="canary-one", prefix="p")
    other = config_for(url, aws_access_key_id="k", aws_secret_access_key="canary-two", prefix="p")
    keys, others = find_keys(given), find_keys(other)

    assert keys is not None
    assert keys.token is None
    assert pool_key(given, keys) != pool_key(other, others)
    assert "canary" not in repr(pool_key(given, keys)) + repr(given) + repr(given.explain())
    with pytest.raises(ConfigError):
        config_for(url, aws_access_key_id="k")


def refuse_conditions(seen: Seen) -> str | bytes:
    """Answer 501 to a conditional header, as servers do that do not know it."""
    head = seen.head.lower()
    return answer(501, "NotImplemented") if b"\r\nif-" in head and seen.method == "PUT" else PASS


@pytest.mark.parametrize("fresh", [True, False], ids=["new", "with a marker"])
@pytest.mark.asyncio
async def test_a_server_without_conditional_headers_takes_upsert_and_delete(
    url: str, layout: str, transport: str, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 501: create and compare-and-set are refused, whichever write comes first."""
    async with proxied(endpoint_of(url)) as proxy:
        config = config_for(url, endpoint_url=proxy.endpoint, layout=layout, transport=transport)
        if not fresh:
            async with opened(url, prefix=config.prefix, layout=layout) as other:
                await create(other, "other")
        monkeypatch.setattr(conditional_put_probe, "_puts", {})
        proxy.rule = refuse_conditions
        backend = S3Backend(config)
        try:
            upsert = write(backend, WriteKind.UPSERT, Mutation("a", {"n": 1}))
            if layout == "log":
                with pytest.raises(UnsupportedError, match="layout 'log' cannot be written"):
                    await upsert
                return
            assert kinds(await upsert) == [(await every(backend))[0].version]
            assert await write(backend, WriteKind.DELETE, Mutation("a")) == [True]
            for kind in (WriteKind.CREATE, WriteKind.REPLACE, WriteKind.UPDATE):
                with pytest.raises(UnsupportedError, match="upsert and delete work"):
                    await write(backend, kind, Mutation("b", {}))
            with pytest.raises(UnsupportedError):
                await write(backend, WriteKind.UPSERT, Mutation("b", {}, if_version="1"))
            with pytest.raises(UnsupportedError):
                await write(backend, WriteKind.DELETE, Mutation("other", if_version="1"))
            assert await ids_of(backend) == ([] if fresh else ["other"])
        finally:
            await backend.close()


@pytest.mark.asyncio
async def test_calls_that_wait_for_the_loop_are_not_refused_by_the_pool(
    url: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once take longer than the pool's timeout, in a loop that works all the time."""
    monkeypatch.setattr(time, "thread_time", time.monotonic)
    pool = {"max_connections": 1, "timeout": 0.02}
    async with opened(url, transport=transport, pool=pool) as backend:
        start = time.monotonic()

        results = await asyncio.gather(*(backend.read(DEFAULT, ["a"]) for _ in range(100)))

        assert results == [[None]] * 100
        assert time.monotonic() - start > 0.04
        assert backend.stats().timeouts == 0
