"""How to drop a transport whose loop may be dead: no await, no warning, the server told by FIN."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any


def drop_transport(transport: asyncio.BaseTransport | None) -> None:
    """Close a transport's socket now.

    `abort` alone closes it in the loop's next turn, which never comes on a dead loop; the
    transport would then complain when it is collected.
    """
    if transport is None:
        return
    transport = _lowest(transport)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # closed or never connected
            sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(RuntimeError):  # "Event loop is closed"
        abort = getattr(transport, "abort", None)
        if abort is not None:
            abort()
    finish = getattr(transport, "_call_connection_lost", None)
    loop = getattr(transport, "_loop", None)
    # asyncio's transports close their socket in this callback, which a dead loop never runs.
    if finish is not None and loop is not None and loop.is_closed():
        finish(None)


def _lowest(transport: Any) -> Any:
    """Return the socket's own transport below TLS."""
    protocol = getattr(transport, "_ssl_protocol", None)
    below = getattr(protocol, "_transport", None)
    return transport if below is None else below
