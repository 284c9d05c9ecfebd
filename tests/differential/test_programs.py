"""A seeded slice of the run of programs for each store."""

from __future__ import annotations

import os

import pytest

from tests.differential import programs
from tests.stores import parameters, store_of

_SLICE = {"sqlite": 40, "postgres": 20, "elasticsearch": 8, "s3-object": 8, "s3-log": 8}


@pytest.mark.parametrize("store", parameters("memory"))
@pytest.mark.asyncio
async def test_generated_programs_do_what_they_do_on_memory(store: str) -> None:
    """Each answer and the end state are the same; ids and versions that the library makes apart."""
    seed = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))

    report = await programs.run(store_of(store), programs=_SLICE.get(store, 8), seed=seed)

    print(f"{report.programs} programs of {report.steps} steps, seed {seed}")
    assert not report.failures, "\n\n".join(report.failures)
