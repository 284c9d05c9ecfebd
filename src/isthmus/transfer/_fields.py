"""Changes that a copy makes to records: fields renamed or dropped, and a transform function."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from isthmus import Record, UsageError

Transform: TypeAlias = "Callable[[Record], Record | None | Awaitable[Record | None]]"


class Shape:
    """A field mapping and a transform function, applied in this order to each record.

    `fields` maps a path (`"address.city"`) to its new path, or to None to drop it; other fields
    stay. `transform` takes a Record and returns the one to write, or None to drop it; it may be a
    coroutine function and must be deterministic, since a resumed copy may call it again for the
    same record. It may change ids only in a way that keeps their order.

    Raises `UsageError` if two fields would get the same path.
    """

    def __init__(
        self, fields: Mapping[str, str | None] | None = None, transform: Transform | None = None
    ) -> None:
        self._moves = [
            (tuple(source.split(".")), None if target is None else tuple(target.split(".")))
            for source, target in (fields or {}).items()
        ]
        targets = [target for _, target in self._moves if target is not None]
        if len(set(targets)) < len(targets):
            raise UsageError("fields: two fields would get the same name")
        self._transform = transform

    @property
    def changes(self) -> bool:
        """Whether any record may be changed or dropped."""
        return bool(self._moves) or self._transform is not None

    def __str__(self) -> str:
        """Return a description that identifies the same copy; a transform is identified by its name."""
        moves = [
            f"{'.'.join(source)}>{'' if target is None else '.'.join(target)}"
            for source, target in self._moves
        ]
        if self._transform is not None:
            moves.append(f"{self._transform.__module__}:{self._transform.__qualname__}")
        return ", ".join(moves)

    async def apply(self, records: list[Record]) -> list[Record]:
        """Return the records to write; the same list, not decoded, if nothing is changed.

        Raises `UsageError` if the transform returns something other than a Record or None.
        """
        if not self.changes:
            return records
        shaped = []
        for record in records:
            result: Any = self._move_fields(record) if self._moves else record
            if self._transform is not None:
                result = self._transform(result)
                if inspect.isawaitable(result):
                    result = await result
            if result is None:
                continue
            if not isinstance(result, Record):
                raise UsageError(f"transform: returned {type(result).__name__}, not a Record or None")
            if result.id is None:
                result = Record(result.data, id=record.id, metadata=result.metadata)
            shaped.append(result)
        return shaped

    def _move_fields(self, record: Record) -> Record:
        data = copy.deepcopy(record.data)
        # All values are removed before any is inserted, so that two fields can swap names.
        removed = [(target, _pop_path(data, source)) for source, target in self._moves]
        for target, value in removed:
            if target is not None and value is not _MISSING:
                _set_path(data, target, value)
        return Record(data, id=record.id, metadata=record.metadata)


_MISSING = object()


def _pop_path(data: Any, keys: tuple[str, ...]) -> Any:
    for key in keys[:-1]:
        data = data.get(key) if isinstance(data, dict) else None
    return data.pop(keys[-1], _MISSING) if isinstance(data, dict) else _MISSING


def _set_path(data: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.get(key)
        if not isinstance(inner, dict):
            inner = data[key] = {}
        data = inner
    data[keys[-1]] = value
