"""A seeded slice of the run of queries for each store."""

from __future__ import annotations

import os

import pytest

from tests.differential import queries
from tests.differential.__main__ import EXACT
from tests.stores import parameters, store_of

# Of a run on a busy machine: some seconds for each store.
_SLICE = {
    "memory": 1_000,
    "sqlite": 4_000,
    "postgres": 2_000,
    "elasticsearch": 600,
    "s3-object": 200,
    "s3-log": 200,
}


@pytest.mark.parametrize("store", parameters())
@pytest.mark.asyncio
async def test_generated_queries_mean_what_the_evaluator_says(store: str) -> None:
    """Every answer equals the evaluator's, ids in order; everyday queries are exact at the store."""
    seed = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))
    where = store_of(store)

    report = await queries.run(where, queries.Plan(_SLICE.get(store, 500), seed, per_set=100))

    print("\n".join(queries.lines(report, exact_required=where.backend in EXACT)), f"\nseed {seed}")
    assert not report.failures, "\n\n".join(report.failures)
    assert report.tally.shortcomings(exact_required=where.backend in EXACT) == []
