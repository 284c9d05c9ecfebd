"""The patterns of a query are bounded together, by one rule for every store, before they are read."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator

import pytest

from isthmus import AsyncDatabase, Policy, Query, QueryError, field
from isthmus._query.ast import AnyObject, Or, Predicate
from isthmus._query.codec import from_json
from isthmus._query.patterns import MAX_PATTERNS, check_weight, compile_regex, effort
from isthmus._query.split import positive_part

_TEXT = field("t")


@pytest.fixture(autouse=True)
def _engine() -> None:
    """Load the engine and its tables of characters, which the first regex of a process does."""
    compile_regex(r"\w").search("a")


@contextlib.contextmanager
def _cpu_below(seconds: float) -> Iterator[None]:
    """Assert that a block takes less than this CPU time of its thread.

    Without the garbage collector: in a worker that has run thousands of tests one collection takes a second.
    """
    gc.disable()
    started = time.thread_time()
    try:
        yield
        assert time.thread_time() - started < seconds
    finally:
        gc.enable()


def _sets(first: int) -> str:
    """Return a pattern of 40 different sets, each of hundreds of ranges."""
    return "".join(rf"[\w{chr(first + number)}]" for number in range(40))


_TOO_LARGE: dict[str, Callable[[], Predicate]] = {
    "one like": lambda: _TEXT.like("a_" * MAX_PATTERNS),
    "one ilike": lambda: _TEXT.ilike("É" * (MAX_PATTERNS + 1)),
    "regexes": lambda: _any([_TEXT.regex(f"{n}{'b' * 5_000}") for n in range(5)]),
    "repeats": lambda: _any([_TEXT.regex(f"{n}b{{9000}}") for n in range(3)]),
    "sets": lambda: _any([_TEXT.regex(_sets(0x2500 + n)) for n in range(6)]),
    "within any": lambda: field("items").any(_TEXT.like("a" * MAX_PATTERNS) & _TEXT.like("b")),
    "under not": lambda: ~(_TEXT.like("a" * MAX_PATTERNS) & ~_TEXT.ilike("b")),
}


def _any(terms: list[Predicate]) -> Predicate:
    return Query().any_of(*terms).where


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", _TOO_LARGE)
async def test_patterns_that_are_too_large_together_are_refused(kind: str) -> None:
    """Whatever the policy allows; without reading them, which would take the event loop's time."""
    predicate = _TOO_LARGE[kind]()

    async with await AsyncDatabase.create("memory") as db:
        for handle in (db, db.options(policy=Policy(backtracking="allow"))):
            with _cpu_below(0.3), pytest.raises(QueryError, match="20,000 characters together"):
                await handle.count(predicate)


@pytest.mark.asyncio
async def test_patterns_within_the_bound_are_answered() -> None:
    """A pattern of the greatest length, and a thousand small ones."""
    async with await AsyncDatabase.create("memory") as db:
        await db.create_batch([{"t": "x" * 9_999}, {"t": "12c"}, {"t": None}])

        assert await db.count(_TEXT.like("_" * 9_999 + "%")) == 1
        assert await db.count(_TEXT.regex("^x{9990}")) == 1
        assert await db.count(_any([_TEXT.regex(f"^{n}c+$") for n in range(1_000)])) == 1
        assert await db.count(_any([_TEXT.like(f"{n}_") for n in range(1_000)])) == 1


@pytest.mark.parametrize(
    "terms",
    [
        [("regex", f"{n}{'b' * 9_000}") for n in range(500)],
        [("like", "a_" * 500_000)],
        [("not_like", f"%{n}{'_' * 900}") for n in range(500)],
        [("regex", _sets(0x2500 + n)) for n in range(500)],
        [("=", n) for n in range(200_000)],
        [("regex", f"{n}x") for n in range(200_000)],
    ],
    ids=["regexes", "a like", "likes", "sets", "conditions", "many regexes"],
)
def test_too_much_in_json_is_refused_before_it_is_read(terms: list[tuple[str, object]]) -> None:
    """The conditions of a list are counted first, and patterns before they are compiled."""
    shape = {"where": {"or": [{"field": "t", "op": op, "value": value} for op, value in terms]}}

    with _cpu_below(0.3), pytest.raises(QueryError, match="at most"):
        from_json(shape)


def test_the_conditions_of_json_are_counted_wherever_they_are() -> None:
    """Below `not`, `any` and lists in lists, each once."""
    one = {"field": "t", "op": "=", "value": 1}
    fits = {
        "and": [
            {"or": [one] * 5_000},
            {"not": one},
            {"field": "i", "op": "any", "value": {"or": [one] * 4_997}},
        ]
    }
    from_json({"where": fits})

    with pytest.raises(QueryError, match="at most 10000 conditions"):
        from_json({"where": {"and": [fits, {"not": {"or": [one] * 2}}]}})


def test_the_effort_of_a_like_is_known_without_reading_it() -> None:
    """It decides whether a thread reads it."""
    predicate = _TEXT.like("a_" * 5_000_000)

    with _cpu_below(0.1):
        assert effort(predicate) == 10_000_001
        with pytest.raises(QueryError):
            check_weight([predicate])


@pytest.mark.asyncio
async def test_a_deep_any_with_a_wide_condition_takes_no_product_of_both() -> None:
    """Its leaves were copied and its parts normalized at each of 180 levels: ten seconds of the loop."""
    condition = _any([field(f"f{number}") > number for number in range(1_700)])
    for _ in range(180):
        condition = field("a").any(condition)

    async with await AsyncDatabase.create("memory") as db:
        await db.create({"a": 1})
        with _cpu_below(0.5):
            assert await db.count(condition) == 0
            part = positive_part(condition)

    assert isinstance(condition, AnyObject)
    assert isinstance(part, Or)
    assert len(part.terms) == 1_700
