"""The check and the page follow from the stored figures."""

from typing import Any

import pytest
from benchmarks.report import check, page
from benchmarks.report.targets import MET, NOT_MET, NOT_RUN, Cell, TargetRow, load_targets, state_of


def stored(ours: float | None, theirs: float | None, **figures: float) -> dict[str, Any]:
    """Return a stored row of a job with two sides."""
    return {"job": {"sides": {"ours": {"median": ours}, "bare": {"median": theirs}}, "figures": figures}}


@pytest.mark.parametrize(
    ("cell", "row", "state"),
    [
        (Cell("job", "bare", most=1.25), stored(1.2, 1.0), MET),
        (Cell("job", "bare", most=1.25), stored(1.3, 1.0), NOT_MET),
        (Cell("job", "bare", faster=4), stored(1.0, 4.0), MET),
        (Cell("job", "bare", faster=4), stored(1.0, 3.9), NOT_MET),
        (Cell("job", "bare", most=1.25), stored(1.0, None), NOT_RUN),
        (Cell("job", "pool", most=1.25), stored(1.0, 1.0), NOT_RUN),
        (Cell("other", "bare", most=1.25), stored(1.0, 1.0), NOT_RUN),
        (Cell("job", seconds=0.1), stored(0.1, None), MET),
        (Cell("job", seconds=0.1), stored(0.11, None), NOT_MET),
        (Cell("job", figure="MB", most=16), stored(1.0, 1.0, MB=15.0), MET),
        (Cell("job", figure="MB", most=0), stored(1.0, 1.0, MB=1.0), NOT_MET),
        (Cell("job", runs=True), stored(1.0, None), MET),
        (Cell("job", runs=True), stored(None, None), NOT_RUN),
    ],
)
def test_the_stored_figures_decide_a_target(cell: Cell, row: dict[str, Any], state: str) -> None:
    """A side that failed or is not stored leaves a target not run; it is never taken as met."""
    assert cell.verdict(row).state == state


def test_a_row_is_met_only_if_each_of_its_targets_is() -> None:
    """One target that is missed or not run decides the row."""
    good, bad, unrun = Cell("job", "bare", most=2), Cell("job", "bare", most=0.5), Cell("x", runs=True)

    def state(*cells: Cell) -> str:
        return state_of(TargetRow("speed", "row", list(cells)).verdicts(stored(1.0, 1.0)))

    assert [state(good), state(good, bad), state(good, unrun), state(bad, unrun)] == [
        MET,
        NOT_MET,
        NOT_RUN,
        NOT_MET,
    ]


def test_a_target_that_is_missed_needs_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make bench-check` names a target without a reason, and fails."""
    rows = [TargetRow("speed", str(n), [Cell("job", "bare", most=2)]) for n in range(9)]
    explained = TargetRow("speed", "explained", [Cell("job", "bare", most=0.5, reason="The disk.")])
    unexplained = TargetRow("speed", "unexplained", [Cell("job", "bare", most=0.5)])
    monkeypatch.setattr(check, "load_rows", lambda: stored(1.0, 1.0))
    monkeypatch.setattr(check, "load_runs", dict)

    monkeypatch.setattr(check, "load_targets", lambda: [*rows, explained])
    assert check.main() == 0
    assert "The disk." in capsys.readouterr().out

    monkeypatch.setattr(check, "load_targets", lambda: [*rows, unexplained])
    assert check.main() == 1
    assert "no reason is written for:\n  job, at most 0.5x bare" in capsys.readouterr().out


def test_every_target_says_one_thing() -> None:
    """A target is a ratio to a side, a time, a figure, or that it runs; a name is used once."""
    rows = list(load_targets())

    for cell in (cell for row in rows for cell in row.cells):
        kinds = [bool(cell.against), bool(cell.figure), cell.seconds is not None, cell.runs]
        assert sum(kinds) == 1, cell
        assert (cell.most is None) != (cell.faster is None) or cell.runs or cell.seconds is not None, cell
    assert len({row.name for row in rows}) == len(rows)


def test_the_page_is_the_one_that_the_stored_figures_make() -> None:
    """`make bench-page` was run after the last change of results, reasons or profiles."""
    assert page.PAGE.read_text() == page.render()
