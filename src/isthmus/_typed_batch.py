"""Batches of a typed collection in which some items are refused before they are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

from isthmus._batch import OnError, Outcomes, check_on_error, resolve_outcomes
from isthmus._core.apply import not_written
from isthmus._core.executor import ItemResult
from isthmus._record import Record
from isthmus.errors import InvalidRecordError, IsthmusError

Item: TypeAlias = Record | tuple[Any, ...]
"""What a method of `Collection` takes: a record, or a tuple that begins with an id."""


async def write_valid(
    method: str,
    run: Callable[..., Awaitable[Outcomes[Any]]],
    items: Sequence[Item | InvalidRecordError],
    on_error: OnError,
    *,
    atomic: bool | None,
    atomic_by_default: bool,
) -> Outcomes[str]:
    """Write the valid items; the outcome of an invalid one is its error, and an atomic batch writes none."""
    check_on_error(on_error)
    valid = [item for item in items if not isinstance(item, InvalidRecordError)]
    if len(valid) == len(items):
        return cast("Outcomes[str]", await run(valid, on_error=on_error, atomic=atomic))
    results: list[ItemResult]
    if atomic_by_default if atomic is None else atomic:
        results = [
            item if isinstance(item, InvalidRecordError) else not_written(_with_id(item)) for item in items
        ]
    else:
        outcomes = iter(await run(valid, on_error="collect", atomic=atomic))
        results = [item if isinstance(item, IsthmusError) else next(outcomes) for item in items]
    return resolve_outcomes(f"{method}_batch", results, on_error)


def _with_id(item: Item) -> Record:
    return item if isinstance(item, Record) else Record({}, id=item[0])
