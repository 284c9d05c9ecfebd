"""Commands about a store: ping, doctor, stats, index, top."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from isthmus import AsyncDatabase, UnsupportedError
from isthmus._core.executor import PoolStats
from isthmus._core.registry import plugin
from isthmus.cli._errors import Code, CommandError
from isthmus.cli._options import AsJson, Ask, CollectionName, Store, run
from isthmus.cli._output import print_facts, print_json, print_table
from isthmus.cli._stores import Place, database, place

COMMANDS = ("ping", "doctor", "stats", "index", "top")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(ping)
    app.command()(doctor)
    app.command()(stats)
    app.command()(index)
    app.command()(top)


def ping(
    store: Store = None,
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", min=1, help="How often.")] = 3,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Connect, and time the cheapest round trips that need the store to work."""
    where = place(store, collection, ask=ask)
    backend, connected, trips = run(_ping(where, number))
    shape = {
        "backend": backend,
        "store": where.shown,
        "connect_ms": round(connected * 1e3, 2),
        "ping_ms": [round(trip * 1e3, 2) for trip in trips],
    }
    if as_json:
        print_json(shape)
    else:
        sys.stdout.write(
            f"{backend} {where.shown} works: connected in {connected * 1e3:.1f} ms,"
            f" round trip {min(trips) * 1e3:.2f} ms\n"
        )


async def _ping(where: Place, number: int) -> tuple[str, float, list[float]]:
    start = time.perf_counter()
    async with database(where) as db:
        connected = time.perf_counter() - start
        trips = []
        for _ in range(number):
            start = time.perf_counter()
            await db.ping()
            trips.append(time.perf_counter() - start)
        return db.backend, connected, trips


def doctor(
    store: Store = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Check a store and its settings: what is wrong and how to mend it.

    Exit code 1 if something needs mending; warnings alone give 0.
    """
    from isthmus.cli._doctor import Finding, Level, examine

    where = place(store, collection, ask=ask)
    findings: list[Finding] = run(examine(where))
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            finding.show()
    wrong = [finding for finding in findings if finding.level is Level.WRONG]
    if wrong:
        raise CommandError(f"{len(wrong)} of {len(findings)} checks found something wrong", Code.NO)


def stats(
    store: Store = None, collection: CollectionName = None, *, as_json: AsJson = False, ask: Ask = False
) -> None:
    """Print what a store can do, how full it is, and the state of the pool."""
    shape = run(_stats(place(store, collection, ask=ask)))
    if as_json:
        print_json(shape)
        return
    facts = [(key, value) for key, value in shape.items() if not isinstance(value, dict)]
    for group in ("capabilities", "pool", "settings"):
        facts += [(f"{group}.{key}", value) for key, value in shape[group].items()]
    print_facts(facts)


async def _stats(where: Place) -> dict[str, Any]:
    async with database(where) as db:
        await db.ping()
        snapshot = db.stats()
        settings = {
            key: f"{_plain(value)} ({origin})"
            for key, (value, origin) in db.config.explain().items()
            if origin != "default"
        }
        return {
            "backend": snapshot.backend,
            "store": where.shown,
            "collection": db.collection_name,
            "records": await db.count(),
            "capabilities": {k: _plain(v) for k, v in db.capabilities.differing().items()},
            "pool": {name: getattr(snapshot.pool, name) for name in PoolStats.__annotations__},
            "layers": snapshot.layers,
            "settings": settings,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(value)
    return value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)


def index(
    store: Store = None,
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD...", show_default=False, help="Fields to index; none: show what is declared."
        ),
    ] = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Make fields fast to filter and sort by, where the store has declared indexes.

    The indexes are built now; keep them by naming them in the config too (indexes=...).
    """
    made = run(_index(place(store, collection, ask=ask), fields or []))
    if as_json:
        print_json(made)
    else:
        unused = "none now: with few records a scan is faster"
        print_table(["field", "index that = uses"], [(name, used or unused) for name, used in made.items()])


async def _index(where: Place, fields: list[str]) -> dict[str, str | None]:
    from isthmus.cli._filter import parse_field
    from isthmus.cli._stores import settings

    wanted = [parse_field(name) for name in fields]
    given: dict[str, Any] = dict(settings(where, writes=bool(fields)))
    if fields:
        given["indexes"] = fields
    chosen = plugin(where.url.split("://", 1)[0])
    if not chosen.capabilities.indexes:
        raise UnsupportedError(f"{chosen.name} has no declared indexes", capability="indexes")
    db = await AsyncDatabase.open(where.url, given)
    try:
        declared = list(getattr(db.config, "indexes", ()))
        used: dict[str, str | None] = {}
        for name, path in zip(fields, wanted, strict=True):
            used[name] = (await db.explain(path == 1)).index
        for name in declared:
            used.setdefault(str(name), None)
        return used
    finally:
        await db.close()


def top(
    store: Store = None,
    every: Annotated[
        float, typer.Option("--every", metavar="S", min=0.05, help="Seconds between looks.")
    ] = 1.0,
    number: Annotated[
        int | None, typer.Option("--number", "-n", metavar="N", show_default=False, help="End after N looks.")
    ] = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Watch a store: round trips, records, the pool, layers, sessions; Ctrl-C ends.

    The pool and the layers are this command's own: they show what a client sees now.
    """
    from isthmus.cli._commands.top import watch

    run(watch(place(store, collection, ask=ask), every, number, as_json=as_json))
