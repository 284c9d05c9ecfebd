"""Fifty concurrent read-then-updates by `db.run` add up to fifty, also from several processes."""

from __future__ import annotations

import pytest

from tests.lost_updates.counting import STORES, count_in_one, count_in_processes, store_named

pytestmark = pytest.mark.asyncio

# An in-process store is counted by the conformance suite; here are those that several processes share.
NAMES = [
    pytest.param(name, marks=[pytest.mark.breadth(4)] if name.startswith(("sqlalchemy", "postgres-")) else [])
    for name in STORES
    if name != "memory"
]


@pytest.mark.parametrize("name", NAMES)
async def test_runs_of_four_processes_lose_no_update(name: str) -> None:
    """Each process has a queue of its own: between them there are only the store and random pauses."""
    count = await count_in_processes(name, 50, 4)

    assert count.total == 50
    assert count.attempts >= 50


@pytest.mark.parametrize("name", ["sqlalchemy-mariadb", "postgres18"])
async def test_runs_of_one_process_lose_no_update_and_queue(name: str) -> None:
    """Repeats queue, so that most of them succeed at once: 95 attempts are usual, without a queue 250."""
    count = await count_in_one(name, 50)

    assert count.total == 50
    assert count.attempts <= 150


async def test_the_stores_of_the_table_differ() -> None:
    """Each name is another driver, server or pooler."""
    assert store_named("memory").backend == "memory"
    assert len({(base, *settings.items()) for base, settings in STORES.values()}) == len(STORES)
