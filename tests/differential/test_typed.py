"""A seeded slice of the run of typed queries."""

import pytest

from tests.breadth import size
from tests.differential import typed
from tests.seeds import drawn
from tests.stores import parameters, store_of


@pytest.mark.parametrize("store", parameters())
@pytest.mark.asyncio
async def test_typed_queries_find_what_untyped_ones_find(store: str) -> None:
    """As lambdas and by name, with models as they were written, and groups in the model's types."""
    where = store_of(store)
    quick = where.backend in ("memory", "sqlite", "postgres")

    ran = await typed.run(where, n=size(150, 2_000) if quick else size(30, 300), seed=drawn())

    print("\n".join(typed.lines(ran)))
    assert ran.failures == []
