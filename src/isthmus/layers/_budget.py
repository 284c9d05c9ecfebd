"""How many retries there may be: a token bucket that all operations of a handle share."""

from __future__ import annotations


class Budget:
    """Each operation pays in a share of a token, each retry takes one out.

    Over any time the retries are at most `share` of the operations, plus the reserve.
    """

    def __init__(self, share: float, reserve: float) -> None:
        self._share = share
        self._most = max(reserve, 1.0)
        self.tokens = float(reserve)

    def deposit(self) -> None:
        """Pay in for one operation."""
        if self.tokens < self._most:
            self.tokens = min(self._most, self.tokens + self._share)

    def withdraw(self) -> bool:
        """Take a token for one retry; False when there is none."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
