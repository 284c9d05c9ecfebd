"""The targets as data, and how stored figures stand against them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TARGETS = Path(__file__).with_name("targets.json")

MET, NOT_MET, NOT_RUN = "met", "not met", "not run"
RowsByJob = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One figure to reach: against another side of a job, or an absolute one."""

    job: str
    against: str = ""
    most: float | None = None
    faster: float | None = None
    seconds: float | None = None
    figure: str = ""
    runs: bool = False
    reason: str = ""
    """Why it is not met, and what was tried."""

    @property
    def wanted(self) -> str:
        """The target in words."""
        if self.runs:
            return "runs"
        if self.seconds is not None:
            return f"at most {self.seconds * 1e3:g} ms"
        if self.figure:
            return f"{self.figure}: at most {self.most:g}"
        if self.most is not None:
            return f"at most {self.most:g}x {self.against}"
        return f"at least {self.faster:g}x as fast as {self.against}"

    def verdict(self, rows: RowsByJob) -> Verdict:
        """Return how the rows stand against this target."""
        value = self._value(rows.get(self.job, {}))
        if value is None:
            return Verdict(self, None, NOT_RUN)
        most = self.seconds if self.most is None else self.most
        good = value <= most if most is not None else value >= (self.faster or 0)
        bare = None if good else self._value(rows[self.job], "bare")
        return Verdict(self, value, MET if good else NOT_MET, bare if self.faster is not None else None)

    def _value(self, row: Mapping[str, Any], side: str = "ours") -> float | None:
        if self.figure:
            figure: float | None = row.get("figures", {}).get(self.figure)
            return figure
        sides = row.get("sides", {})
        ours = sides.get(side, {}).get("median")
        if self.runs or ours is None:
            return None if ours is None else 1.0
        if self.seconds is not None:
            return float(ours)
        theirs = sides.get(self.against, {}).get("median")
        if theirs is None:
            return None
        return float(ours / theirs if self.most is not None else theirs / ours)


@dataclass(frozen=True)
class Verdict:
    """How one target stands: met, not met or not run."""

    cell: Cell
    value: float | None
    state: str
    bare: float | None = None
    """The bare driver's value, where ours misses the target."""

    @property
    def shown(self) -> str:
        """The measured value in words."""
        if self.value is None:
            return ""
        if self.cell.runs:
            return "yes"
        if self.cell.seconds is not None:
            return f"{self.value * 1e3:.3g} ms"
        if self.cell.figure:
            return f"{self.value:.3g}"
        bare = f" (bare: {_times(self.bare)})" if self.bare is not None else ""
        return _times(self.value) + bare


def _times(value: float) -> str:
    return f"{value:.2f}x" if value < 100 else f"{value:,.0f}x"


@dataclass(frozen=True)
class TargetRow:
    """One row of a table of targets."""

    table: str
    name: str
    cells: list[Cell] = field(default_factory=list)

    def verdicts(self, rows: RowsByJob) -> list[Verdict]:
        """Return how each of its targets stands."""
        return [cell.verdict(rows) for cell in self.cells]


@functools.cache
def load_targets() -> tuple[TargetRow, ...]:
    """Return each row of the targets."""
    return tuple(
        TargetRow(table, name, [Cell(**{"job": name, **cell}) for cell in cells])
        for table, rows in json.loads(TARGETS.read_text()).items()
        for name, cells in rows.items()
    )


def cells_of(job: str) -> list[Cell]:
    """Return the targets of one job."""
    return [cell for row in load_targets() for cell in row.cells if cell.job == job]


def verdicts_of(job: str, rows: RowsByJob) -> list[Verdict]:
    """Return how each target of one job stands."""
    return [cell.verdict(rows) for cell in cells_of(job)]


def state_of(verdicts: list[Verdict]) -> str:
    """Return a row's state: met if each of its targets is."""
    states = {verdict.state for verdict in verdicts}
    return next(state for state in (NOT_MET, NOT_RUN, MET) if state in states)
