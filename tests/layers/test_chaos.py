"""The chaos layer, and the promise that it is for: nothing is doubled, nothing acknowledged is lost."""

from __future__ import annotations

from random import Random

import pytest

from isthmus import Applied, AsyncDatabase, BatchError, IsthmusError
from isthmus.testing.chaos import Chaos
from isthmus.testing.clock import VirtualClock


class Fast(AsyncDatabase):
    """A handle whose pauses take no time."""

    _clock = VirtualClock(auto=True)


async def _run(seed: int) -> tuple[dict[str, int], list[str]]:
    chaos = Chaos(seed=seed, refused=0.1, lost=0.1, dropped=0.1)
    db = await Fast.create("memory", {"resilience": "batch", "layers": {"chaos": chaos}})
    outcome = []
    for number in range(200):
        try:
            await db.create({"n": number})
            outcome.append("done")
        except IsthmusError as error:
            outcome.append(error.applied.value)
    return chaos.struck, outcome


@pytest.mark.asyncio
async def test_the_same_seed_fails_the_same_way() -> None:
    """A failure can be repeated."""
    assert await _run(7) == await _run(7)
    assert await _run(7) != await _run(8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.asyncio
async def test_under_chaos_nothing_is_lost_or_doubled(seed: int) -> None:
    """Each acknowledged record is there once; one of unknown outcome is there once or not at all."""
    chaos = Chaos(seed=seed, refused=0.15, lost=0.15, dropped=0.15, busy=0.05)
    db = await Fast.create("memory", {"resilience": "batch", "layers": {"chaos": chaos}})
    sizes = Random(seed)
    acknowledged: set[int] = set()
    unknown: set[int] = set()
    number = 0
    for _ in range(150):
        batch = list(range(number, number := number + sizes.randrange(1, 6)))
        try:
            await db.create_batch([{"n": n} for n in batch], atomic=sizes.random() < 0.5)
            acknowledged.update(batch)
        except BatchError as error:
            for n, outcome in zip(batch, error.outcomes, strict=True):
                if isinstance(outcome, str):
                    acknowledged.add(n)
                elif outcome.applied is Applied.MAYBE:
                    unknown.add(n)
        except IsthmusError as error:
            if error.applied is Applied.MAYBE:
                unknown.update(batch)

    found = [record["n"] for record in await _without_chaos(db)]

    assert min(chaos.struck[name] for name in ("refused", "lost", "dropped")) > 10
    assert len(found) == len(set(found))
    assert acknowledged <= set(found) <= acknowledged | unknown


async def _without_chaos(db: AsyncDatabase) -> list[dict[str, int]]:
    return [dict(record) for table in db._backend._committed.tables.values() for record in table.values()]  # type: ignore[attr-defined]


def test_shares_beyond_one_are_refused() -> None:
    """They would not mean anything."""
    with pytest.raises(ValueError, match="at most 1"):
        Chaos(seed=1, lost=0.6, refused=0.6)
