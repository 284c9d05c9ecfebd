"""What is measured: stores, and the outcome of each test on each."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.Enum):
    """How a test ended."""

    PASSED = "passed"
    REFUSED = "refused"
    """The store cannot; the call raised an `UnsupportedError` that says so, and the test asserts that."""
    FAILED = "FAILED"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Column:
    """A store: its name on the page, how it is opened, and which server and driver answered."""

    name: str
    backend: str
    settings: Mapping[str, Any] = field(repr=False)
    """As `AsyncDatabase.create` takes them, without the collection; may hold secrets."""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test on one store."""

    promise: str
    test: str
    case: str
    """The test's parameters; empty if it has none."""
    column: str
    verdict: Verdict
    capability: str = ""
    """What the store lacks, of a refusal."""
    why: str = ""
