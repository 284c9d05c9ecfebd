"""Repeats operations that failed for a transient reason, within a budget shared by a handle."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, Literal, TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.executor import ItemResult
from isthmus._core.op import Op, Write
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._value import replace
from isthmus.errors import Applied, CircuitOpenError, IsthmusError
from isthmus.layers._ambiguous_writes import ambiguous_error, can_repeat, can_repeat_item, resolve_ambiguity
from isthmus.layers._budget import Budget
from isthmus.layers._call_state import CALL, NO_CALL

R = TypeVar("R")
_log = logging.getLogger("isthmus.retry")


class Retry(Layer):
    """Repeats an operation that failed for a transient reason.

    The budget is shared by all operations of one handle: when the store is down for everybody,
    retries dry up instead of multiplying the load. A write is repeated only if it was certainly not
    applied or cannot be applied twice (`_ambiguous_writes.py`). Of a batch that is not atomic only
    the failed items are repeated. An error of the circuit breaker is never retried.
    """

    order = LayerOrder.RETRY

    def __init__(
        self,
        *,
        attempts: int = 3,
        base: float = 0.05,
        cap: float = 2.0,
        jitter: Literal["decorrelated", "full"] = "decorrelated",
        share: float = 0.08,
        reserve: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
    ) -> None:
        self._attempts = attempts
        self._base = base
        self._cap = cap
        self._full = jitter == "full"
        self._budget = Budget(share, reserve)
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - spreads load, keeps no secret
        self._counts = dict.fromkeys(("retries", "budget_refused", "given_up", "resolved"), 0)

    def metrics(self) -> dict[str, float]:
        """Return the retries made, refused by the budget and given up, and the lost responses resolved."""
        return {**self._counts, "budget_tokens": self._budget.tokens}

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation, and repeat it where that is safe."""
        self._budget.deposit()
        result: Any
        if isinstance(op, Write):
            result = await self._write(op, call_next)
            return result  # type: ignore[no-any-return]
        pauses = self._pauses()
        while True:
            try:
                return await call_next(op)
            except IsthmusError as error:
                pause = self._pause(pauses, error) if can_repeat(op, error) else None
                if pause is None:
                    raise
            # Outside the except block, so that the next failure is not chained to this one.
            await self._rest(pause, ambiguous=False)

    async def _write(self, op: Write, call_next: Next) -> list[ItemResult]:
        """Run a write; repeat it whole or its failed items, and resolve ambiguous outcomes."""
        pauses = self._pauses()
        results: list[ItemResult | None] = [None] * len(op.mutations)
        ambiguous: dict[int, IsthmusError] = {}
        pending = list(range(len(op.mutations)))
        while True:
            part = op if len(pending) == len(op.mutations) else _part(op, pending)
            try:
                answers: list[ItemResult] = await call_next(part)
            except IsthmusError as error:
                if error.applied is Applied.MAYBE:
                    ambiguous.update((index, error) for index in pending if index not in ambiguous)
                pause = self._pause(pauses, error) if can_repeat(part, error) else None
                if pause is None:
                    _fail(results, pending, ambiguous, error)
                    if len(pending) < len(op.mutations):
                        return results  # type: ignore[return-value]  # every result was filled in
                    raise
            else:
                known = {place: ambiguous[index] for place, index in enumerate(pending) if index in ambiguous}
                answers = resolve_ambiguity(part, answers, known)
                self._note(known, answers)
                for index, answer in zip(pending, answers, strict=True):
                    results[index] = answer
                again = _again(op, pending, results, ambiguous)
                pause = self._pause(pauses, results[again[0]]) if again else None
                if pause is None:
                    return results  # type: ignore[return-value]  # every result was filled in
                pending = again
            await self._rest(pause, ambiguous=bool(ambiguous) or len(pending) < len(op.mutations))

    def _note(self, known: dict[int, IsthmusError], answers: list[ItemResult]) -> None:
        if known and not any(isinstance(answers[place], IsthmusError) for place in known):
            self._counts["resolved"] += 1

    def _pauses(self) -> Iterator[float]:
        previous = self._base
        for attempt in range(self._attempts - 1):
            if self._full:
                yield self._random.uniform(0.0, min(self._cap, self._base * 2**attempt))
            else:
                previous = min(self._cap, self._random.uniform(self._base, previous * 3))
                yield previous

    def _pause(self, pauses: Iterator[float], error: ItemResult | None) -> float | None:
        """Return the seconds before the next attempt; None if there is none."""
        if isinstance(error, CircuitOpenError) or not isinstance(error, IsthmusError):
            return None
        pause = next(pauses, None)
        if pause is None:
            self._counts["given_up"] += 1
            return None
        if error.retry_after is not None:
            pause = max(pause, error.retry_after)
        if self._clock.now() + pause >= CALL.get().until:
            return None  # the store's error says more than a deadline's
        if not self._budget.withdraw():
            self._counts["budget_refused"] += 1
            return None
        self._counts["retries"] += 1
        _log.info("%s: %s; again in %.3f s", type(error).__name__, error, pause)
        return pause

    async def _rest(self, pause: float, *, ambiguous: bool) -> None:
        call = CALL.get()
        if call is not NO_CALL:
            call.sent = call.earlier = ambiguous
        await self._clock.sleep(pause)
        if call is not NO_CALL:
            call.sent = True


def _part(op: Write, pending: list[int]) -> Write:
    return replace(op, mutations=[op.mutations[index] for index in pending])


def _again(
    op: Write, pending: list[int], results: list[ItemResult | None], ambiguous: dict[int, IsthmusError]
) -> list[int]:
    """Return the indexes of the items to repeat alone, and record which of them are ambiguous."""
    if op.atomic:
        return []  # all failed or none
    again = [index for index in pending if can_repeat_item(op.kind, op.mutations[index], results[index])]
    if not again:
        return []
    times = Counter(mutation.id for mutation in op.mutations)
    # Of two mutations of one record the later would be overtaken by the repeated earlier one.
    again = [index for index in again if times[op.mutations[index].id] == 1]
    for index in again:
        error = results[index]
        if isinstance(error, IsthmusError) and error.applied is Applied.MAYBE:
            ambiguous.setdefault(index, error)
    return again


def _fail(
    results: list[ItemResult | None],
    pending: list[int],
    ambiguous: dict[int, IsthmusError],
    error: IsthmusError,
) -> None:
    """Set the error of the last attempt as the result of the items that it was for."""
    for index in pending:
        earlier = ambiguous.get(index)
        results[index] = error if earlier is None or earlier is error else ambiguous_error(earlier, error)
    if ambiguous:
        error.applied = Applied.MAYBE
