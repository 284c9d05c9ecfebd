"""TLS on all three servers: a wrong host, an expired and an unknown certificate are refused."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus import AsyncDatabase
from isthmus.errors import ConfigError, IsthmusError, UnavailableError
from tests import servers

BAD = {
    "wrong host": {"names": ("elsewhere.example",)},
    "expired": {"expired": True},
    "self-signed": {},  # signed by an authority that the client was not told of
}


@contextlib.contextmanager
def terminated(port: int, folder: Path, **spoiled: Any) -> Iterator[tuple[int, servers.Certificate]]:
    """Serve TLS in front of a plain port."""
    certificate = servers.make_certificate(folder, **spoiled)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.certificate, certificate.key)
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(plain: socket.socket) -> None:
        try:
            client = context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        server = socket.create_connection(("127.0.0.1", port))
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join(5)
        client.close()
        server.close()

    def accept() -> None:
        while not stopped.is_set():
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(plain,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], certificate
    finally:
        stopped.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


async def refused(backend: str, config: dict[str, Any]) -> str | None:
    """Return what went wrong if a handle connects although it must not, or fails in another way."""
    try:
        db = await AsyncDatabase.create(backend, config)
    except ConfigError as error:
        return f"a ConfigError, not a refused certificate: {error}"
    except IsthmusError as error:
        # The same store with a good certificate is accepted, so it is the certificate.
        return None if isinstance(error, UnavailableError) else f"{type(error).__name__}: {error}"[:300]
    await db.close()
    return "it was accepted"


async def check_postgres() -> list[str]:
    """Check a PostgreSQL that has TLS itself."""
    findings = []
    for name, spoiled in BAD.items():
        options = {f"tls_{key}": value for key, value in spoiled.items()}
        with servers.PostgresServer(tls=True, **options) as server:
            assert server.certificate is not None
            trusted = {} if name == "self-signed" else {"ssl_root_cert": str(server.certificate.authority)}
            config = {"url": server.url, "ssl": "verify-full", **trusted}
            problem = await refused("postgres", config)
            if problem:
                findings.append(f"postgres, {name}: {problem}")
            if name == "self-signed":
                good = {
                    "url": server.url,
                    "ssl": "verify-full",
                    "ssl_root_cert": str(server.certificate.authority),
                }
                findings += await accepted("postgres", good)
    return findings


async def accepted(backend: str, config: dict[str, Any]) -> list[str]:
    """Return what went wrong if a good certificate is refused: then the refusals would prove nothing."""
    try:
        db = await AsyncDatabase.create(backend, config)
    except IsthmusError as error:
        return [f"{backend}: a good certificate was refused: {error}"[:400]]
    await db.close()
    return []


async def check_terminated(backend: str, port: int, config: dict[str, Any], ca: str) -> list[str]:
    """Check an HTTP store behind a terminator; `ca` is the setting that names an authority."""
    findings = []
    for name, spoiled in {**BAD, "good": {}}.items():
        with (
            tempfile.TemporaryDirectory() as folder,
            terminated(port, Path(folder), **spoiled) as (tls_port, certificate),
        ):
            url = f"https://127.0.0.1:{tls_port}"
            told = {} if name == "self-signed" else {ca: str(certificate.authority)}
            place = {"hosts": [url]} if backend == "elasticsearch" else {"endpoint_url": url}
            settings = {**config, **place, **told}
            if name == "good":
                findings += await accepted(backend, settings)
                continue
            problem = await refused(backend, settings)
            if problem:
                findings.append(f"{backend}, {name}: {problem}")
    return findings
