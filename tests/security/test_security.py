"""A short slice of `make security`, with a new seed each time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from isthmus import AsyncDatabase
from isthmus._ids import new_id
from tests.faults.targets import TARGETS
from tests.security import fuzz, injection, limits, secrets


@pytest.fixture
def seed() -> int:
    """A new seed, printed for a failing test."""
    chosen = Random().randrange(2**32)
    print(f"seed {chosen}")
    return chosen


@pytest.mark.parametrize("parser", fuzz.PARSERS)
def test_parsers_raise_typed_errors_only(parser: str, seed: int) -> None:
    """Whatever comes: a QueryError or a ConfigError, within a second."""
    _, _, wrong = fuzz.fuzz(parser, 3_000, seed)

    assert wrong == []


def test_changed_cursors_are_refused(seed: int) -> None:
    """One character more, less or other: refused."""
    assert fuzz.mutated_cursors(3_000, seed) == []


def test_what_is_meant_to_exhaust_is_refused_early() -> None:
    """Depth, size, patterns: a typed error within a second."""
    _, wrong = asyncio.run(limits.check())

    assert wrong == []


def test_no_secret_is_shown_anywhere() -> None:
    """repr, str, explain, logs at DEBUG, errors, tracebacks, pickles: the canary is on none of them."""
    count, seen = asyncio.run(secrets.surfaces())

    assert seen == []
    assert count > 200


@pytest.mark.parametrize("backend", ["memory", "sqlite", *TARGETS])
def test_hostile_text_is_only_text(backend: str, seed: int, tmp_path: Path) -> None:
    """As value, field, sort key, id and collection name; the statement depends on the shape alone."""

    async def run() -> list[str]:
        if backend == "memory":
            db = await AsyncDatabase.create("memory")
        elif backend == "sqlite":
            db = await AsyncDatabase.open(f"sqlite:///{tmp_path}/s.db")
        else:
            target = TARGETS[backend]
            db = await target.open(target.url(), f"security_{new_id().replace('-', '')}")
        try:
            found = await injection.inject(db, 50, seed)
            named = await injection.names(db, 30, seed)
            await db.clear()
        finally:
            await db.close()
        return found.wrong + named.wrong

    assert asyncio.run(run()) == []
