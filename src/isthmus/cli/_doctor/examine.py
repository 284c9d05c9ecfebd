"""Runs the checks that fit a store: its settings, the way to it, the server, the collection."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from isthmus import (
    AccessError,
    AsyncDatabase,
    ConfigError,
    ConnectError,
    IsthmusError,
    MissingExtraError,
    StoreError,
)
from isthmus._core.registry import plugin
from isthmus.cli._doctor import elasticsearch, postgres, s3, sqlite
from isthmus.cli._doctor.finding import Finding, Level, ok, warning, wrong
from isthmus.cli._stores import Place, settings

_SLOW = 0.1
_SERVERS = {
    "postgres": postgres.server,
    "elasticsearch": elasticsearch.server,
    "s3": s3.server,
    "sqlite": sqlite.server,
}
_CONFIGS = {"postgres": postgres.config, "elasticsearch": elasticsearch.config, "s3": s3.config}


async def examine(place: Place) -> list[Finding]:
    """Return what was found, in the order in which it was looked at; makes nothing in the store."""
    return [finding async for finding in _examined(place)]


async def _examined(place: Place) -> AsyncIterator[Finding]:
    name = plugin(place.url.split("://", 1)[0]).name
    try:
        db = await AsyncDatabase.open(place.url, settings(place, writes=False), lazy=True)
    except MissingExtraError as error:
        yield wrong("driver", str(error), f"pip install 'isthmus[{error.extra}]'")
        return
    except ConfigError as error:
        yield wrong("settings", str(error), "correct the URL or the environment variable")
        return
    yield ok("settings", f"{name}, collection {db.collection_name!r}")
    try:
        for finding in _CONFIGS.get(name, _nothing)(db.config):
            yield finding
        async for finding in _reached(db, name):
            yield finding
    finally:
        await db.close()


def _nothing(config: Any) -> list[Finding]:
    return []


async def _reached(db: AsyncDatabase, name: str) -> AsyncIterator[Finding]:
    found: list[Finding] = []
    try:
        if name in _SERVERS:
            async for finding in _SERVERS[name](db):
                found.append(finding)
                yield finding
    except IsthmusError as error:
        yield _failed("connection", error)
        return
    if any(finding.check == "connection" and finding.level is Level.WRONG for finding in found):
        return
    try:
        await db.connect()
    except IsthmusError as error:
        yield _failed("collection", error)
        return
    yield ok("collection", f"{db.collection_name!r} can be used")
    trips = []
    for _ in range(5):
        start = time.perf_counter()
        await db.ping()
        trips.append(time.perf_counter() - start)
    best = min(trips)
    text = f"a round trip takes {best * 1e3:.2f} ms"
    if best > _SLOW:
        yield warning("latency", text, "run closer to the store, and use batches: each call waits that long")
    else:
        yield ok("latency", text)


def _failed(check: str, error: IsthmusError) -> Finding:
    """Return the finding for what ended the examination."""
    text = str(error)
    match error:
        case AccessError():
            return wrong(
                check, text, "check user and password or keys, and that they may connect (pg_hba.conf, IAM)"
            )
        case ConnectError():
            mend = "check host and port, that the server runs, and that no firewall is between"
            if "certificate" in text.lower() or "ssl" in text.lower() or "tls" in text.lower():
                mend = "give the authority that signed the server's certificate (ssl_root_cert, ca, ca_file)"
            return wrong(check, text, mend)
        case ConfigError():
            if "there is no" in text:
                return wrong(check, text, "the first write makes it; or name another collection with -c")
            if "newer" in text or "format" in text:
                return wrong(check, text, "upgrade isthmus: pip install -U isthmus")
            return wrong(check, text, "name another collection with -c, or mend what the message says")
        case StoreError():
            return wrong(check, text, "look into the server's log")
    return wrong(check, text, "mend what the message says")
