"""Redirects are refused, with their host or the bucket's region: nothing is sent there, and no token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from isthmus import AsyncDatabase
from isthmus.errors import ConfigError

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("s3")]

STATUSES = (301, 302, 303, 307, 308)


@asynccontextmanager
async def _answering(head: str, seen: list[str]) -> AsyncIterator[int]:
    """Yield the port of a server that answers each request with a head."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"{head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _open(port: int, transport: str) -> AsyncDatabase:
    return await AsyncDatabase.create(
        "s3",
        {
            "bucket": "bucket",
            "endpoint_url": f"http://127.0.0.1:{port}",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "aws_session_token": "canary",
            "transport": transport,
        },
    )


@pytest.mark.parametrize("transport", ["obstore", "aioboto3"])
@pytest.mark.parametrize("status", STATUSES)
async def test_a_redirect_is_not_followed(status: int, transport: str) -> None:
    there: list[str] = []
    async with _answering("HTTP/1.1 404 Not Found", there) as other:
        head = f"HTTP/1.1 {status} Moved\r\nLocation: http://localhost:{other}/bucket/secret"
        async with _answering(head, []) as port:
            with pytest.raises(ConfigError, match=f"redirects to http://localhost, .*{status}") as caught:
                await _open(port, transport)

    assert there == []
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("transport", ["obstore", "aioboto3"])
async def test_the_region_of_a_bucket_is_named(transport: str) -> None:
    head = "HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-north-1"
    async with _answering(head, []) as port:
        with pytest.raises(ConfigError, match="in the region eu-north-1: set region="):
            await _open(port, transport)


@pytest.mark.parametrize("transport", ["obstore", "aioboto3"])
async def test_a_redirect_to_no_address_is_refused(transport: str) -> None:
    head = "HTTP/1.1 302 Moved\r\nLocation: http://[canary"
    async with _answering(head, []) as port:
        with pytest.raises(ConfigError, match="another endpoint") as caught:
            await _open(port, transport)

    assert "canary" not in str(caught.value)
