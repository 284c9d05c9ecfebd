"""Two commits are compared round by round, each in a process of its own."""

import sys
from pathlib import Path

import pytest
from benchmarks.compare.controller import ROUNDS, SuiteComparison, Worker, summarize
from benchmarks.harness import Measured

PYTHON = Path(sys.executable)


async def compare(old_seconds: float, new_seconds: float) -> tuple[SuiteComparison, int]:
    """Compare the suite with such times of our side; return the comparison and its exit code."""
    workers = [
        await Worker.start(
            PYTHON,
            "tests.speed.compared_suite",
            {"SECONDS": str(seconds), "ISTHMUS_BENCH_SUFFIX": f"-{side}"},
        )
        for side, seconds in (("old", old_seconds), ("new", new_seconds))
    ]
    done = SuiteComparison(*workers)
    try:
        await done.run(lambda: None)
    finally:
        for worker in workers:
            await worker.close()
    return done, summarize("compared_suite", done, workers[0].failure, workers[1].failure, 1.0)


@pytest.mark.asyncio
async def test_a_row_that_is_more_than_a_tenth_worse_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """It is measured twice as often and flagged; a target that it no longer meets is lost."""
    done, code = await compare(1.0, 1.3)
    first = done.comparisons[0]
    shown = capsys.readouterr().out

    assert code == 1
    assert first.worse
    assert (first.ratio, first.spread) == (1.3, (1.3, 1.3))
    assert len(first.old.seconds) == len(first.new.seconds) == 2 * ROUNDS
    assert "1.30 (1.30 … 1.30)  MORE THAN 10% WORSE" in shown
    assert "target not met: at most 1.25x bare; 1.30x (old: met, 1.00x)  LOST" in shown


@pytest.mark.asyncio
async def test_a_row_that_is_a_little_worse_passes() -> None:
    """Seven rounds are enough; its targets are those of both commits, without the rival's."""
    done, code = await compare(1.0, 1.05)

    assert code == 0
    assert [(one.job, one.ratio) for one in done.comparisons[:2]] == [
        ("pg create_batch 10,000", 1.05),
        ("rounds alone", 1.05),
    ]
    assert len(done.comparisons[0].new.seconds) == ROUNDS
    assert [(target.new.cell.wanted, target.new.value, target.lost) for target in done.targets] == [
        ("at most 1.25x bare", 1.05, False),
        ("MB: at most 15", 10.5, False),
    ]


@pytest.mark.asyncio
async def test_a_job_that_the_old_commit_cannot_run_is_not_compared() -> None:
    """It says why; the jobs after it are compared, unless the process has ended."""
    done, code = await compare(1.0, 1.0)
    by_job = {one.job: one for one in done.comparisons}

    assert code == 0
    assert by_job["fails"].ratio is None
    assert by_job["fails"].old.failure == "LookupError: this commit cannot"
    assert by_job["exits"].old.failure == "the process ended with 3"
    assert by_job["after the exit"].line().endswith("not compared: old: the process ended with 3")
    assert by_job["after the exit"].new == Measured([1.0] * ROUNDS)


@pytest.mark.asyncio
async def test_a_suite_that_this_checkout_cannot_run_fails() -> None:
    """Nothing is compared, and the exit code says so."""
    workers = [await Worker.start(PYTHON, "tests.speed.absent", {}) for _ in range(2)]
    done = SuiteComparison(*workers)
    await done.run(lambda: None)
    for worker in workers:
        await worker.close()

    assert done.comparisons == []
    assert "ModuleNotFoundError" in workers[1].failure
    assert summarize("absent", done, workers[0].failure, workers[1].failure, 1.0) == 1
