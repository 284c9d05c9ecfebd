"""Tests by a race whether a server honours the conditions of conditional writes.

Some servers accept the headers and ignore them, others check and write in two steps; both lose
writes silently. Sixteen writers race for one new object, then for one entity tag: on a correct
server exactly one of them wins each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from isthmus._ids import new_id
from isthmus.backends.s3.errors import ContendedError, NoSuchKeyError, PreconditionError
from isthmus.backends.s3.keys import MARKER, PROBE
from isthmus.backends.s3.transport.aioboto3 import BotoTransport
from isthmus.backends.s3.transport.requests import Requests
from isthmus.errors import ConnectError, UnavailableError, UnexpectedError, UnsupportedError

_WRITERS = 16
# Servers that check and write in two steps fail a round only sometimes: one that was measured failed
# 82 of 200. AWS documents that it honours conditions, so one round is enough there.
_ROUNDS = 6
_ROUNDS_AT_AWS = 1
_TRIES = 4

# The results by endpoint and bucket, for the life of the process.
_puts: dict[tuple[str | None, str], bool] = {}
_deletes: dict[tuple[str | None, str], bool] = {}


class ConditionalPutProbe:
    """Tests conditional requests on one bucket, once in a process."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._bucket = (requests.config.endpoint_url, requests.config.bucket)
        self._lock = asyncio.Lock()

    @property
    def conditional_put(self) -> bool:
        """Whether conditional puts are reliable; True until a race shows otherwise."""
        return _puts.get(self._bucket, True)

    async def require_conditional_put(self) -> None:
        """Raise `UnsupportedError` if the server ignores conditions; the first call runs the race."""
        if self._bucket not in _puts:
            await self.probe()
        if not _puts[self._bucket]:
            consequence = (
                " so layout 'log' cannot be written"
                if self._requests.config.layout == "log"
                else " so create, replace, update and if_version= cannot be exact; upsert and delete work"
            )
            raise UnsupportedError(
                f"{self._requests.location}: this server ignores or refuses the conditions of conditional"
                f" writes,{consequence}",
                capability="conditional_create",
            )

    async def put(
        self, key: str, body: bytes, is_ours: Callable[[bytes], bool], *, if_match: str | None = None
    ) -> str:
        """Write an object as `Requests.put_if` does; unconditionally where the server has no conditions.

        For writes of which the last one may win.
        """
        if self.conditional_put:
            try:
                return await self._requests.put_if(key, body, is_ours, if_match=if_match)
            except UnexpectedError:
                # A server without conditions may refuse their headers (501).
                if await self.probe():
                    raise
        return await self._requests.put(key, body)

    async def probe(self) -> bool:
        """Return whether conditional puts are reliable; runs the race unless its result is known."""
        async with self._lock:
            if self._bucket not in _puts:
                _puts[self._bucket] = await self._run_race()
        return _puts[self._bucket]

    async def _run_race(self) -> bool:
        """Return the result of a race; one in which the server failed has none and is repeated."""
        for attempt in range(_TRIES - 1):
            try:
                return await self._race()
            except ConnectError:
                raise
            except UnavailableError:
                await self._requests.pause(attempt)
        return await self._race()

    async def require_conditional_delete(self) -> BotoTransport:
        """Return the transport that has conditional deletes.

        Raises `UnsupportedError` if the server ignores the condition.
        """
        await self.require_conditional_put()
        boto = await self._requests.boto()
        async with self._lock:
            if self._bucket not in _deletes:
                _deletes[self._bucket] = await self._test_delete(boto)
        if not _deletes[self._bucket]:
            raise UnsupportedError(
                f"{self._requests.location}: this server ignores the condition of a conditional delete",
                capability="compare_and_set",
            )
        return boto

    async def require_bucket(self) -> None:
        """Raise if the bucket does not exist or access is denied, which a HEAD does not tell."""
        await self._requests.get(self._requests.config.key_prefix + MARKER)

    def _key(self) -> str:
        return f"{self._requests.config.key_prefix}{PROBE}{new_id()}"

    async def _race(self) -> bool:
        key = self._key()
        try:
            for _ in range(_ROUNDS_AT_AWS if self._bucket[0] is None else _ROUNDS):
                wins = await self._winners(key, None)
                if len(wins) != 1:
                    return False
                if len(await self._winners(key, wins[0])) != 1:
                    return False
                await self._requests.delete_many([key])
            return True
        finally:
            await self._requests.delete_many([key])

    async def _winners(self, key: str, etag: str | None) -> list[str]:
        """Return the entity tags of the writers that succeeded; waits for all of them."""

        async def write(number: int) -> str | None:
            body = b'{"probe":%d,"after":"%s"}' % (number, (etag or "").encode())
            try:
                return await self._requests.send(
                    lambda t: t.put(key, body, if_absent=etag is None, if_match=etag)
                )
            except (PreconditionError, ContendedError):
                return None
            except UnexpectedError:  # the server does not support the header (501)
                return ""

        racing: list[Awaitable[str | None]] = [write(number) for number in range(_WRITERS)]
        ended = await asyncio.gather(*racing, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
        tags = [tag for tag in ended if isinstance(tag, str)]
        return [] if "" in tags else tags

    async def _test_delete(self, boto: BotoTransport) -> bool:
        key = self._key()
        try:
            await self._requests.put(key, b"{}")
            try:
                await self._requests.send(lambda _: boto.delete_if(key, '"0123456789abcdef0123456789abcdef"'))
            except PreconditionError:
                return True
            except (UnexpectedError, NoSuchKeyError):
                return False
            return False
        finally:
            await self._requests.delete_many([key])
