"""What a copy changes on the way: fields renamed or left out, and a hook for the rest."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from isthmus import Record, UsageError

Transform: TypeAlias = "Callable[[Record], Record | None | Awaitable[Record | None]]"


class Shape:
    """A field mapping and a transform hook, applied in this order to each record.

    `fields` gives for a path (`"address.city"`) its new path, or None to leave it out; fields that
    are not named stay. `transform` gets a Record and returns the one to write, or None to leave it
    out; it may be a coroutine function, and must give the same answer when it is asked again. The
    id may change only in a way that keeps the order of ids.
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
        """Whether a record may leave otherwise than it came."""
        return bool(self._moves) or self._transform is not None

    def __str__(self) -> str:
        """Return what is changed, to recognise the same copy by; a hook is known by its name."""
        moves = [
            f"{'.'.join(source)}>{'' if target is None else '.'.join(target)}"
            for source, target in self._moves
        ]
        if self._transform is not None:
            moves.append(f"{self._transform.__module__}:{self._transform.__qualname__}")
        return ", ".join(moves)

    async def apply(self, records: list[Record]) -> list[Record]:
        """Return the records to write; the same list, undecoded, if nothing is changed."""
        if not self.changes:
            return records
        shaped = []
        for record in records:
            result: Any = self._moved(record) if self._moves else record
            if self._transform is not None:
                result = self._transform(result)
                if inspect.isawaitable(result):
                    result = await result
            if result is None:
                continue
            if not isinstance(result, Record):
                raise UsageError(f"transform: returned {type(result).__name__}, not a Record or None")
            shaped.append(
                result
                if result.id is not None
                else Record(result.data, id=record.id, metadata=result.metadata)
            )
        return shaped

    def _moved(self, record: Record) -> Record:
        data = copy.deepcopy(record.data)
        # All are taken out before any is put back, so that two fields can change places.
        taken = [(target, _take(data, source)) for source, target in self._moves]
        for target, value in taken:
            if target is not None and value is not _NOTHING:
                _put(data, target, value)
        return Record(data, id=record.id, metadata=record.metadata)


_NOTHING = object()


def _take(data: Any, keys: tuple[str, ...]) -> Any:
    for key in keys[:-1]:
        data = data.get(key) if isinstance(data, dict) else None
    return data.pop(keys[-1], _NOTHING) if isinstance(data, dict) else _NOTHING


def _put(data: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.get(key)
        if not isinstance(inner, dict):
            inner = data[key] = {}
        data = inner
    data[keys[-1]] = value
