"""A seeded slice of the run on random native tables of MariaDB."""

from __future__ import annotations

import os

import pytest

from tests.breadth import size
from tests.differential import native_mariadb
from tests.differential.queries import Plan
from tests.servers import server


@pytest.mark.backend("sqlalchemy")
@pytest.mark.asyncio
async def test_queries_on_tables_that_others_made_mean_what_the_evaluator_says() -> None:
    """Whatever types, keys, collations, indexes, storage engines and stored values the table has."""
    seed, wanted = int(os.environ.get("ISTHMUS_TEST_SEED", "1")), size(120, 600)

    report = await native_mariadb.run(server("mariadb").url, Plan(wanted, seed, per_set=30))

    assert not report.failures, "\n\n".join(report.failures)
    assert report.tally.queries == wanted
