"""Whether a server keeps the conditions of conditional writes: tried by a race before it is relied on.

Some servers accept the headers and ignore them, others judge and write in two steps; both lose
writes silently. Sixteen writers race for one new object, then for one entity tag: on an honest
server one of them wins each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from isthmus._ids import new_id
from isthmus.backends.s3.boto_transport import BotoTransport
from isthmus.backends.s3.errors import ContendedError, NoSuchKeyError, PreconditionError
from isthmus.backends.s3.keys import MARKER
from isthmus.backends.s3.requests import Requests
from isthmus.errors import ConnectError, UnavailableError, UnexpectedError, UnsupportedError

_WRITERS = 16
# Servers that judge and write in two steps lose a race now and then only: in 82 of 200 rounds, one
# that was tried. AWS says in its manual that it keeps conditions, so one round has to do there.
_ROUNDS = 6
_ROUNDS_AT_AWS = 1
_TRIES = 4

# By endpoint and bucket: what a race found, for the life of the process.
_puts: dict[tuple[str | None, str], bool] = {}
_deletes: dict[tuple[str | None, str], bool] = {}


class Conditions:
    """What conditional requests do at one bucket."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._where = (requests.config.endpoint_url, requests.config.bucket)
        self._turn = asyncio.Lock()

    @property
    def conditional_put(self) -> bool:
        """Whether conditional puts may be relied on; True until a race says otherwise."""
        return _puts.get(self._where, True)

    async def require_conditional_put(self) -> None:
        """Raise `UnsupportedError` where the server ignores conditions; the first call is the race."""
        if self._where not in _puts:
            await self.probe()
        if not _puts[self._where]:
            raise UnsupportedError(
                f"{self._requests.place}: this server ignores the conditions of conditional writes,"
                " so create, replace, update and if_version= cannot be exact; upsert and delete work",
                capability="conditional_create",
            )

    async def probe(self) -> bool:
        """Return whether conditional puts hold, by a race unless one was run."""
        async with self._turn:
            if self._where not in _puts:
                _puts[self._where] = await self._clear_race()
        return _puts[self._where]

    async def _clear_race(self) -> bool:
        """Return what a race shows; one in which the server failed shows nothing, and is run again."""
        for attempt in range(_TRIES - 1):
            try:
                return await self._race()
            except ConnectError:
                raise
            except UnavailableError:
                await self._requests.pause(attempt)
        return await self._race()

    async def require_conditional_delete(self) -> BotoTransport:
        """Return the transport that has it; raise `UnsupportedError` where the server ignores it."""
        await self.require_conditional_put()
        rare = await self._requests.rare()
        async with self._turn:
            if self._where not in _deletes:
                _deletes[self._where] = await self._delete_held(rare)
        if not _deletes[self._where]:
            raise UnsupportedError(
                f"{self._requests.place}: this server ignores the condition of a conditional delete",
                capability="compare_and_set",
            )
        return rare

    async def require_bucket(self) -> None:
        """Raise if the bucket is not there or the keys are unknown, which a HEAD cannot tell."""
        await self._requests.get(self._requests.config.place + MARKER)

    def _key(self) -> str:
        # Not a record's name: no reader takes it for one, should it be left behind.
        return f"{self._requests.config.place}_probe-{new_id()}"

    async def _race(self) -> bool:
        key = self._key()
        try:
            for _ in range(_ROUNDS_AT_AWS if self._where[0] is None else _ROUNDS):
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
        """Return the entity tags of those writers whose condition held; waits for all of them."""

        async def write(number: int) -> str | None:
            body = b'{"probe":%d,"after":"%s"}' % (number, (etag or "").encode())
            try:
                return await self._requests.send(
                    lambda t: t.put(key, body, if_absent=etag is None, if_match=etag)
                )
            except (PreconditionError, ContendedError):
                return None
            except UnexpectedError:  # the server does not know the header (501)
                return ""

        racing: list[Awaitable[str | None]] = [write(number) for number in range(_WRITERS)]
        ended = await asyncio.gather(*racing, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
        tags = [tag for tag in ended if isinstance(tag, str)]
        return [] if "" in tags else tags

    async def _delete_held(self, rare: BotoTransport) -> bool:
        key = self._key()
        try:
            await self._requests.put(key, b"{}")
            try:
                await self._requests.send(lambda _: rare.delete_if(key, '"0123456789abcdef0123456789abcdef"'))
            except PreconditionError:
                return True
            except (UnexpectedError, NoSuchKeyError):
                return False
            return False
        finally:
            await self._requests.delete_many([key])
