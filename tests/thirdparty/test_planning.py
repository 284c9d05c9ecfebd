"""The core's planning, tried by a backend that grades, orders and leaves recheck candidates at random."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._query.split import positive_part
from isthmus.errors import ConfigError, QueryError
from isthmus.layers import plan
from tests.differential import programs, queries
from tests.stores import Store

_SEED = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))


@pytest.mark.breadth(4)
@pytest.mark.parametrize("evaluates", ["nothing", "some", "other", "more"])
@pytest.mark.asyncio
async def test_the_core_evaluates_what_a_backend_cannot(evaluates: str) -> None:
    """Residuals, refills, recheck candidates, orders and aggregates here: every answer is the evaluator's."""
    seeds = {"nothing": 0, "some": 1, "other": 2, "more": 3}
    config = {"evaluates": "nothing" if evaluates == "nothing" else "some", "seed": seeds[evaluates]}
    store = Store("rough", "rough", config=config)

    report = await queries.run(store, queries.Plan(1_200, _SEED, per_set=60))

    print(f"seed {_SEED}")
    assert not report.failures, "\n\n".join(report.failures)


@pytest.mark.asyncio
async def test_programs_do_the_same_on_a_rough_backend() -> None:
    """Also deletions by query, which the core does one by one."""
    report = await programs.run(Store("rough", "rough", config={"seed": 4}), programs=40, seed=_SEED)

    print(f"seed {_SEED}")
    assert not report.failures, "\n\n".join(report.failures)


@pytest.mark.asyncio
async def test_what_is_sorted_here_is_kept_short_and_no_page_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a scan, only as many as the page needs are kept, and one more, which tells that there is more."""
    monkeypatch.setattr(plan, "_LARGEST_SCAN", 5)
    async with await AsyncDatabase.create("rough", {"evaluates": "nothing", "page": 3}) as db:
        await db.create_batch([Record({"n": n * 7 % 40}, id=f"{n:02}") for n in range(40)])
        query = Query().sort("n", "desc")
        found: list[int] = []
        cursor: str | None = None

        while True:
            page = await db.page(query, size=2, cursor=cursor)
            found += [record.data["n"] for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break

        assert found == list(range(39, -1, -1))


@pytest.mark.asyncio
async def test_a_deletion_by_query_rechecks_what_changed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records that others write after they were read are deleted only if they still match."""
    async with await AsyncDatabase.create("rough", {"evaluates": "nothing"}) as db:
        await db.create_batch([Record({"n": 1}, id=id) for id in "abc"])
        write, meddled = db._backend.write, False

        async def meddling(
            collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
        ) -> list[ItemResult]:
            nonlocal meddled
            if kind is WriteKind.DELETE and not meddled:
                meddled = True
                await db.update("b", {"other": True})
                await db.update("c", {"n": 2})
            return await write(collection, kind, mutations, atomic=atomic)

        monkeypatch.setattr(db._backend, "write", meddling)

        assert await db.delete_where(field("n") == 1) == 2
        assert [record.id for record in await db.search(Query())] == ["c"]


@pytest.mark.asyncio
async def test_a_cursor_goes_on_with_its_own_secret_only() -> None:
    """Also in another process; one of another secret, or of none, is refused."""

    async def page(config: dict[str, str], cursor: str | None = None) -> Any:
        async with await AsyncDatabase.create("rough", config) as db:
            await db.create_batch([Record({"n": n}, id=f"{n}") for n in range(4)])
            return await db.page(Query().sort("n"), size=2, cursor=cursor)

    secrets: list[dict[str, str]] = [{"cursor_secret": "one"}, {"cursor_secret": "other"}, {}]
    for mine in secrets:
        cursor = (await page(mine)).cursor
        for theirs in secrets:
            if theirs is mine:
                assert [record["n"] for record in (await page(theirs, cursor)).records] == [2, 3]
            else:
                with pytest.raises(QueryError, match="secret"):
                    await page(theirs, cursor)


@pytest.mark.asyncio
async def test_a_backend_of_another_package_is_found_by_name_and_scheme() -> None:
    """By its entry point; its config is checked as ours are."""
    async with await AsyncDatabase.create("rough", {}) as by_name:
        assert by_name.backend == "rough"
    async with await AsyncDatabase.open("rough://?evaluates=nothing") as by_url:
        assert by_url.config.evaluates == "nothing"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="evaluates"):
        AsyncDatabase("rough", {"evaluate": "nothing"})


def test_the_part_of_any_that_every_store_evaluates_keeps_what_it_can() -> None:
    """What is negated, or a list, says nothing of separate paths; the rest narrows the candidates."""
    some = field("items").any((field("sku") == "x") & ~(field("n") == 1) & (field("n") > 0))
    assert positive_part(some) == (field("items.sku") == "x") & (field("items.n") > 0)
    assert positive_part(field("items").any(~(field("n") == 1))) == field("items").exists()
    either = field("items").any((field("sku") == "x") | ~(field("n") == 1))
    assert positive_part(either) == field("items").exists()
