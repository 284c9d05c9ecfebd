"""The shipped suite on tables that others made: a value may be refused by name, nothing else may fail."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from isthmus.errors import BatchError, InvalidRecordError, IsthmusError

Test = Callable[..., Awaitable[None]]


class Outcomes:
    """What became of the suite's tests; `reasons` are the words of a refusal.

    `is_contradicted` says of a test, by its name and arguments, that the contract (meaning §8) promises what
    it asks of isthmus's own tables only; it then has to fail with `failure`, whose text matches `match`.
    """

    def __init__(
        self,
        *,
        reasons: tuple[str, ...],
        is_contradicted: Callable[[str, Mapping[str, Any]], bool],
        failure: tuple[type[Exception], ...],
        match: str,
    ) -> None:
        self._reasons = reasons
        self._is_contradicted = is_contradicted
        self._failure, self._match = failure, match
        self.counts: Counter[str] = Counter()

    def _is_refusal(self, error: IsthmusError) -> bool:
        if isinstance(error, BatchError):
            return any(
                isinstance(item, InvalidRecordError) and self._is_refusal(item) for item in error.outcomes
            )
        return isinstance(error, InvalidRecordError) and any(reason in str(error) for reason in self._reasons)

    def watch(self, test: Test) -> Test:
        """Return a test of the suite that passes too if a value is refused by name."""

        @functools.wraps(test)
        async def run(**arguments: Any) -> None:
            if self._is_contradicted(test.__name__, arguments):
                with pytest.raises(self._failure, match=self._match):
                    await test(**arguments)
                self.counts["contradicted"] += 1
                return
            try:
                await test(**arguments)
            except IsthmusError as error:
                if not self._is_refusal(error):
                    raise
                self.counts["refused"] += 1
            else:
                self.counts["kept"] += 1

        return run

    def check(self, share: float) -> None:
        """Assert that more than this share of the tests was kept, if more than a few ran."""
        total = sum(self.counts.values())
        assert total < 20 or self.counts["kept"] > share * total, self.counts
