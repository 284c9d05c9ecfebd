"""A proxy in front of the real server that counts requests and breaks those that a test names."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from isthmus.backends.s3.keys import MARKER


class Seen(NamedTuple):
    """One request that came by."""

    number: int
    method: str
    path: str
    body: bytes
    head: bytes = b""


PASS, CUT_BEFORE, CUT_AFTER, CUT_BODY = "pass", "cut before", "cut after", "cut body"
# What becomes of a request: one of the words above, or the answer to give instead.
Rule = Callable[[Seen], "str | bytes"]


def answer(status: int, code: str) -> bytes:
    """Return an error answer as S3 gives it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>'.encode()
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Proxy:
    """Where it listens, what it saw, and the rule in force."""

    port: int = 0
    rule: Rule = lambda seen: PASS
    change_head: Callable[[bytes], bytes] = lambda head: head
    seen: list[Seen] = field(default_factory=list)
    open_connections: int = 0

    @property
    def endpoint(self) -> str:
        """The address to give to a client."""
        return f"http://127.0.0.1:{self.port}"

    def methods(self) -> list[str]:
        """Return the methods that were seen."""
        return [seen.method for seen in self.seen]


@contextlib.asynccontextmanager
async def proxied(
    endpoint: str,
    change_head: Callable[[bytes], bytes] = lambda head: head,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Proxy]:
    """Run a proxy to a server."""
    target = urlsplit(endpoint)
    proxy = Proxy(change_head=change_head)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        proxy.open_connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(target.hostname, target.port)
            try:
                while await _one(proxy, reader, writer, up_reader, up_writer):
                    pass
            finally:
                up_writer.close()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # either side left, or the test is over
        finally:
            proxy.open_connections -= 1
            writer.close()
            tasks.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**24, ssl=tls)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _one(
    proxy: Proxy,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    up_reader: asyncio.StreamReader,
    up_writer: asyncio.StreamWriter,
) -> bool:
    """Pass one request on; False ends the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    headers = _headers(head)
    if headers.get("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"\r\n".join(x for x in head.split(b"\r\n") if not x.lower().startswith(b"expect:"))
    body = await _body(reader, headers)
    method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
    seen = Seen(len(proxy.seen), method, unquote(path), body, head)
    proxy.seen.append(seen)
    action = proxy.rule(seen)
    if isinstance(action, bytes):
        # A HEAD has no body, whatever its headers say.
        writer.write(action.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else action)
        await writer.drain()
        return True
    if action == CUT_BEFORE:
        return False
    up_writer.write(proxy.change_head(head) + body)
    await up_writer.drain()
    answer_head = await up_reader.readuntil(b"\r\n\r\n")
    bodiless = method == "HEAD" or answer_head.split(b" ")[1] in (b"204", b"304")
    answer_body = b"" if bodiless else await _body(up_reader, _headers(answer_head))
    if action == CUT_AFTER:
        return False
    if action == CUT_BODY:
        answer_body = answer_body[: len(answer_body) // 2]
    writer.write(answer_head + answer_body)
    await writer.drain()
    return action != CUT_BODY


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        raw = b""
        while True:
            line = await reader.readline()
            size = int(line.split(b";")[0], 16)
            raw += line + await reader.readexactly(size + 2)
            if size == 0:
                return raw
    return await reader.readexactly(int(headers.get("content-length", "0")))


def is_trial(seen: Seen) -> bool:
    """Return whether a request has no credentials: the one by which a pool finds out about redirects."""
    return b"authorization:" not in seen.head.lower() and seen.path.endswith(MARKER)
