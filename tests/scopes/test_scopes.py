"""A short run of `make scopes`, and what shows that it would notice a leak."""

from __future__ import annotations

from collections import Counter

import pytest

from isthmus import Record, field
from isthmus._scoped_session import ScopedSession
from isthmus.errors import AlreadyExistsError
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


@pytest.mark.asyncio
async def test_a_clash_names_no_record_of_another_scope() -> None:
    """A value of a unique field clashes with any tenant's; only an own record's id is told."""
    async with store_of("memory").fresh() as db:
        await db.upsert_batch([Record({"tenant": tenant}, id=f"{tenant}1") for tenant in "ab"])
        session = db.scope(field("tenant") == "a")._session
        assert isinstance(session, ScopedSession)
        clashes = [AlreadyExistsError(f"email: record {id!r} has it", record_id=id) for id in ("a1", "b1")]

        own, hidden = await session._writes(session._inner).hide_others(db.collection_name, None, clashes)

    assert own is clashes[0]
    assert isinstance(hidden, AlreadyExistsError)
    assert (hidden.record_id, "b1" in str(hidden)) == (None, False)
