"""Runs the checks of a store in order: settings, connection, server, collection, latency."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
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
from isthmus.cli._doctor import elasticsearch, postgres, s3, sqlalchemy, sqlite
from isthmus.cli._doctor.columns import check_columns
from isthmus.cli._doctor.finding import Finding, Level, ok, problem, warning
from isthmus.cli._stores import (
    StoreAddress,
    build_settings,
    connect_or_list,
    describe_collections,
    is_collection_named,
    time_pings,
)

_SLOW_MS = 100
_CONFIG_CHECKS: dict[str, Callable[[Any], Iterator[Finding]]] = {
    "postgres": postgres.check_config,
    "elasticsearch": elasticsearch.check_config,
    "s3": s3.check_config,
}
_SERVER_CHECKS = {
    "postgres": postgres.check_server,
    "elasticsearch": elasticsearch.check_server,
    "s3": s3.check_server,
    "sqlite": sqlite.check_server,
    "sqlalchemy": sqlalchemy.check_server,
}


async def examine_store(address: StoreAddress) -> list[Finding]:
    """Return the findings in the order of the checks; nothing is created in the store."""
    return [finding async for finding in _run_checks(address)]


async def _run_checks(address: StoreAddress) -> AsyncIterator[Finding]:
    name = address.plugin.name
    try:
        db = await AsyncDatabase.open(address.url, build_settings(address, writes=False), lazy=True)
    except MissingExtraError as error:
        yield problem("driver", str(error), f"pip install 'isthmus[{error.extra}]'")
        return
    except ConfigError as error:
        yield problem("settings", str(error), "correct the URL or the environment variable")
        return
    yield ok("settings", f"{name}, collection {db.collection_name!r}")
    try:
        if name in _CONFIG_CHECKS:
            for finding in _CONFIG_CHECKS[name](db.config):
                yield finding
        async for finding in _check_connection(db, name):
            yield finding
    finally:
        await db.close()


async def _check_connection(db: AsyncDatabase, name: str) -> AsyncIterator[Finding]:
    reachable = True
    try:
        if name in _SERVER_CHECKS:
            async for finding in _SERVER_CHECKS[name](db):
                yield finding
                reachable &= finding.check != "connection" or finding.level is not Level.WRONG
    except IsthmusError as error:
        yield _explain_failure("connection", error)
        return
    if not reachable:
        return
    try:
        names = await connect_or_list(db)
    except IsthmusError as error:
        yield _explain_failure("collection", error)
        return
    yield _check_collection(db, names)
    if names is None:
        async for finding in check_columns(db):
            yield finding
    pings = time_pings(db, 5, without_collection=names is not None)
    fastest = min([duration async for duration in pings])
    text = f"a round trip takes {fastest:.2f} ms"
    if fastest > _SLOW_MS:
        yield warning("latency", text, "run closer to the store, and use batches: each call waits that long")
    else:
        yield ok("latency", text)


def _check_collection(db: AsyncDatabase, names: list[str] | None) -> Finding:
    """Check that the collection exists; `names` are the others if it does not."""
    if names is None:
        return ok("collection", f"{db.collection_name!r} can be used")
    seen = f"there is no collection {db.collection_name!r}; {describe_collections(names)}"
    if not is_collection_named(db):
        return ok("collection", seen)
    return problem("collection", seen, "the first write creates it; or name another collection with -c")


def _explain_failure(check: str, error: IsthmusError) -> Finding:
    """Return the finding for the error that ended the examination."""
    text = str(error)
    fix = "correct what the message names"
    match error:
        case AccessError():
            fix = "check user and password or keys, and that they may connect (pg_hba.conf, IAM)"
        case ConnectError() if any(word in text.lower() for word in ("certificate", "ssl", "tls")):
            fix = "name the authority that signed the server's certificate (ssl_root_cert, ca, ca_file)"
        case ConnectError():
            fix = "check host and port, that the server runs, and that no firewall is in between"
        case ConfigError() if "newer" in text or "format" in text:
            fix = "upgrade isthmus: pip install -U isthmus"
        case ConfigError():
            fix = "name another collection with -c, or correct what the message names"
        case StoreError():
            fix = "see the server's log"
    return problem(check, text, fix)
