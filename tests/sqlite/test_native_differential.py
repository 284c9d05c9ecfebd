"""Random tables made by SQL: what a native layout answers is what the evaluator says of their rows."""

from __future__ import annotations

import os

import pytest

from tests.breadth import size
from tests.differential import native_sqlite
from tests.differential.queries import Plan

SEED = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))


@pytest.mark.backend("sqlite")
@pytest.mark.asyncio
async def test_random_tables_mean_the_same() -> None:
    """Types, affinities, collations, keys, indexes, views and cells; a difference prints the statements."""
    report = await native_sqlite.run(Plan(size(240, 2_000), SEED, per_set=30))

    print(f"seed {SEED}, {report.tally.queries} queries on {report.sets} tables")
    assert not report.failures, "\n\n".join(report.failures)
