"""The result of a job on two commits: ratio, spread and targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness import OURS, Measured, format_time
from benchmarks.report.targets import MET, NOT_MET, NOT_RUN, Verdict, verdicts_of

LIMIT = 1.10


@dataclass
class Comparison:
    """One side of a job on both commits, from alternating rounds."""

    job: str
    side: str
    old: Measured = field(default_factory=Measured)
    new: Measured = field(default_factory=Measured)

    @property
    def ratio(self) -> float | None:
        """The new median over the old one; None if a side has no rounds."""
        old, new = self.old.median, self.new.median
        return None if not old or new is None else new / old

    @property
    def spread(self) -> tuple[float, float] | None:
        """The least and the largest ratio of two neighbouring rounds."""
        ratios = [new / old for old, new in zip(self.old.seconds, self.new.seconds, strict=False) if old]
        return (min(ratios), max(ratios)) if ratios else None

    @property
    def worse(self) -> bool:
        """Whether the new commit is more than 10 % worse."""
        return self.ratio is not None and self.ratio > LIMIT

    @property
    def name(self) -> str:
        """The job, and the side where it is not ours."""
        return self.job if self.side == OURS else f"{self.job}: {self.side}"

    def line(self) -> str:
        """Return the line of a table."""
        ratio, spread = self.ratio, self.spread
        if ratio is None or spread is None:
            reason = self.new.failure or self.old.failure or "no rounds"
            side = "new" if self.new.failure else "old"
            return f"{self.name:<58} not compared: {side}: {reason}"
        medians = f"{format_time(self.old.median or 0)} {format_time(self.new.median or 0)}"
        flag = f"  MORE THAN {LIMIT - 1:.0%} WORSE" if self.worse else ""
        return f"{self.name:<58} {medians}  {ratio:5.2f} ({spread[0]:.2f} … {spread[1]:.2f}){flag}"

    def to_json(self) -> dict[str, Any]:
        """Return what is written."""
        return {
            "job": self.job,
            "side": self.side,
            "old": {"median": self.old.median, "seconds": self.old.seconds, "failure": self.old.failure},
            "new": {"median": self.new.median, "seconds": self.new.seconds, "failure": self.new.failure},
            "ratio": self.ratio,
            "spread": self.spread,
            "worse": self.worse,
        }


@dataclass(frozen=True)
class TargetComparison:
    """A target of a job by the figures of both commits."""

    old: Verdict
    new: Verdict

    @property
    def lost(self) -> bool:
        """Whether the old commit met the target and the new one does not."""
        return self.old.state == MET and self.new.state == NOT_MET

    def line(self) -> str:
        """Return the line that is printed below the job's."""
        old = f"old: {self.old.state}, {self.old.shown}" if self.old.shown else "old: not run"
        flag = "  LOST" if self.lost else ""
        return f"  target {self.new.state}: {self.new.cell.wanted}; {self.new.shown} ({old}){flag}"

    def to_json(self) -> dict[str, Any]:
        """Return what is written."""
        return {
            "job": self.new.cell.job,
            "target": self.new.cell.wanted,
            "old": {"state": self.old.state, "value": self.old.value},
            "new": {"state": self.new.state, "value": self.new.value},
            "lost": self.lost,
        }


def compare_targets(
    job: str,
    comparisons: Sequence[Comparison],
    baselines: Mapping[str, Measured],
    old_figures: Mapping[str, float],
    new_figures: Mapping[str, float],
) -> Iterator[TargetComparison]:
    """Yield each target of a job that this run has figures for; a rival takes no part."""
    sides = {name: {"median": side.median} for name, side in baselines.items()}
    old_ours = {one.side: {"median": one.old.median} for one in comparisons}
    new_ours = {one.side: {"median": one.new.median} for one in comparisons}
    old_row = {job: {"sides": {**sides, **old_ours}, "figures": old_figures}}
    new_row = {job: {"sides": {**sides, **new_ours}, "figures": new_figures}}
    for old, new in zip(verdicts_of(job, old_row), verdicts_of(job, new_row), strict=True):
        if new.state != NOT_RUN:
            yield TargetComparison(old, new)
