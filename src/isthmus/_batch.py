"""The outcomes of a batch: a list of results, or an error with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from isthmus._arguments import shorten
from isthmus._core.executor import ItemResult
from isthmus.errors import Applied, BatchError, IsthmusError, NotWrittenError, UsageError

T = TypeVar("T")
OnError: TypeAlias = Literal["raise", "collect"]


class Outcomes(list[T], Generic[T]):
    """One outcome for each item, in order: the method's result, or (collected) the item's error.

    If no item failed it is a plain list of ids, versions or bools.
    """

    @property
    def errors(self) -> dict[int, IsthmusError]:
        """The errors by the item's index in the batch."""
        if self.ok:
            return {}
        return {i: item for i, item in enumerate(self) if isinstance(item, IsthmusError)}

    @property
    def ok(self) -> bool:
        """Whether no item failed."""
        # A large batch has few types, and finding them takes no Python step for each item.
        return not any(issubclass(kind, IsthmusError) for kind in set(map(type, self)))


def resolve_outcomes(method: str, results: Sequence[ItemResult], on_error: OnError) -> Outcomes[Any]:
    """Return the outcomes, or raise `BatchError` with them if an item failed and errors are raised."""
    outcomes: Outcomes[Any] = Outcomes(results)
    if on_error == "raise":
        errors = outcomes.errors
        if errors:
            raise BatchError(_summary(method, len(outcomes), errors), outcomes=outcomes)
    return outcomes


def _summary(method: str, size: int, errors: dict[int, IsthmusError]) -> str:
    causes = {i: e for i, e in errors.items() if not isinstance(e, NotWrittenError)} or errors
    shown = "; ".join(f"item {i}: {error}" for i, error in list(causes.items())[:3])
    more = f"; and {len(causes) - 3} more" if len(causes) > 3 else ""
    written = size - len(errors)
    unknown = sum(error.applied is Applied.MAYBE for error in errors.values())
    state = "nothing was written" if written == unknown == 0 else f"{written} were written"
    if unknown:
        state += f", {unknown} may have been"
    return f"{method}: {len(causes)} of {size} items failed, {state}. {shown}{more}"


def check_on_error(on_error: str) -> OnError:
    """Return the argument if it is 'raise' or 'collect'; raises `UsageError`."""
    if on_error not in ("raise", "collect"):
        raise UsageError(f"on_error is 'raise' or 'collect', got {shorten(on_error)}")
    return on_error  # type: ignore[return-value]
