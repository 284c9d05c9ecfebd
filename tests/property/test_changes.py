"""Changes of fields: the pure function against another that is written in place, and against the stores."""

from __future__ import annotations

import copy
import math
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from isthmus import AsyncDatabase, field
from isthmus._query.changes import Add, FieldChange, Inc, Max, Min, Pull, Push, Set, Unset, apply_changes
from isthmus._values import INT_MAX, INT_MIN, canonical, encode, same
from isthmus.errors import InvalidRecordError, QueryError
from isthmus.testing import strategies as made

_SETTINGS = settings(max_examples=300, deadline=None, print_blob=True)
_NAMES = ("set", "unset", "inc", "max", "min", "push", "pull", "add")


@st.composite
def _changes(draw: Any) -> FieldChange:
    name = draw(st.sampled_from(_NAMES))
    path = field(draw(st.lists(made.keys, min_size=1, max_size=3)))
    if name == "unset":
        return path.unset()
    if name == "inc":
        return path.inc(draw(st.one_of(made.integers, made.floats)))
    if name in ("max", "min"):
        operands = [draw(st.one_of(made.integers, made.floats, made.texts))]
    else:
        operands = draw(st.lists(made.json_values, min_size=1, max_size=3 if name in ("push", "add") else 1))
    changed: FieldChange = getattr(path, name)(*operands)
    return changed


changes = st.lists(_changes(), min_size=1, max_size=4)


class _RefusedError(Exception):
    pass


def _in_place(data: dict[str, Any], change: FieldChange) -> None:
    """Apply a change to the data itself: slow and obvious, and half-done where it is refused."""
    *parents, last = change.path.keys
    holder: Any = data
    for key in parents:
        if holder.get(key) is None:
            if isinstance(change, Unset | Pull):
                return
            holder[key] = {}
        holder = holder[key]
        if not isinstance(holder, dict):
            raise _RefusedError
    old = holder.get(last)
    is_number = type(old) in (int, float)
    match change:
        case Set(_, value):
            holder[last] = copy.deepcopy(value)  # a later change may reach into it
        case Unset():
            holder.pop(last, None)
        case Inc(_, amount):
            if old is not None and not is_number:
                raise _RefusedError
            number: Any = (old or 0) + amount
            if type(old) is float or type(amount) is float:
                number = float(old or 0) + float(amount)
                if not math.isfinite(number):
                    raise _RefusedError
            elif not INT_MIN <= number <= INT_MAX:
                raise _RefusedError
            holder[last] = number
        case Max(_, value) | Min(_, value):
            alike = is_number if isinstance(value, int | float) else isinstance(old, str)
            if old is not None and not alike:
                raise _RefusedError
            pick = max if isinstance(change, Max) else min
            holder[last] = value if old is None else pick(old, value)
        case Push(_, values) | Add(_, values):
            if old is not None and not isinstance(old, list):
                raise _RefusedError
            holder[last] = elements = list(old or [])
            for value in values:
                if isinstance(change, Push) or all(not same(value, element) for element in elements):
                    elements.append(value)
        case Pull(_, value):
            if old is not None and not isinstance(old, list):
                raise _RefusedError
            if old is not None:
                holder[last] = [element for element in old if not same(element, value)]


@_SETTINGS
@given(made.objects, changes)
@example({}, [field("a").set({}), field("a.b").inc(1)])
def test_changes_apply_as_one_would_by_hand(data: dict[str, Any], chosen: list[FieldChange]) -> None:
    """The data and the operands given stay as they are; a refused change leaves nothing."""
    before, expected, operands = copy.deepcopy(data), copy.deepcopy(data), copy.deepcopy(chosen)
    try:
        for change in chosen:
            _in_place(expected, change)
    except _RefusedError:
        with pytest.raises(InvalidRecordError):
            apply_changes(data, chosen)
    else:
        assert same(apply_changes(data, chosen), canonical(expected))
    assert same(data, before)
    assert chosen == operands


@_SETTINGS
@given(made.objects, changes, changes)
def test_two_calls_are_one_call_with_both(
    data: dict[str, Any], first: list[FieldChange], second: list[FieldChange]
) -> None:
    """Changes of one call apply in order."""
    try:
        apart = apply_changes(apply_changes(data, first), second)
    except InvalidRecordError:
        with pytest.raises(InvalidRecordError):
            apply_changes(data, [*first, *second])
    else:
        assert same(apply_changes(data, [*first, *second]), apart)


def _applied(data: dict[str, Any], chosen: list[FieldChange]) -> dict[str, Any] | str:
    """Return the data after the changes, or the path of the value that refuses one."""
    try:
        return canonical(apply_changes(data, chosen))
    except InvalidRecordError as refusal:
        return refusal.path


@settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(made.objects, changes), min_size=1, max_size=8))
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_modify_is_read_apply_and_replace(
    backend: str,
    tmp_path_factory: pytest.TempPathFactory,
    cases: list[tuple[dict[str, Any], list[FieldChange]]],
) -> None:
    """One by one and in a batch: the record afterwards, or the path of the refusal."""
    import asyncio

    async def run() -> None:
        async with AsyncDatabase(backend, {} if backend == "memory" else {"path": ":memory:"}) as db:
            ids = await db.create_batch([data for data, _ in cases])
            others = await db.create_batch([data for data, _ in cases])
            batch = await db.modify_batch(
                [(id, chosen) for id, (_, chosen) in zip(others, cases, strict=True)],
                atomic=False,
                on_error="collect",
            )
            for id, other, outcome, (data, chosen) in zip(ids, others, batch, cases, strict=True):
                expected = _applied(data, chosen)
                if isinstance(expected, str):
                    with pytest.raises(InvalidRecordError) as caught:
                        await db.modify(id, *chosen)
                    assert caught.value.path == expected
                    assert isinstance(outcome, InvalidRecordError)
                    expected = data
                else:
                    assert await db.modify(id, *chosen) == (await db.require(id)).version
                assert encode((await db.require(id)).data) == encode((await db.require(other)).data)
                assert same((await db.require(id)).data, expected)

    asyncio.run(run())


def test_operands_are_checked_when_a_change_is_built() -> None:
    """A list of texts is no path of lists: what no record holds is refused at once."""
    for build in (lambda: field("n").set(File("x")), lambda: field("n").inc(10**30)):
        with pytest.raises(QueryError):
            build()
