"""What drivers send as a password, seen by a server that asks for it in clear text."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isthmus import AsyncDatabase
from isthmus.errors import AccessError

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

DRIVERS = ("asyncpg", "psycopg")


@asynccontextmanager
async def _asking() -> AsyncIterator[tuple[int, list[tuple[str, str]]]]:
    """Yield the port of a server that refuses all, and the users and passwords that it was sent."""
    seen: list[tuple[str, str]] = []

    async def message(reader: asyncio.StreamReader) -> bytes:
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        return await reader.readexactly(size - 4)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = (await message(reader))[4:].split(b"\0")
        writer.write(b"R" + struct.pack("!ii", 8, 3))
        await writer.drain()
        if not await reader.read(1):  # libpq leaves without a word if it has no password
            writer.close()
            return
        password = (await message(reader)).rstrip(b"\0")
        seen.append((dict(zip(words[::2], words[1::2], strict=False))[b"user"].decode(), password.decode()))
        text = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
        writer.write(b"E" + struct.pack("!i", 4 + len(text)) + text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("environ", "given", "sent"),
    [
        ({"PGUSER": "alice", "PGPASSWORD": "env"}, {}, ("alice", "env")),
        ({"PGUSER": "alice", "PGPASSWORD": "env"}, {"user": "bob"}, None),
        ({"PGPASSWORD": "env"}, {"user": "bob", "passfile": "FILE"}, ("bob", "filed")),
        ({"PGPASSWORD": "env"}, {"user": "eve", "passfile": "FILE"}, None),
        ({"PGPASSWORD": "env"}, {"user": "bob", "password": ""}, None),
        ({"PGPASSFILE": "FILE"}, {"user": "bob"}, ("bob", "filed")),
        ({"PGPASSFILE": "FILE"}, {"user": "bob", "password": ""}, None),
        ({"PGPASSFILE": "FILE"}, {"user": "bob", "password": "given"}, ("bob", "given")),
    ],
)
async def test_a_password_that_the_config_overrides_is_not_sent(
    driver: str,
    environ: dict[str, str],
    given: dict[str, Any],
    sent: tuple[str, str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Drivers read PGPASSWORD and PGPASSFILE themselves, and would send them to whoever is connected to."""
    file = tmp_path / "pgpass"
    file.write_text("*:*:*:bob:filed\n")
    file.chmod(0o600)
    for name in ("PGUSER", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value.replace("FILE", str(file)))
    settings = {name: value.replace("FILE", str(file)) for name, value in given.items()}

    async with _asking() as (port, seen):
        with pytest.raises(AccessError):
            await AsyncDatabase.create(
                "postgres",
                {"host": "127.0.0.1", "port": port, "driver": driver, "ssl": "disable", **settings},
            )

    assert {pair for pair in seen if pair[1]} == ({sent} if sent else set())


@pytest.mark.parametrize("driver", DRIVERS)
async def test_an_address_of_the_environment_does_not_replace_a_given_one(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq connects to PGHOSTADDR whatever the host is."""
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.99")

    async with _asking() as (port, seen):
        with pytest.raises(AccessError):
            await AsyncDatabase.create(
                "postgres",
                {"url": f"postgres://bob:pw@127.0.0.1:{port}/app", "driver": driver, "ssl": "disable"},
            )

    assert set(seen) == {("bob", "pw")}
