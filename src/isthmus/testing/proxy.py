"""A TCP proxy that breaks connections on purpose: in front of a real server, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

__all__ = ["Fault", "FaultProxy"]

T = TypeVar("T")
_CHUNK = 65_536


class Fault(enum.Enum):
    """What can be done to a connection; a reset is an RST, as a crashed peer's kernel sends it."""

    CUT = "cut"
    """Reset when the next request arrives, which is not passed on."""
    CUT_SENT = "cut after the request"
    """Pass the next request on and reset at once: the server may or may not do it."""
    LOSE_ANSWER = "lose the answer"
    """Pass the next request on, wait for the server's answer, and reset instead of giving it."""
    HALF_CLOSE = "half-close"
    """Pass the next request on and end the answering half only."""
    STALL = "stall"
    """Hold everything back until `heal()`; the connections stay open."""
    SLOW = "slow"
    """Delay each piece of an answer by `delay` seconds."""
    REFUSE = "refuse"
    """Reset new connections, and old ones when something is sent."""


class FaultProxy:
    """Passes bytes between clients and one server, and breaks as told.

    It runs on a thread and a loop of its own, so it works whatever the code under test does to its
    loop, and it may be used from anywhere:

        with FaultProxy("127.0.0.1", 5432) as proxy:
            url = proxy.through("postgres://postgres@127.0.0.1:5432/postgres")
            proxy.inject(Fault.LOSE_ANSWER, match=b"COMMIT")
            ...
            assert proxy.fired(Fault.LOSE_ANSWER) == 1
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="isthmus-fault-proxy", daemon=True)
        self._listening = threading.Event()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._open: asyncio.Event | None = None
        self._fault: Fault | None = None
        self._times: int | None = None
        self._match = b""
        self._delay = 0.0
        self._fired: Counter[Fault] = Counter()
        self.port = 0
        """The port on loopback that clients connect to."""

    # What a test calls

    def inject(
        self, fault: Fault, *, times: int | None = None, match: bytes = b"", delay: float = 0.05
    ) -> None:
        """Break from now on, for so many times or until `heal()`.

        `match` restricts it to requests that hold these bytes in one piece; `delay` is for SLOW.
        """
        self._call(self._arm, fault, times, match, delay)

    def heal(self) -> None:
        """Stop breaking; what a stall held back goes on its way."""
        self._call(self._arm, None, None, b"", 0.0)

    def cut(self) -> int:
        """Reset all connections now and return how many there were."""
        return self._call(self._cut_all)

    def fired(self, fault: Fault) -> int:
        """Return how many times a fault has struck since the start."""
        return self._fired[fault]

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def through(self, url: str) -> str:
        """Return a URL of the server with the proxy's address in it."""
        host, port = self._target
        changed = url.replace(f"{host}:{port}", f"127.0.0.1:{self.port}")
        if changed == url:
            raise ValueError(f"the URL does not name {host}:{port}")
        return changed

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # On the proxy's own thread

    def _call(self, function: Callable[..., T], *args: object) -> T:
        """Run a function on the proxy's loop and return its result."""
        done = threading.Event()
        result: list[T] = []

        def run() -> None:
            result.append(function(*args))
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()
        return result[0]

    def _serve(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        self._open = asyncio.Event()
        self._open.set()
        self._server = loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._listening.set()
        try:
            loop.run_forever()
        finally:
            self._server.close()
            self._cut_all()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.close()

    def _arm(self, fault: Fault | None, times: int | None, match: bytes, delay: float) -> None:
        self._fault, self._times, self._match, self._delay = fault, times, match, delay
        assert self._open is not None
        if fault is Fault.STALL:
            self._open.clear()
        else:
            self._open.set()

    def _cut_all(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def _strikes(self, fault: Fault, request: bytes = b"") -> bool:
        """Return whether a fault strikes now, and count it if so."""
        if self._fault is not fault or self._match not in request:
            return False
        if self._times is not None:
            self._times -= 1
            if self._times <= 0:
                self._fault = None
        self._fired[fault] += 1
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._strikes(Fault.REFUSE):
            _reset(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(reader, link), self._answers(server_reader, link))
        except (OSError, asyncio.CancelledError):
            pass  # a peer reset it, or the proxy ends: both halves go
        finally:
            self._links.discard(link)
            link.reset()

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await reader.read(_CHUNK):
            if self._strikes(Fault.CUT, chunk) or self._strikes(Fault.REFUSE, chunk):
                raise ConnectionResetError
            await self._stalled()
            if self._strikes(Fault.LOSE_ANSWER, chunk):
                link.losing = True
            elif self._strikes(Fault.HALF_CLOSE, chunk):
                link.deaf = True
                link.client.write_eof()
            link.server.write(chunk)
            await link.server.drain()
            if self._strikes(Fault.CUT_SENT, chunk):
                raise ConnectionResetError
        if link.server.can_write_eof():
            link.server.write_eof()

    async def _answers(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await reader.read(_CHUNK):
            if link.losing:
                raise ConnectionResetError
            await self._stalled()
            if self._strikes(Fault.SLOW):
                await asyncio.sleep(self._delay)
            if not link.deaf:
                link.client.write(chunk)
                await link.client.drain()
        if not link.deaf and link.client.can_write_eof():
            link.client.write_eof()

    async def _stalled(self) -> None:
        assert self._open is not None
        if not self._open.is_set():
            self._fired[Fault.STALL] += 1
            await self._open.wait()


class _Link:
    """One client's connection and the server's behind it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.losing = False
        self.deaf = False

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close by RST: what is not sent yet is dropped, and the peer's read fails."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
