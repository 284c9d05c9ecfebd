"""Repeats what failed for a passing reason, within a budget that all operations of a handle share."""

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
from isthmus.layers._ambiguous_writes import doubtful, item_repeatable, repeatable, settled
from isthmus.layers._budget import Budget
from isthmus.layers._call_state import CALL, NO_CALL

R = TypeVar("R")
_log = logging.getLogger("isthmus.retry")


class Retry(Layer):
    """Repeats an operation that failed for a passing reason.

    The budget is shared by all operations of one handle: when the store is down for everybody,
    retries dry up instead of multiplying the load. Only what is transient is repeated, and only
    what was not done for sure or cannot be done twice (`_doubt.py`). Of a batch that is not atomic
    the failed items alone are repeated. What the breaker holds back is not repeated: it is to fail
    at once.
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
        """Return retries made, refused by the budget, given up, and lost answers that were resolved."""
        return {**self._counts, "budget_tokens": self._budget.tokens}

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation, and again if that is right."""
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
                pause = self._pause(pauses, error) if repeatable(op, error) else None
                if pause is None:
                    raise
            # Out of the except block, lest the next failure be chained to this one.
            await self._rest(pause, in_doubt=False)

    async def _write(self, op: Write, call_next: Next) -> list[ItemResult]:
        """Run a write; repeat the whole, or the items that failed, and settle what was in doubt."""
        pauses = self._pauses()
        results: list[ItemResult | None] = [None] * len(op.mutations)
        doubts: dict[int, IsthmusError] = {}
        pending = list(range(len(op.mutations)))
        while True:
            part = op if len(pending) == len(op.mutations) else _part(op, pending)
            try:
                answers: list[ItemResult] = await call_next(part)
            except IsthmusError as error:
                if error.applied is Applied.MAYBE:
                    doubts.update((index, error) for index in pending if index not in doubts)
                pause = self._pause(pauses, error) if repeatable(part, error) else None
                if pause is None:
                    _fail(results, pending, doubts, error)
                    if len(pending) < len(op.mutations):
                        return results  # type: ignore[return-value]  # every place was filled
                    raise
            else:
                known = {place: doubts[index] for place, index in enumerate(pending) if index in doubts}
                answers = settled(part, answers, known)
                self._note(known, answers)
                for index, answer in zip(pending, answers, strict=True):
                    results[index] = answer
                again = _again(op, pending, results, doubts)
                pause = self._pause(pauses, results[again[0]]) if again else None
                if pause is None:
                    return results  # type: ignore[return-value]  # every place was filled
                pending = again
            await self._rest(pause, in_doubt=bool(doubts) or len(pending) < len(op.mutations))

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
        """Return how long to wait before the next attempt; None if there is to be none."""
        if isinstance(error, CircuitOpenError) or not isinstance(error, IsthmusError):
            return None
        pause = next(pauses, None)
        if pause is None:
            self._counts["given_up"] += 1
            return None
        if error.retry_after is not None:
            pause = max(pause, error.retry_after)
        if self._clock.now() + pause >= CALL.get().until:
            return None  # the store's error tells more than a deadline's
        if not self._budget.withdraw():
            self._counts["budget_refused"] += 1
            return None
        self._counts["retries"] += 1
        _log.info("%s: %s; again in %.3f s", type(error).__name__, error, pause)
        return pause

    async def _rest(self, pause: float, *, in_doubt: bool) -> None:
        call = CALL.get()
        if call is not NO_CALL:
            call.sent = call.earlier = in_doubt
        await self._clock.sleep(pause)
        if call is not NO_CALL:
            call.sent = True


def _part(op: Write, pending: list[int]) -> Write:
    return replace(op, mutations=[op.mutations[index] for index in pending])


def _again(
    op: Write, pending: list[int], results: list[ItemResult | None], doubts: dict[int, IsthmusError]
) -> list[int]:
    """Return the places of the items to be repeated alone, and note which of them are in doubt."""
    if op.atomic:
        return []  # all failed or none
    again = [index for index in pending if item_repeatable(op.kind, op.mutations[index], results[index])]
    if not again:
        return []
    times = Counter(mutation.id for mutation in op.mutations)
    # Of two changes to one record the later would be overtaken by the repeated earlier.
    again = [index for index in again if times[op.mutations[index].id] == 1]
    for index in again:
        error = results[index]
        if isinstance(error, IsthmusError) and error.applied is Applied.MAYBE:
            doubts.setdefault(index, error)
    return again


def _fail(
    results: list[ItemResult | None], pending: list[int], doubts: dict[int, IsthmusError], error: IsthmusError
) -> None:
    """Put the error of the last attempt in the places of the items that it was for."""
    for index in pending:
        doubt = doubts.get(index)
        results[index] = error if doubt is None or doubt is error else doubtful(doubt, error)
    if doubts:
        error.applied = Applied.MAYBE
