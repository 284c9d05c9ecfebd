"""Watches a store: what a client sees of it now, look after look."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import nullcontext
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from isthmus import AsyncDatabase, IsthmusError
from isthmus._core.executor import PoolStats
from isthmus.cli._output import cell, out, print_json
from isthmus.cli._stores import Place, database

_BARS = " ▁▂▃▄▅▆▇█"
_PROBES = 5
_SESSIONS = """
SELECT application_name, count(*), count(*) FILTER (WHERE state = 'active'),
  count(*) FILTER (WHERE wait_event_type = 'Lock'),
  coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
GROUP BY 1 ORDER BY 2 DESC LIMIT 6"""


async def watch(place: Place, every: float, number: int | None, *, as_json: bool) -> None:
    """Look again and again; with `as_json` print each look as a line."""
    async with database(place) as db:
        looks: deque[dict[str, Any]] = deque(maxlen=40)
        console = out()
        live = (
            nullcontext()
            if as_json
            else Live(console=console, auto_refresh=False, screen=console.is_terminal)
        )
        with live as screen:
            done = 0
            while number is None or done < number:
                if done:
                    await asyncio.sleep(every)
                done += 1
                looks.append(await _look(db))
                if as_json:
                    print_json(looks[-1])
                elif screen is not None:
                    screen.update(_screen(place, list(looks)), refresh=True)


async def _look(db: AsyncDatabase) -> dict[str, Any]:
    """Return one look; a store that is away is what is seen, not the end."""
    look: dict[str, Any] = {"at": time.time(), "error": None}
    trips: list[float] = []
    try:
        for _ in range(_PROBES):
            start = time.perf_counter()
            await db.ping()
            trips.append(round((time.perf_counter() - start) * 1e3, 3))
        look["records"] = await db.count()
        look["sessions"] = await _sessions(db)
    except IsthmusError as error:
        look["error"] = f"{type(error).__name__}: {error}"
    look["ping_ms"] = sorted(trips)
    stats = db.stats()
    look["pool"] = {name: getattr(stats.pool, name) for name in PoolStats.__annotations__}
    look["layers"] = stats.layers
    return look


async def _sessions(db: AsyncDatabase) -> list[list[Any]]:
    if db.backend != "postgres":
        return []
    pool = await db._backend.native()
    async with pool.acquire() as connection:
        return [list(row) for row in await connection.fetch(_SESSIONS)]


def _screen(place: Place, looks: list[dict[str, Any]]) -> Group:
    last = looks[-1]
    moment = time.strftime("%H:%M:%S", time.localtime(last["at"]))
    title = Text.from_markup(f"[bold]isthmus top[/]  {escape(place.shown)}  {moment}")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    if last["error"]:
        facts.add_row("[red]error[/]", escape(last["error"]))
    middles = [look["ping_ms"][len(look["ping_ms"]) // 2] if look["ping_ms"] else None for look in looks]
    if last["ping_ms"]:
        facts.add_row("round trip", f"{middles[-1]:.2f} ms, slowest {last['ping_ms'][-1]:.2f} ms")
        facts.add_row("", _spark(middles))
    if "records" in last:
        facts.add_row("records", f"{last['records']:,}{_rate(looks)}")
    pool = last["pool"]
    facts.add_row(
        "pool",
        f"{pool['in_use']} in use, {pool['idle']} idle of {pool['max_size']}; {pool['waiting']} waiting,"
        f" {pool['timeouts']} timeouts, {pool['acquired']} handed out, {pool['opened']} opened",
    )
    for name, counts in last["layers"].items():
        facts.add_row(name, escape(", ".join(f"{key} {cell(value)}" for key, value in counts.items())))
    parts: list[Any] = [title, Text(""), facts]
    if last.get("sessions"):
        parts += [Text(""), _sessions_table(last["sessions"])]
    return Group(*parts)


def _sessions_table(sessions: list[list[Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("application", "sessions", "active", "wait for a lock", "oldest transaction"):
        table.add_column(heading, no_wrap=True)
    for name, count, active, waiting, oldest in sessions:
        table.add_row(escape(name or "?"), str(count), str(active), str(waiting), f"{oldest:.1f} s")
    return table


def _rate(looks: list[dict[str, Any]]) -> str:
    known = [look for look in looks if "records" in look]
    if len(known) < 2:
        return ""
    first, last = known[max(0, len(known) - 10)], known[-1]
    return f"  ({(last['records'] - first['records']) / max(last['at'] - first['at'], 1e-9):+,.0f}/s)"


def _spark(values: list[float | None]) -> str:
    """Return a line of bars, a blank where there was no answer."""
    top = max((value for value in values if value is not None), default=0) or 1
    return "".join(
        " " if value is None else _BARS[1 + int(value / top * (len(_BARS) - 2))] for value in values
    )
