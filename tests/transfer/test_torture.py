"""The copy torture at a length that fits a test; `make copy-torture` runs it in full."""

from __future__ import annotations

import pytest

from tests import servers
from tests.seeds import drawn
from tests.transfer.torture import LEGS, torture


@pytest.mark.backend("sqlite")
@pytest.mark.timeout(240)
def test_a_copy_that_is_killed_four_times_is_equal_at_the_end() -> None:
    """Each kill is a SIGKILL in the middle; no record is lost or doubled."""
    seed = drawn()

    outcome = torture(3_000, 4, seed=seed, kinds=("sqlite", "sqlite", "sqlite"), page=100)

    assert outcome.problems(3_000, 4) == []


@pytest.mark.backend("postgres")
@pytest.mark.timeout(280)
def test_a_copy_through_all_stores_is_equal_at_the_end() -> None:
    """PostgreSQL, Elasticsearch, S3, SQLite and back, with a kill on each leg."""
    for kind in ("postgres", "elasticsearch", "s3"):
        servers.server(kind)
    seed = drawn()

    outcome = torture(1_500, 4, seed=seed, kinds=LEGS, page=100)

    assert outcome.problems(1_500, 4) == []
