"""Predicates over many records give way to the event loop, and end when nobody waits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import orjson
import pytest

from isthmus import Record, field
from isthmus._core import offload
from isthmus._core.evaluation import select_matching
from isthmus._path import parse_path
from isthmus._query.ast import In, Predicate
from isthmus._query.evaluate import leaf_matches


def _records(*texts: str) -> list[Record]:
    return [
        Record.stored(f"{number}", orjson.dumps({"t": text}), None, "1", 0, 0)
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (field("t").regex("b$"), ["1", "3"]),
        (field("t").like("%b_"), ["2"]),
        (~field("t").contains("b"), ["0"]),
        (field("t").regex("[ab]{1,2000}c"), ["2"]),
    ],
)
@pytest.mark.asyncio
async def test_records_are_found_in_order_on_the_loop_and_off_it(
    predicate: Predicate, expected: list[str]
) -> None:
    """Whether they are short or long."""
    records = _records("a" * 50_000, "ab", "abc", "a" * 100_000 + "b")

    assert [record.id for record in await select_matching(records, predicate)] == expected


@pytest.mark.asyncio
async def test_other_tasks_get_their_turn() -> None:
    """Every few milliseconds of processor time, between cheap records and during long ones."""
    records = _records(*(f"text {number}" for number in range(20_000)), "ab" * 500_000)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    started = time.process_time()
    await select_matching(records, field("t").like("%x%9_") | field("t").regex("a.{50}c"))
    used = time.process_time() - started
    counting.cancel()

    assert turns > used / 0.05


@pytest.mark.asyncio
async def test_the_thread_ends_when_its_caller_is_cancelled() -> None:
    """In the middle of a text."""
    records = _records("ab" * 2_000_000)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await select_matching(records, field("t").regex("(?:a|b)*a(?:a|b){300}c"))

    # All threads are free again: each takes one of the jobs that wait for each other.
    together = threading.Barrier(offload._WORKERS)
    loop = asyncio.get_running_loop()
    jobs = [loop.run_in_executor(offload._executor(), together.wait, 10) for _ in range(offload._WORKERS)]
    assert sorted(await asyncio.gather(*jobs)) == list(range(offload._WORKERS))


def test_many_operands_of_in_are_compared_as_few_are() -> None:
    """By value and type: 1 is 1.0 and not true, an object is none of them."""
    scalars: list[Any] = [
        1,
        0.0,
        True,
        "1",
        "true",
        2**53,
        2**53 + 1,
        -0.5,
        "é",
        "e\u0301",
        "",
        10**18,
        1e300,
    ]
    found: list[Any] = [
        *scalars,
        1.0,
        0,
        False,
        -0.0,
        float(2**53),
        2,
        "x",
        {},
        {"a": 1},
        [1],
        [["é"]],
        [],
        None,
    ]
    for kept in (scalars, scalars[:9], scalars[3:]):
        leaf = In(parse_path("v"), tuple(kept))
        for value in found:
            record = Record({"v": value})
            few = any(leaf_matches(In(leaf.path, (operand,)), record) for operand in kept)
            assert leaf_matches(leaf, record) is few, (value, kept)
