"""A short run of `make scopes`, and what shows that it would notice a leak."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.scopes.attempts import METHODS, run_attempts
from tests.stores import store_of


@pytest.mark.parametrize("name", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_no_tenant_sees_or_changes_the_records_of_another(name: str) -> None:
    """Each method, with ids, conditions, cursors and values of others."""
    made: Counter[str] = Counter()

    assert await run_attempts(store_of(name), 300, 1, made) == []
    assert made.total() == 300


@pytest.mark.asyncio
async def test_handles_without_a_scope_are_noticed() -> None:
    """The same attempts by plain handles see and change what they must not, by nearly all methods."""
    leaks = await run_attempts(store_of("memory"), 600, 1, Counter(), confined=False)

    noticed = {leak.split(":")[0].split(".")[1] for leak in leaks}
    assert len(noticed) >= len(METHODS) - 8, METHODS.keys() - noticed
