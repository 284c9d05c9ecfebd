"""What a test that a run printed needs: `assert_same`, and the short forms of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus._path import Path
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import Bucket, GroupKey
from isthmus._query.codec import _path_from, from_json
from isthmus._record import Record
from tests.differential.checks import Check
from tests.differential.queries import outcome
from tests.stores import Declared, Store, store_of

__all__ = ["Check", "assert_same", "columns", "from_json", "groups"]


def groups(shapes: Sequence[Any]) -> tuple[GroupKey, ...]:
    """Return the group keys of a printed test."""
    return tuple(_group(shape) for shape in shapes)


def _group(shape: Any) -> GroupKey:
    if isinstance(shape, list) and len(shape) == 4:
        path, unit, zone, width = shape
        return Bucket(_path_from(path, "path"), unit, zone, width)
    path = _path_from(shape, "path")
    assert isinstance(path, Path)
    return path


def columns(spec: dict[str, Any]) -> tuple[Measure, ...]:
    """Return the measures of a printed test."""
    return tuple(
        Measure(name, Function(function), None if shape is None else _path_from(shape, "path"), percent)
        for name, (function, shape, percent) in spec.items()
    )


async def assert_same(
    store: Store | str,
    records: Sequence[tuple[str, dict[str, Any], dict[str, Any]]],
    check: Check,
    *,
    declared: Declared | None = None,
) -> None:
    """Load the records and fail with both answers if the store's is not the evaluator's."""
    made = [Record(data, id=id, metadata=metadata) for id, data, metadata in records]
    non_defaults = await outcome(store_of(store) if isinstance(store, str) else store, made, check, declared)
    assert non_defaults is None, f"expected {non_defaults[0]!r}\nactual   {non_defaults[1]!r}"
