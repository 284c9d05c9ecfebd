"""Commands on a store as a whole: ping, doctor, stats, index."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated, Any

import typer

from isthmus import UnsupportedError
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, Store
from isthmus.cli._output import print_facts, print_json
from isthmus.cli._stores import (
    StoreAddress,
    open_database,
    open_store,
    pool_to_json,
    resolve_store,
    time_pings,
)


def ping(
    store: Store = None,
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", min=1, help="Round trips.")] = 3,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Connect, and time the cheapest round trips that need a working store."""
    address = resolve_store(store, collection, prompt=prompt)
    backend, connect_ms, ping_ms = asyncio.run(_ping(address, number))
    if as_json:
        print_json(
            {
                "backend": backend,
                "store": address.display_name,
                "connect_ms": round(connect_ms, 2),
                "ping_ms": [round(duration, 2) for duration in ping_ms],
            }
        )
    else:
        sys.stdout.write(
            f"{backend} {address.display_name} works: connected in {connect_ms:.1f} ms,"
            f" round trip {min(ping_ms):.2f} ms\n"
        )


async def _ping(address: StoreAddress, number: int) -> tuple[str, float, list[float]]:
    """Return the backend, and how many milliseconds connecting and each round trip took."""
    start = time.perf_counter()
    async with open_store(address) as (db, names):
        connect_ms = (time.perf_counter() - start) * 1e3
        pings = time_pings(db, number, without_collection=names is not None)
        return db.backend, connect_ms, [duration async for duration in pings]


def doctor(
    store: Store = None,
    collection: CollectionName = None,
    *,
    row_security: Annotated[
        bool,
        typer.Option("--row-security", help="Print the SQL of the policies for scopes; checks nothing."),
    ] = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Check a store and its settings; each problem is shown with a fix.

    Exit code 1 if there is a problem; warnings alone give 0.
    """
    if row_security:
        asyncio.run(_print_policies(resolve_store(store, collection, prompt=prompt)))
        return
    from isthmus.cli._doctor import Level, examine_store

    findings = asyncio.run(examine_store(resolve_store(store, collection, prompt=prompt)))
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            finding.print()
    problems = sum(finding.level is Level.WRONG for finding in findings)
    if problems:
        raise CommandError(f"{problems} of {len(findings)} checks found a problem", ExitCode.NO)


async def _print_policies(address: StoreAddress) -> None:
    async with open_database(address) as db:
        if not db.capabilities.row_security:
            raise UnsupportedError(f"{db.backend} has no row security", capability="row_security")
        from isthmus.backends.postgres.backend import PostgresBackend

        assert isinstance(db._backend, PostgresBackend)
        for statement in db._backend.row_security_statements(db.collection_name):
            sys.stdout.write(f"{statement};\n")


def stats(
    store: Store = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Print a store's capabilities, number of records, and the state of the pool.

    Without --collection and a collection of the default name, the collections are listed instead.
    """
    document = asyncio.run(_stats(resolve_store(store, collection, prompt=prompt)))
    if as_json:
        print_json(document)
        return
    facts = [(key, value) for key, value in document.items() if not isinstance(value, dict)]
    for group in ("capabilities", "pool", "settings"):
        facts += [(f"{group}.{key}", value) for key, value in document[group].items()]
    print_facts(facts)


async def _stats(address: StoreAddress) -> dict[str, Any]:
    async with open_store(address) as (db, names):
        # A round trip, so that the pool has something to show.
        _ = [duration async for duration in time_pings(db, 1, without_collection=names is not None)]
        stats = db.stats()
        return {
            "backend": stats.backend,
            "store": address.display_name,
            "collection": db.collection_name,
            "records": await db.count() if names is None else None,
            **({} if names is None else {"collections": names}),
            "capabilities": {k: _to_json(v) for k, v in db.capabilities.non_defaults().items()},
            "pool": pool_to_json(stats.pool),
            "layers": stats.layers,
            "settings": {
                key: f"{_to_json(value)} ({origin})"
                for key, (value, origin) in db.config.explain().items()
                if origin != "default"
            },
        }


def _to_json(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(value)
    return value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)
