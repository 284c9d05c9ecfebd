"""What typed searches return besides lists: pages, hits and streams of models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Self, TypeAlias, TypeVar

from isthmus._arguments import shorten
from isthmus._record import Record
from isthmus._search_hit import Passage
from isthmus._stream import RecordStream
from isthmus.errors import InvalidRecordError, UsageError

R = TypeVar("R")
T = TypeVar("T")

OnInvalid: TypeAlias = "Literal['raise', 'skip'] | Callable[[InvalidRecordError], object]"
"""What becomes of a stored record that does not match the model."""


@dataclass(frozen=True, slots=True)
class TypedPage(Generic[R]):
    """One page of models, and the cursor of the next page; None after the last."""

    models: list[R]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class TypedHit(Generic[R]):
    """A model found by a ranked search, with its score and highlights as in `Hit`."""

    model: R
    score: float | None
    highlights: Mapping[str, tuple[Passage, ...]]


class TypedStream(Generic[R]):
    """An async iterator over the models of a search that holds one page in memory.

    Use `async with`, or call `aclose()`, to release the resources of a stream that is not read to the end.
    """

    def __init__(self, records: RecordStream, decode: Callable[[Record], R], on_invalid: OnInvalid) -> None:
        self._records = records
        self._decode = decode
        self._on_invalid = on_invalid

    def __aiter__(self) -> Self:
        self._records.__aiter__()
        return self

    async def __anext__(self) -> R:
        while True:
            record = await self._records.__anext__()
            try:
                return self._decode(record)
            except InvalidRecordError as error:
                _pass_over(error, self._on_invalid)

    async def aclose(self) -> None:
        """End the stream and release its resources at the store."""
        await self._records.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def decode_all(items: Iterable[T], decode: Callable[[T], R], on_invalid: OnInvalid) -> list[R]:
    """Return what each item decodes to, without those that `on_invalid` passes over."""
    decoded: list[R] = []
    for item in items:
        try:
            decoded.append(decode(item))
        except InvalidRecordError as error:
            _pass_over(error, on_invalid)
    return decoded


def check_on_invalid(on_invalid: object) -> None:
    """Raise `UsageError` for what is neither a choice nor a function."""
    if on_invalid not in ("raise", "skip") and not callable(on_invalid):
        raise UsageError(
            f"on_invalid is 'raise', 'skip' or a function of the error, got {shorten(on_invalid)}"
        )


def _pass_over(error: InvalidRecordError, on_invalid: OnInvalid) -> None:
    """Raise the error, or leave its record out."""
    if on_invalid == "raise":
        raise error
    if not isinstance(on_invalid, str):
        on_invalid(error)
