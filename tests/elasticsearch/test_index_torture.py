"""A slice of `make index-torture`: whatever becomes of an index, no acknowledged record is missed."""

from __future__ import annotations

import asyncio

import pytest

from tests.breadth import size
from tests.elasticsearch.index_torture import Torture
from tests.seeds import drawn

pytestmark = pytest.mark.backend("elasticsearch")


def test_indices_that_change_under_writers_and_readers(url: str) -> None:
    """Deleted, remade with other types, taken by others; aliases swapped, filtered and widened."""
    torture = Torture(url, drawn())
    asyncio.run(torture.run(changes=size(4, 20)))

    assert torture.faults == []
    assert torture.counts["records checked"] > 0
    assert torture.counts["writes acknowledged"] > 0
    assert torture.counts["reads answered"] > 0
