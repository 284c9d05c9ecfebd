"""The stores that faults are tried on: each behind a proxy, and reached directly to see the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from isthmus import AsyncDatabase
from isthmus.testing.proxy import FaultProxy
from tests import servers


@dataclass(frozen=True)
class Target:
    """A backend in one configuration."""

    name: str
    server: str
    """The kind of test server."""
    key: str
    """What names a collection in its config."""
    config: Mapping[str, Any] = field(default_factory=dict)

    def url(self) -> str:
        """Return the URL of the running server, as isthmus reads it."""
        url = servers.server(self.server).url
        return f"es+{url}" if self.server == "elasticsearch" else url

    def proxy(self) -> FaultProxy:
        """Return a proxy in front of the server, not started yet."""
        parts = urlsplit(self.url())
        inner = parse_qs(parts.query).get("endpoint_url")
        if inner:
            parts = urlsplit(inner[0])
        assert parts.hostname is not None
        assert parts.port is not None
        return FaultProxy(parts.hostname, parts.port)

    async def open(self, url: str, name: str, **config: Any) -> AsyncDatabase:
        """Return a handle on a collection of its own."""
        return await AsyncDatabase.open(url, {self.key: name, **self.config, **config})


TARGETS = {
    target.name: target
    for target in (
        Target("postgres", "postgres", "table", {"changes": True}),
        Target("elasticsearch", "elasticsearch", "index"),
        Target("s3-object", "s3", "prefix", {"layout": "object"}),
        Target("s3-log", "s3", "prefix", {"layout": "log", "changes": True}),
    )
}
