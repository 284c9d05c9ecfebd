"""A seeded slice of the run on files."""

from __future__ import annotations

import os

import pytest

from tests.differential import files, queries
from tests.files.seeded import FORMATS, SeededStore

pytestmark = [pytest.mark.backend("files"), pytest.mark.asyncio]
SEED = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))


async def test_random_folders_mean_what_the_model_says() -> None:
    """Formats, dialects, types of columns and damaged rows."""
    report = await files.run(queries.Plan(300, SEED, per_set=15))

    assert not report.failures, "\n\n".join(report.failures)


@pytest.mark.parametrize("format", [pytest.param(f, marks=pytest.mark.breadth(3)) for f in FORMATS])
async def test_generated_queries_mean_what_the_evaluator_says(format: str) -> None:
    """On whole records, nasty ones among them."""
    report = await queries.run(SeededStore(format, "files"), queries.Plan(100, SEED, per_set=50))

    assert not report.failures, "\n\n".join(report.failures)
