"""The requests of one loop to one bucket: a bounded number at a time, retried where that is safe."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.closing import CLOSINGS
from isthmus._core.executor import PoolStats
from isthmus._core.wait_time import pool_timeout
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.errors import ContendedError, PreconditionError
from isthmus.backends.s3.transport.aioboto3 import BotoTransport
from isthmus.backends.s3.transport.obstore import ObstoreTransport
from isthmus.backends.s3.transport.protocol import Blob, Listing, Transport
from isthmus.backends.s3.transport.redirects import refuse_redirects
from isthmus.backends.s3.transport.session import (
    AccessKeys,
    Sessions,
    boto_client,
    obstore_hangs,
    obstore_store,
)
from isthmus.errors import (
    Applied,
    ClosedError,
    ConnectError,
    IsthmusError,
    PoolTimeoutError,
    UnavailableError,
    UnexpectedError,
)

T = TypeVar("T")
A = TypeVar("A")

ATTEMPTS = 4
_FIRST_PAUSE = 0.05


class Closable(Protocol):
    """An object with tasks of its own that a session closes before its connections, such as a log's."""

    async def close(self) -> None:
        """Finish or cancel the tasks."""
        ...

    def discard(self) -> None:
        """Drop the tasks without awaiting them: their loop may be dead."""
        ...


