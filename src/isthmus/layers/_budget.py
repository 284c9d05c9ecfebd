"""The retry budget: a token bucket that all operations of a handle share."""

from __future__ import annotations


class Budget:
    """Each operation deposits a share of a token, each retry withdraws one.

    Over any period the retries are at most `share` of the operations, plus the reserve.
    """

    def __init__(self, share: float, reserve: float) -> None:
        self._share = share
        self._capacity = max(reserve, 1.0)
        self.tokens = float(reserve)

    def deposit(self) -> None:
        """Deposit for one operation."""
        if self.tokens < self._capacity:
            self.tokens = min(self._capacity, self.tokens + self._share)

    def withdraw(self) -> bool:
        """Withdraw a token for one retry; return False if there is none."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
