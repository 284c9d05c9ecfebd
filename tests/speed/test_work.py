"""No change makes a record cost more calls or memory than is written down."""

import pytest

from tests.speed.work import GROWTH, bounds, cases, counted

PARAMETERS = [
    pytest.param(backend, job, marks=pytest.mark.backend(backend), id=f"{backend}-{job}")
    for backend, job in cases()
]


@pytest.mark.parametrize(("backend", "job"), PARAMETERS)
def test_a_record_costs_no_more_work_than_is_allowed(backend: str, job: str) -> None:
    """Calls that isthmus makes for each record, and bytes that it takes, stay within tests/speed/bounds.json.

    The counts are the same on a busy machine. If more work is worth it, say so in the commit and
    write new bounds: `python -m tests.speed.work --keep`.
    """
    allowed = bounds()[f"{backend} {job}"]

    counts = counted(backend, job)

    assert counts["calls"] <= allowed["calls"], counts
    assert counts["bytes"] <= allowed["bytes"], counts
    assert counts["growth"] <= GROWTH, "the work for each record grows with their number"


def test_the_count_sees_more_work() -> None:
    """Looking at each record costs calls and bytes that carrying it does not."""
    carried, looked_at = counted("sqlite", "search"), counted("sqlite", "search_and_decode")

    assert looked_at["calls"] >= carried["calls"] + 1
    assert looked_at["bytes"] > carried["bytes"] * 1.5


def test_every_bound_belongs_to_a_case() -> None:
    """A job that is renamed leaves no bound behind."""
    assert set(bounds()) == {f"{backend} {job}" for backend, job in cases()}