class Requests:
    """The pool of one loop: a transport, the limit of requests in flight, and the aioboto3 client."""

    def __init__(self, config: S3Config, keys: AccessKeys | None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.config = config
        self.location = f"s3 {config.endpoint_url or 'aws'}/{config.bucket}"
        self.sessions = Sessions(config, keys)
        self._clock = clock
        self._slots = asyncio.Semaphore(config.pool.max_connections)
        self._transport: Transport | None = None
        self._client: Any = None
        self._client_lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._in_use = self._waiting = self._acquired = self._timeouts = 0
        self._wait_seconds = self._use_seconds = 0.0
        self.shared: dict[Any, Any] = {}
        """Objects shared by all handles of this loop, keyed by configuration."""
        self.closing: list[Closable] = []
        """Those of them that have tasks."""

    @classmethod
    async def open(cls, config: S3Config, keys: AccessKeys | None) -> Requests:
        """Return a pool; raises `ConfigError` if there are no credentials, or if the server redirects.

        For obstore and an `endpoint_url` one request without credentials is sent.
        """
        pool = cls(config, keys)
        if keys is None and not config.anonymous:
            await pool.sessions.credentials()
        if config.transport == "obstore" and not obstore_hangs():
            await refuse_redirects(config, pool.location)
            store = await obstore_store(config, pool.sessions)
            pool._transport = ObstoreTransport(store, pool.location, config.storage_class)
        else:
            pool._transport = await pool.boto()
        return pool

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return self.config.pool.max_connections

    async def client(self) -> Any:
        """Return the aioboto3 client of this loop; raises `ClosedError` once the pool is closed."""
        async with self._client_lock:
            if self._client is None and not self._closed:
                self._client = await boto_client(self.config, self.sessions)
            if self._closed:
                await self._close_client()
                raise ClosedError("s3: the handle was closed")
            return self._client

    async def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def boto(self) -> BotoTransport:
        """Return the transport over aioboto3, which has the requests that obstore lacks."""
        return BotoTransport(await self.client(), self.config, self.location)

    async def close(self) -> None:
        """Close the client; obstore has nothing to close."""
        closing, self.closing = self.closing, []
        for shared in closing:
            await shared.close()
        self.shared.clear()
        self._closed = True
        await self._close_client()

    def discard(self) -> None:
        """Drop the client's sockets: its loop may be dead."""
        for shared in self.closing:
            shared.discard()
        self._closed = True
        if self._loop.is_running():
            CLOSINGS.finish(self._close_client(), "isthmus-pool-drop")
            return
        client, self._client = self._client, None
        if client is not None:
            _forget_sockets(client)

    def is_healthy(self) -> bool:
        """Return True: a request connects again by itself."""
        return True

    def stats(self) -> PoolStats:
        """Return a snapshot, in which a connection stands for a request in flight."""
        return PoolStats(
            size=self._in_use,
            in_use=self._in_use,
            waiting=self._waiting,
            max_size=self.limit,
            acquired=self._acquired,
            timeouts=self._timeouts,
            wait_seconds=self._wait_seconds,
            use_seconds=self._use_seconds,
        )

    # One request

    async def send(self, request: Callable[[Transport], Awaitable[T]]) -> T:
        """Send one request once fewer than `limit` are in flight.

        Raises `PoolTimeoutError` if that takes longer than `pool.timeout` seconds.
        """
        assert self._transport is not None
        if self._slots.locked():
            await self._wait_for_slot()
        else:
            await self._slots.acquire()  # does not wait
        self._acquired += 1
        self._in_use += 1
        start = self._clock.now()
        try:
            return await request(self._transport)
        finally:
            self._in_use -= 1
            self._use_seconds += self._clock.now() - start
            self._slots.release()

    async def _wait_for_slot(self) -> None:
        start = self._clock.now()
        self._waiting += 1
        try:
            async with pool_timeout(self.config.pool.timeout):
                await self._slots.acquire()
        except TimeoutError:
            self._timeouts += 1
            raise PoolTimeoutError(
                f"{self.location}: {self.limit} requests are in flight and none ended"
                f" within {self.config.pool.timeout:g} s ({self._waiting} wait)"
            ) from None
        finally:
            self._waiting -= 1
            self._wait_seconds += self._clock.now() - start

    async def retry(self, request: Callable[[Transport], Awaitable[T]]) -> T:
        """Send an idempotent request, up to four times while the server is busy or drops the connection.

        A refused connection is raised at once: the server is down, not busy.
        """
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self.send(request)
            except (ConnectError, PoolTimeoutError):
                raise
            except UnavailableError as error:
                wait = error.retry_after
            await self.pause(attempt, wait)
        return await self.send(request)

    async def pause(self, attempt: int, retry_after: float | None = None) -> None:
        """Wait before the next attempt, with jitter: `retry_after` seconds, or longer each time."""
        wait = retry_after if retry_after is not None else _FIRST_PAUSE * 2**attempt
        await self._clock.sleep(min(wait, 5.0) * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load

    # The requests

    async def get(self, key: str) -> Blob | None:
        """Return an object, None if there is none."""
        return await self.retry(lambda transport: transport.get(key))

    async def get_range(self, key: str, start: int, end: int, etag: str) -> bytes:
        """Return the bytes from `start` to before `end` of an object with this entity tag.

        Raises `PreconditionError` if it has another one, `NoSuchKeyError` if there is no object.
        """
        return await self.retry(lambda transport: transport.get_range(key, start, end, etag))

    async def head(self, key: str) -> str | None:
        """Return an entity tag, None if there is no such object."""
        return await self.retry(lambda transport: transport.head(key))

    async def listing(self, prefix: str, *, after: str = "", limit: int = 1000, rest: Any = None) -> Listing:
        """Return a page of a listing; `rest` is that of the page before."""
        once = [rest]

        async def request(transport: Transport) -> Listing:
            # It cannot be used again after an attempt that failed.
            continued = once.pop() if once else None
            return await transport.listing(prefix, after=after, limit=limit, rest=continued)

        try:
            return await self.retry(request)
        except UnexpectedError:
            # object_store cannot read some keys that others write, such as `a//b`.
            boto = await self.boto()
            return await self.retry(lambda _: boto.listing(prefix, after=after, limit=limit))

    async def put(self, key: str, body: bytes) -> str:
        """Write an object unconditionally and return its entity tag."""
        return await self.retry(lambda transport: transport.put(key, body))

    async def put_if(
        self, key: str, body: bytes, is_ours: Callable[[bytes], bool], *, if_match: str | None = None
    ) -> str:
        """Write an object that must not exist, or still have the tag `if_match`; return its new tag.

        The body has a token that no other write has, by which `is_ours` recognises it. If a
        condition fails after an attempt without a response (or one that may have been sent twice),
        the object is read: one of ours means that the write succeeded. Raises `PreconditionError`,
        or a `StoreError` whose `applied` tells whether the object may have been written.
        """
        assert self._transport is not None
        ambiguous = False
        for attempt in range(ATTEMPTS):
            try:
                return await self.send(
                    lambda t: t.put(key, body, if_absent=if_match is None, if_match=if_match)
                )
            except PreconditionError:
                if not ambiguous and not self._transport.repeats:
                    raise
                return await self._recover(key, is_ours, ambiguous=ambiguous)
            except ContendedError:
                if attempt == ATTEMPTS - 1:
                    raise PreconditionError(ambiguous=ambiguous) from None
                wait = None
            except UnavailableError as error:
                ambiguous = ambiguous or error.applied is Applied.MAYBE
                if attempt == ATTEMPTS - 1 or isinstance(error, ConnectError | PoolTimeoutError):
                    error.applied = Applied.MAYBE if ambiguous else Applied.NO
                    raise
                wait = error.retry_after
            await self.pause(attempt, wait)
        raise AssertionError("the last attempt raises or returns")

    async def _recover(self, key: str, is_ours: Callable[[bytes], bool], *, ambiguous: bool) -> str:
        try:
            found = await self.get(key)
        except IsthmusError as error:
            error.applied = Applied.MAYBE
            raise
        if found is not None and is_ours(found.body):
            return found.etag
        raise PreconditionError(ambiguous=ambiguous)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, IsthmusError]:
        """Delete objects, 1,000 in each request; return the errors of those that were not deleted."""
        failed: dict[str, IsthmusError] = {}
        batches = [keys[start : start + 1000] for start in range(0, len(keys), 1000)]

        async def delete(batch: Sequence[str]) -> None:
            try:
                failed.update(await self.retry(lambda transport: transport.delete_many(batch)))
            except UnexpectedError:
                # obstore reports one error without its key; deleting again reports each of them.
                boto = await self.boto()
                failed.update(await self.retry(lambda _: boto.delete_many(batch)))

        await for_each(delete, batches, 4)
        return failed


async def for_each(work: Callable[[A], Awaitable[None]], items: Collection[A], width: int) -> None:
    """Run work on items, at most `width` at a time; the first failure cancels the rest and is raised."""
    pending = iter(items)
    width = min(width, len(items))

    async def worker() -> None:
        for item in pending:
            await work(item)

    if width <= 1:
        return await worker()
    tasks = [asyncio.ensure_future(worker()) for _ in range(width)]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _forget_sockets(client: Any) -> None:
    """Close the sockets of an aiobotocore 2 client whose loop is dead, without a ResourceWarning.

    Its own `close` would await; aiohttp's and asyncio's finalizers would complain.
    """
    sessions = getattr(getattr(client._endpoint, "http_session", None), "_sessions", None) or {}
    for session in sessions.values():
        connector = getattr(session, "_connector", None)
        session._connector = None
        if connector is None:
            continue
        connector._closed = True
        for held in list(getattr(connector, "_conns", {}).values()):
            for protocol, *_ in held:
                transport: Any = getattr(protocol, "transport", None)
                sock = getattr(transport, "_sock", None)
                if sock is not None:
                    sock.close()
                    transport._sock = None
        connector._conns.clear()
