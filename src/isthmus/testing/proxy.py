"""Fault injection: a TCP proxy in front of a real server that breaks connections."""

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
    """Faults that can be injected; a reset sends RST, as the kernel does when a process crashes."""

    CUT = "cut"
    """Reset the connection when the next request arrives, without forwarding it."""
    CUT_SENT = "cut after the request"
    """Forward the next request and reset at once: the server may or may not execute it."""
    LOSE_ANSWER = "lose the answer"
    """Forward the next request, wait for the server's response, and reset instead of forwarding it."""
    HALF_CLOSE = "half-close"
    """Forward the next request and close only the server-to-client direction."""
    STALL = "stall"
    """Hold back all data until `heal()`; the connections stay open."""
    SLOW = "slow"
    """Delay each chunk of a response by `delay` seconds."""
    REFUSE = "refuse"
    """Reset new connections at once, and existing ones on their next request."""


class FaultProxy:
    """Forwards bytes between clients and one server, and injects faults.

    It runs an event loop on its own thread, so it is independent of the loop of the code under test
    and can be used from any thread:

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
        """The loopback port that clients connect to."""

    # For tests

    def inject(
        self, fault: Fault, *, times: int | None = None, match: bytes = b"", delay: float = 0.05
    ) -> None:
        """Inject a fault `times` times, or until `heal()` if it is None.

        `match` restricts it to requests with a chunk that contains these bytes. `delay` is in
        seconds and is used by `Fault.SLOW`.
        """
        self._call_in_thread(self._set_fault, fault, times, match, delay)

    def heal(self) -> None:
        """Stop injecting faults; data that a stall held back is forwarded."""
        self._call_in_thread(self._set_fault, None, None, b"", 0.0)

    def cut(self) -> int:
        """Reset all open connections and return their number."""
        return self._call_in_thread(self._reset_all)

    def fired(self, fault: Fault) -> int:
        """Return how many times a fault was injected since the start."""
        return self._fired[fault]

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._links)

    def through(self, url: str) -> str:
        """Return a URL of the server with the proxy's address in place of the server's.

        Raises `ValueError` if the server's host and port are not in it.
        """
        host, port = self._target
        proxied = url.replace(f"{host}:{port}", f"127.0.0.1:{self.port}")
        if proxied == url:
            raise ValueError(f"the URL does not contain {host}:{port}")
        return proxied

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # On the proxy's thread

    def _call_in_thread(self, function: Callable[..., T], *args: object) -> T:
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
            self._reset_all()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.close()

    def _set_fault(self, fault: Fault | None, times: int | None, match: bytes, delay: float) -> None:
        self._fault, self._times, self._match, self._delay = fault, times, match, delay
        assert self._open is not None
        if fault is Fault.STALL:
            self._open.clear()
        else:
            self._open.set()

    def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def _fires(self, fault: Fault, request: bytes = b"") -> bool:
        """Return whether to inject a fault now, and count it."""
        if self._fault is not fault or self._match not in request:
            return False
        if self._times is not None:
            self._times -= 1
            if self._times <= 0:
                self._fault = None
        self._fired[fault] += 1
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fires(Fault.REFUSE):
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
            await asyncio.gather(
                self._forward_requests(reader, link), self._forward_responses(server_reader, link)
            )
        except (OSError, asyncio.CancelledError):
            pass  # a peer reset the connection, or the proxy stops
        finally:
            self._links.discard(link)
            link.reset()

    async def _forward_requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await reader.read(_CHUNK):
            if self._fires(Fault.CUT, chunk) or self._fires(Fault.REFUSE, chunk):
                raise ConnectionResetError
            await self._wait_while_stalled()
            if self._fires(Fault.LOSE_ANSWER, chunk):
                link.drops_response = True
            elif self._fires(Fault.HALF_CLOSE, chunk):
                link.half_closed = True
                link.client.write_eof()
            link.server.write(chunk)
            await link.server.drain()
            if self._fires(Fault.CUT_SENT, chunk):
                raise ConnectionResetError
        if link.server.can_write_eof():
            link.server.write_eof()

    async def _forward_responses(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await reader.read(_CHUNK):
            if link.drops_response:
                raise ConnectionResetError
            await self._wait_while_stalled()
            if self._fires(Fault.SLOW):
                await asyncio.sleep(self._delay)
            if not link.half_closed:
                link.client.write(chunk)
                await link.client.drain()
        if not link.half_closed and link.client.can_write_eof():
            link.client.write_eof()

    async def _wait_while_stalled(self) -> None:
        assert self._open is not None
        if not self._open.is_set():
            self._fired[Fault.STALL] += 1
            await self._open.wait()


class _Link:
    """A client connection and its connection to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.drops_response = False
        self.half_closed = False

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: unsent data is dropped, and the peer's read fails."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
