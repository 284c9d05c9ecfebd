"""The command top: the state of a store as a client sees it, refreshed until interrupted."""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import deque
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from isthmus import AsyncDatabase, IsthmusError
from isthmus._core.changes import SupportsHeldChanges
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, Store
from isthmus.cli._output import build_facts, build_table, format_value, make_console, print_json
from isthmus.cli._stores import StoreAddress, open_store, pool_to_json, resolve_store, time_pings

_BARS = " ▁▂▃▄▅▆▇█"
_PINGS = 5
_HISTORY = 40
_SESSIONS = """
SELECT application_name, count(*), count(*) FILTER (WHERE state = 'active'),
  count(*) FILTER (WHERE wait_event_type = 'Lock'),
  coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
GROUP BY 1 ORDER BY 2 DESC LIMIT 6"""
_SESSION_HEADINGS = ("application", "sessions", "active", "waiting for a lock", "oldest transaction")


def top(
    store: Store = None,
    interval: Annotated[
        float, typer.Option("--every", metavar="S", min=0.05, help="Seconds between samples.")
    ] = 1.0,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", metavar="N", show_default=False, help="Exit after N samples."),
    ] = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Monitor a store: latency, records, held changes, pool, layers, sessions.

    Ctrl-C exits. The pool and the layers belong to this command: they show what
    a client sees.
    """
    asyncio.run(_monitor(resolve_store(store, collection, prompt=prompt), interval, number, as_json=as_json))


async def _monitor(address: StoreAddress, interval: float, number: int | None, *, as_json: bool) -> None:
    """Show a sample every `interval` seconds, or print it as a JSON line."""
    console = make_console()
    samples: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
    live = nullcontext() if as_json else Live(console=console, auto_refresh=False, screen=console.is_terminal)
    async with open_store(address) as (db, names):
        with live as screen:
            taken = 0
            while number is None or taken < number:
                if taken:
                    await asyncio.sleep(interval)
                taken += 1
                samples.append(await _take_sample(db, names))
                if screen is None:
                    print_json(samples[-1])
                else:
                    screen.update(_render(address, list(samples)), refresh=True)


async def _take_sample(db: AsyncDatabase, names: list[str] | None) -> dict[str, Any]:
    """Return the current state; an unreachable store is a sample with an error."""
    sample: dict[str, Any] = {"at": time.time(), "error": None}
    durations: list[float] = []
    try:
        async for duration in time_pings(db, _PINGS, without_collection=names is not None):
            insort(durations, round(duration, 3))
        if names is None:
            sample["records"] = await db.count()
            sample["changes"] = await _find_held_changes(db)
        sample["sessions"] = await _fetch_sessions(db)
    except IsthmusError as error:
        sample["error"] = f"{type(error).__name__}: {error}"
    stats = db.stats()
    return {**sample, "ping_ms": durations, "pool": pool_to_json(stats.pool), "layers": stats.layers}


async def _fetch_sessions(db: AsyncDatabase) -> list[list[Any]]:
    if db.backend != "postgres":
        return []
    pool = await db._backend.native()
    async with pool.acquire() as connection:
        return [list(row) for row in await connection.fetch(_SESSIONS)]


async def _find_held_changes(db: AsyncDatabase) -> dict[str, Any] | None:
    """Return how many changes cannot be read yet, and whose transaction they wait for; None if none does."""
    backend = db._backend
    held = (
        await backend.find_held_changes(db.collection_name)
        if isinstance(backend, SupportsHeldChanges)
        else None
    )
    return {"held": held.count, "by": held.holder} if held is not None and held.count else None


def _render(address: StoreAddress, samples: list[dict[str, Any]]) -> Group:
    last = samples[-1]
    facts: list[tuple[str, Any]] = []
    if last["error"]:
        facts.append(("error", last["error"]))
    medians = [s["ping_ms"][len(s["ping_ms"]) // 2] if s["ping_ms"] else None for s in samples]
    if last["ping_ms"]:
        facts.append(("round trip", f"{medians[-1]:.2f} ms, slowest {last['ping_ms'][-1]:.2f} ms"))
        facts.append(("", _draw_bars(medians)))
    if "records" in last:
        facts.append(("records", f"{last['records']:,}{_format_rate(samples)}"))
    if last.get("changes"):
        facts.append(("changes", f"{last['changes']['held']:,} held back by {last['changes']['by']}"))
    pool = last["pool"]
    text = (
        f"{pool['in_use']} in use, {pool['idle']} idle of {pool['max_size']}; {pool['waiting']} waiting,"
        f" {pool['timeouts']} timeouts, {pool['acquired']} acquired, {pool['opened']} opened"
    )
    facts.append(("pool", text))
    for name, counts in last["layers"].items():
        facts.append((name, ", ".join(f"{key} {format_value(value)}" for key, value in counts.items())))
    clock = time.strftime("%H:%M:%S", time.localtime(last["at"]))
    title = Text.assemble(("isthmus top", "bold"), f"  {address.display_name}  {clock}")
    parts: list[Any] = [title, Text(""), build_facts(facts)]
    if last.get("sessions"):
        rows = [[name or "?", *counts, f"{seconds:.1f} s"] for name, *counts, seconds in last["sessions"]]
        parts += [Text(""), build_table(_SESSION_HEADINGS, rows)]
    return Group(*parts)


def _format_rate(samples: list[dict[str, Any]]) -> str:
    """Return the change in the number of records per second over the last ten samples."""
    counted = [sample for sample in samples if "records" in sample][-10:]
    if len(counted) < 2:
        return ""
    first, last = counted[0], counted[-1]
    return f"  ({(last['records'] - first['records']) / max(last['at'] - first['at'], 1e-9):+,.0f}/s)"


def _draw_bars(values: list[float | None]) -> str:
    """Return a bar for each value, a blank for None."""
    highest = max((value for value in values if value is not None), default=0) or 1
    return "".join(
        " " if value is None else _BARS[1 + int(value / highest * (len(_BARS) - 2))] for value in values
    )
