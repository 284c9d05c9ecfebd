"""The table of isolation levels, by trying each interleaving on the real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus import Record
from tests.isolation.interleavings import INTERLEAVINGS
from tests.stores import Store, store_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "transactions.md"
BEGIN, END = "<!-- isolation: begin -->", "<!-- isolation: end -->"
# The stores with transactions as the page names them, and further settings.
STORES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "memory": ("memory", {}),
    "SQLite": ("sqlite", {}),
    "PostgreSQL 15": ("postgres", {}),
    "PostgreSQL 18": ("postgres18", {}),
    "MariaDB 10.11, by SQLAlchemy": ("sqlalchemy-mariadb", {}),
}
LEVELS = ("read committed", "repeatable read", "serializable")
# The deadline keeps MariaDB's lock waits short.
_DEADLINE = {"deadline": 6}


def store_named(name: str) -> Store:
    """Return a store of the table; skips the test if there is no server for it."""
    base, settings = STORES[name]
    store = store_of(base)
    return Store(base, store.backend, store.url, {**store.config, **_DEADLINE, **settings})


async def levels_of(name: str) -> list[str]:
    """Return the levels that a store has, weakest first."""
    async with store_named(name).fresh() as db:
        return [level for level in LEVELS if level in db.capabilities.isolation]


async def try_level(name: str, level: str) -> dict[str, bool]:
    """Return for each interleaving whether a store admits its anomaly at a level."""
    store = store_named(name)

    async def attempt(anomaly: str) -> bool:
        async with store.fresh() as db:
            await db.create_batch([Record({"n": 10}, id="1"), Record({"n": 20}, id="2")])
            return await INTERLEAVINGS[anomaly](db, level)

    if store.backend == "sqlite":  # it has one writer, for whom the other interleavings would wait
        return {anomaly: await attempt(anomaly) for anomaly in INTERLEAVINGS}
    return dict(
        zip(
            INTERLEAVINGS, await asyncio.gather(*(attempt(anomaly) for anomaly in INTERLEAVINGS)), strict=True
        )
    )


def row(name: str, level: str, admitted: Mapping[str, bool]) -> str:
    """Return one line of the page's table."""
    marks = ("admitted" if admitted[anomaly] else "–" for anomaly in INTERLEAVINGS)
    return f"| {name} | {level} | " + " | ".join(marks) + " |"


def rows_of_page() -> list[str]:
    """Return the lines of the page's table, without its head."""
    text = PAGE.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().splitlines()[2:]


async def write_page() -> list[str]:
    """Try everything, write the page's table and return its lines."""
    rows = [
        row(name, level, await try_level(name, level)) for name in STORES for level in await levels_of(name)
    ]
    head = ["| store | level | " + " | ".join(INTERLEAVINGS) + " |"]
    head.append("| --- | --- |" + " --- |" * len(INTERLEAVINGS))
    text = PAGE.read_text()
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join([*head, *rows]) + f"\n{after}")
    return head + rows
