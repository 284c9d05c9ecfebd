"""The stores of a parity run, and the outcome of each test on each of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.Enum):
    """The result of a test."""

    PASSED = "passed"
    REFUSED = "refused"
    """The store lacks the capability, and the call raised `UnsupportedError` as the test expects."""
    FAILED = "FAILED"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class StoreColumn:
    """A store: its name on the page, how to open it, and the versions of its server and driver."""

    name: str
    backend: str
    settings: Mapping[str, Any] = field(repr=False)
    """The config for `AsyncDatabase.create`, without the collection; may contain secrets."""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one test on one store."""

    promise: str
    test: str
    case: str
    """The parameters of the test; empty if it has none."""
    column: str
    verdict: Verdict
    capability: str = ""
    """The missing capability, if the verdict is `REFUSED`."""
    why: str = ""
    """The error message, or the reason for a skip; empty if the test passed."""
