"""The copy torture at a length that fits a test; `make copy-torture` runs it in full."""

from __future__ import annotations

import pytest

from tests import servers
from tests.breadth import size
from tests.seeds import drawn
from tests.transfer.torture import LEGS, torture


@pytest.mark.backend("sqlite")
@pytest.mark.timeout(240)
def test_a_copy_that_is_killed_four_times_is_equal_at_the_end() -> None:
    """Each kill is a SIGKILL in the middle; no record is lost or doubled."""
    seed = drawn()

    count = size(2_000, 3_000)

    outcome = torture(count, 4, seed=seed, kinds=("sqlite", "sqlite", "sqlite"), page=100)

    assert outcome.problems(count, 4) == []


@pytest.mark.backend("postgres")
@pytest.mark.timeout(280)
def test_a_copy_through_all_stores_is_equal_at_the_end() -> None:
    """PostgreSQL, Elasticsearch, S3, SQLite and back, with a kill on each leg."""
    for kind in ("postgres", "elasticsearch", "s3"):
        servers.server(kind)
    seed = drawn()

    count = size(600, 1_500)

    outcome = torture(count, 4, seed=seed, kinds=LEGS, page=50)

    assert outcome.problems(count, 4) == []
