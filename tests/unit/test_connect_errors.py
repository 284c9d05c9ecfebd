"""An error while connecting names the host, and one of TLS the settings that matter."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from isthmus import AsyncDatabase
from isthmus.errors import ConnectError
from tests import servers

pytestmark = pytest.mark.asyncio

S3 = {"bucket": "things", "access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}


def settings_of(backend: str, place: str, *, tls: bool = False) -> dict[str, Any]:
    scheme = "https" if tls else "http"
    if backend.startswith("s3"):
        return {**S3, "endpoint_url": f"{scheme}://{place}", "transport": backend.partition("-")[2]}
    if backend == "elasticsearch":
        return {"hosts": [f"{scheme}://{place}"]}
    if backend == "mariadb":
        return {"url": f"mysql+asyncmy://u:p@{place}/db"}
    mode = {"ssl": "verify-full"} if tls else {}
    return {"url": f"postgres://u:p@{place}/db", "driver": backend.partition("-")[2], **mode}


def plugin_of(backend: str) -> str:
    name = backend.partition("-")[0]
    return "sqlalchemy" if name == "mariadb" else name


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


BACKENDS = ["postgres-asyncpg", "postgres-psycopg", "elasticsearch", "s3-aioboto3", "s3-obstore", "mariadb"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_connect_error_names_the_host(backend: str, closed_port: int) -> None:
    config = settings_of(backend, f"127.0.0.1:{closed_port}")
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1") as refused:
        await AsyncDatabase.create(plugin_of(backend), config)
    assert str(closed_port) in str(refused.value) or backend == "mariadb"
    with pytest.raises(ConnectError, match=r"nowhere\.invalid"):
        await AsyncDatabase.create(plugin_of(backend), settings_of(backend, f"nowhere.invalid:{closed_port}"))


@pytest.mark.parametrize(
    ("backend", "setting"),
    [("elasticsearch", "`ca`"), ("s3-aioboto3", "ca_file="), ("s3-obstore", "ca_file=")],
)
async def test_a_refused_certificate_names_the_settings(backend: str, setting: str, tmp_path: Any) -> None:
    certificate = servers.make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match=setting):
            await AsyncDatabase.create(
                plugin_of(backend), settings_of(backend, f"127.0.0.1:{port}", tls=True)
            )
