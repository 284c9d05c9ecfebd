"""A seeded slice of the run on random native tables of PostgreSQL."""

from __future__ import annotations

import os

import pytest

from tests.differential import native_postgres
from tests.differential.queries import Plan
from tests.servers import server


@pytest.mark.backend("postgres")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.asyncio
async def test_queries_on_tables_that_others_made_mean_what_the_evaluator_says(driver: str) -> None:
    """Whatever types, keys, collations, indexes and stored values the table has."""
    seed = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))

    report = await native_postgres.run(server("postgres").url, Plan(400, seed, per_set=40), driver=driver)

    assert not report.failures, "\n\n".join(report.failures)
    assert report.tally.queries == 400
