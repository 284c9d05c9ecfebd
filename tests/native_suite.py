"""The shipped suite on tables that others made: a value may be refused by name, nothing else may fail."""

from __future__ import annotations

import abc
import functools
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus._core.executor import Page
from isthmus._core.op import Fetch, Op, Open, Read
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._record import Record, make_record
from isthmus._value import replace
from isthmus.errors import BatchError, InvalidRecordError, IsthmusError
from isthmus.testing import conformance

Test = Callable[..., Awaitable[None]]
R = TypeVar("R")

KEY, VERSION = "the key", "the version"
"""Columns of the tables that the suite's records do not have as fields."""
_TIMES = "a native table has no times (meaning §8)"
WITHOUT_TIMES = {
    "test_created_at_stays_and_updated_at_moves": _TIMES,
    "test_times_are_aware_and_a_new_record_was_updated_when_it_was_created": _TIMES,
}
"""Tests of what the contract promises of isthmus's own tables only."""
_NULL = "a null is stored as NULL and comes back missing (meaning §8)"
WITHOUT_TIMES_AND_NULL = {
    **WITHOUT_TIMES,
    "test_null_is_stored_and_missing_is_not": _NULL,
    "test_mixed_types_in_one_field_are_all_stored": _NULL,
}
_READ_BACK = "test_a_value_is_read_back_with_the_same_type"
"""Of a null likewise."""


def suite_fields() -> list[str]:
    """Return the fields that the suite's records have."""
    names: dict[str, None] = {}
    for module in sorted(Path(conformance.__file__).parent.glob("*.py")):
        names |= dict.fromkeys(re.findall(r'"([A-Za-z]\w*)":', module.read_text()))
    return list(names)


def one_case(names: list[str]) -> list[str]:
    """Return names for a store whose columns ignore case: of two that differ by it only, the lower one."""
    return list({name.lower(): name for name in sorted(names, key=str.islower)}.values())


class OwnerLayer(Layer):
    """Makes tables, as their owner, and hides the key and the version in what is read."""

    order = LayerOrder.CACHE
    in_transaction = True
    ops = (Open, Read, Fetch)

    @abc.abstractmethod
    async def make(self, table: str) -> None:
        """Make a table, if there is none of this name."""

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        if isinstance(op, Open):
            await self.make(op.collection)
        result: Any = await call_next(op)
        if isinstance(op, Read):
            result = [None if record is None else _hide(record) for record in result]
        elif isinstance(result, Page):
            result = replace(result, records=[_hide(record) for record in result.records])
        return result  # type: ignore[no-any-return]


def _hide(record: Record) -> Record:
    data = {name: value for name, value in record.data.items() if name not in (KEY, VERSION)}
    return make_record(record.id or "", data, {}, record.version, None, None)


async def check_keys(db: AsyncDatabase, ids: list[str], unknown: str) -> None:
    """Assert that a search shows rows by these ids, in this order, and that each is found by its own.

    The table has a column `n`, which is 7 afterwards, and the first row is deleted; `unknown` is no row's id.
    """
    assert [record.id for record in await db.search()] == ids
    first = await db.page(Query(), size=1)
    second = await db.page(Query(), size=5, cursor=first.cursor)
    assert [record.id for record in [*first.records, *second.records]] == ids
    assert sorted([record.id or "" async for record in db.stream()]) == ids
    for id in ids:
        assert (await db.require(id)).id == id
        assert await db.count(field("_id") == id) == 1
        await db.update(id, {"n": 7})
    assert await db.get_batch([*ids, unknown]) == [*await db.search(), None]
    assert await db.count(field("n") == 7) == len(ids)
    assert await db.delete(ids[0])
    assert not await db.delete(unknown)


class Outcomes:
    """What became of the suite's tests; `reasons` are the words of a refusal.

    `is_contradicted` says of a test, by its name and arguments, that the contract (meaning §8) promises what
    it asks of isthmus's own tables only; it then has to fail with `failure`, whose text matches `match`.
    """

    def __init__(
        self,
        *,
        reasons: tuple[str, ...],
        is_contradicted: Callable[[str, Mapping[str, Any]], bool],
        failure: tuple[type[Exception], ...],
        match: str,
    ) -> None:
        self._reasons = reasons
        self._is_contradicted = is_contradicted
        self._failure, self._match = failure, match
        self.counts: Counter[str] = Counter()

    def _is_refusal(self, error: IsthmusError) -> bool:
        if isinstance(error, BatchError):
            return any(
                isinstance(item, InvalidRecordError) and self._is_refusal(item) for item in error.outcomes
            )
        return isinstance(error, InvalidRecordError) and any(reason in str(error) for reason in self._reasons)

    def watch(self, test: Test) -> Test:
        """Return a test of the suite that passes too if a value is refused by name."""

        @functools.wraps(test)
        async def run(**arguments: Any) -> None:
            if self._is_contradicted(test.__name__, arguments):
                with pytest.raises(self._failure, match=self._match):
                    await test(**arguments)
                self.counts["contradicted"] += 1
                return
            try:
                await test(**arguments)
            except IsthmusError as error:
                if not self._is_refusal(error):
                    raise
                self.counts["refused"] += 1
            else:
                self.counts["kept"] += 1

        return run

    def check(self, share: float) -> None:
        """Assert that more than this share of the tests was kept, if more than a few ran."""
        total = sum(self.counts.values())
        assert total < 20 or self.counts["kept"] > share * total, self.counts


def outcomes_of_json() -> Outcomes:
    """Return what to expect of tables that have a column of JSON for each field."""
    return Outcomes(
        reasons=("the table has no column", "no place for metadata"),
        is_contradicted=lambda test, arguments: (
            test in WITHOUT_TIMES_AND_NULL or (test == _READ_BACK and arguments["name"] == "null")
        ),
        failure=(AssertionError, KeyError),
        match=r"None|'v'",
    )
