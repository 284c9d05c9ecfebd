"""Pools on a real server for the tests of the pool, and an observer who counts sessions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.pool import open_pool
from isthmus.backends.postgres.pool.pool import Pool


def config_for(url: str, /, *, pool: dict[str, Any] | None = None, **settings: Any) -> PostgresConfig:
    """Return a config whose sessions have a name of their own, to be counted by it."""
    settings.setdefault("application_name", f"t-{uuid.uuid4().hex[:12]}")
    sizes = {"min_size": 0, "max_size": 4, **(pool or {})}
    return PostgresConfig.load({"url": url, "pool": sizes, **settings}, environ={})


@asynccontextmanager
async def opened(
    url: str, /, *, pool: dict[str, Any] | None = None, clock: Clock = SYSTEM_CLOCK, **settings: Any
) -> AsyncIterator[Pool]:
    """Open a pool and see that it leaves no session behind."""
    config = config_for(url, pool=pool, **settings)
    made = await open_pool(config, clock=clock)
    try:
        yield made
    finally:
        await made.close(5)
    assert await gone(url, config.application_name)


async def sessions(url: str, name: str) -> int:
    """Return how many sessions of this name the server has."""
    observer = await asyncpg.connect(url)
    try:
        return int(
            await observer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name)
        )
    finally:
        await observer.close()


async def gone(url: str, name: str, seconds: float = 5.0) -> bool:
    """Wait until the server has no session of this name; it notices a closed socket a moment later."""
    observer = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(seconds):
            while await observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name
            ):
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    finally:
        await observer.close()
    return True


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let the loop run until something holds; fails if it never does."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.001)


def run_on(loop: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on asyncio's own loop or on uvloop."""
    if loop == "uvloop":
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
