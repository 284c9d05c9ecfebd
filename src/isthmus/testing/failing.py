"""Values whose own code fails while they are converted, and values that are finer than a store's."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, field_serializer


class NotATime(dt.datetime):
    """A datetime like pandas' `NaT`."""

    def utcoffset(self) -> dt.timedelta | None:
        """Fail, as `NaT` does."""
        raise ValueError("NaT does not support utcoffset")


class FineTime(dt.datetime):
    """A datetime like pandas' `Timestamp`, with nanoseconds."""

    nanosecond = 0


class _Mapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


class _Dict(dict[str, Any]):
    def keys(self) -> Any:
        raise RuntimeError("no keys")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")


class _List(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no items")


class _Int(int):
    def __int__(self) -> int:
        raise ArithmeticError


@dataclasses.dataclass(slots=True)
class _Unset:
    x: int = dataclasses.field(init=False)


class _Serialized(BaseModel):
    x: int = 1

    @field_serializer("x")
    def fail(self, x: int) -> int:
        raise ValueError("no serialization")


class _Enum(enum.Enum):
    A = _List([1])


class _Mute(dict[str, Any]):
    """An object whose exception has no text."""

    def __iter__(self) -> Iterator[str]:
        class MuteError(Exception):
            def __str__(self) -> str:
                raise ValueError

        raise MuteError

    keys: Any = __iter__


FAILING: dict[str, Callable[[], Any]] = {
    "a view with gaps": lambda: memoryview(b"abcdef")[::2],
    "a time that is none": lambda: NotATime(2020, 1, 1),
    "a zone without an offset": lambda: dt.datetime(2020, 1, 1, tzinfo=dt.tzinfo()),  # type: ignore[abstract]
    "a dataclass with an unset slot": _Unset,
    "a model that cannot be serialized": _Serialized,
    "a mapping without keys": _Mapping,
    "a dict without keys": lambda: _Dict(a=1),
    "a list without items": lambda: _List([1]),
    "an int that is none": lambda: _Int(1),
    "an enum of such a list": lambda: _Enum.A,
    "an exception without a text": lambda: _Mute(a=1),
}
"""A function for each value, which makes it."""

__all__ = ["FAILING", "FineTime", "NotATime"]
