"""A pool of connections for one event loop; `open_pool` puts its parts together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus.backends.postgres.drivers import load_driver
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.pool.replicas import ReplicaPool

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig


async def open_pool(config: PostgresConfig, *, clock: Clock = SYSTEM_CLOCK) -> Pool:
    """Return a pool on the running loop with `min_size` connections, at least one, unless it is `lazy`.

    With `replicas` its `reads` are a pool of their own. Raises the first connection's error, mapped;
    if only later ones fail, the pool works with the connections that it has and goes on trying.
    """
    pool = Pool(config, load_driver(config), clock=clock)
    if config.replicas:
        pool.reads = ReplicaPool(config, load_driver(config), pool, clock=clock)
    pools = [pool] if pool.reads is pool else [pool, pool.reads]
    guards = [_terminate_with_loop(each) for each in pools]
    for each, guard in zip(pools, guards, strict=True):
        each.housekeeper.start()
        each.guard = guard
        await anext(guard)
    if not config.pool.lazy:
        try:
            for each in pools:
                await each.fill()
        except BaseException:
            pool.terminate()
            for guard in guards:
                await guard.aclose()
            raise
    return pool


async def _terminate_with_loop(pool: Pool) -> AsyncGenerator[None, None]:
    """Terminate a pool when its loop shuts down asynchronous generators, as `asyncio.run` does at its end.

    No other hook runs before a loop is closed; afterwards its transports can be neither closed nor
    collected without a warning.
    """
    try:
        yield
    finally:
        if not pool.is_closing:
            pool.terminate()
            for _ in range(3):  # transports close in the loop's next turns
                await asyncio.sleep(0)
