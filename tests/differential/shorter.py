"""Shorter programs that still differ, and the tests that they become."""

from __future__ import annotations

import dataclasses
import pprint
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from tests.stores import Declared

Fails = Callable[[list[Any]], Awaitable[bool]]


async def shrink(steps: list[Any], fails: Fails) -> list[Any]:
    """Return a shorter program of those for which `fails` is true."""
    left = 300
    moved = True
    while moved and left > 0:
        moved = False
        for shorter in _shorter(steps):
            left -= 1
            if left <= 0:
                break
            if await fails(shorter):
                steps, moved = shorter, True
                break
    return steps


def _shorter(steps: list[Any]) -> Iterator[list[Any]]:
    size = len(steps)
    step = size // 2
    while step:
        for start in range(0, size, step):
            yield [*steps[:start], *steps[start + step :]]
        step //= 2
    for index, one in enumerate(steps):
        for inner in _shorter(list(one.steps)):
            if inner:
                yield [*steps[:index], dataclasses.replace(one, steps=tuple(inner)), *steps[index + 1 :]]
        if len(one.items) > 1:
            for at in range(len(one.items)):
                items = one.items[:at] + one.items[at + 1 :]
                yield [*steps[:index], dataclasses.replace(one, items=items), *steps[index + 1 :]]
        for at, item in enumerate(one.items):
            if len(item) == 4 and isinstance(item[1], dict) and item[1]:
                smaller = (item[0], {}, {}, item[3])
                items = (*one.items[:at], smaller, *one.items[at + 1 :])
                yield [*steps[:index], dataclasses.replace(one, items=items), *steps[index + 1 :]]


def as_test(
    store: str, steps: Sequence[Any], seen: tuple[int, Any, Any] | None, declared: Declared | None = None
) -> str:
    """Return a test that one can paste, which fails as the program did."""
    listed = pprint.pformat(list(steps), width=100, sort_dicts=False).replace("\n", "\n    ")
    found = (
        "not again"
        if seen is None
        else f"step {seen[0]}\n# memory: {seen[1]!r:.1000}\n# {store}: {seen[2]!r:.1000}"
    )
    given = f", {declared!r}" if declared else ""
    return f"""@pytest.mark.backend({store!r})
@pytest.mark.asyncio
async def test_a_program_does_the_same_here() -> None:
    \"\"\"Found by the differential run.\"\"\"
    steps = {listed}

    assert await difference(store_of({store!r}), steps{given}) is None
# differs at {found}
"""
