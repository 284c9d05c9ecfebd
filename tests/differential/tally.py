"""What a run covered: selectivity, exactness, and every operator with every type."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from isthmus._core.executor import Support
from isthmus._path import Root
from isthmus._query.ast import AnyObject, leaves
from isthmus._query.split import Pushdown
from isthmus.testing.queries import COMPARISONS, KINDS, GeneratedPredicate, operand_kinds

EXACT_SHARE = 0.99
# Among fewer leaves than these, chance alone makes some more of the rare kind that is not exact.
ENOUGH_LEAVES, FEW_EXACT_SHARE = 1_000, 0.97
SOME_SHARE = 0.40
_FIELDS = (Root.DATA, Root.METADATA, Root.ID)
# A cell of the table has at least this many comparisons in a run of CELL_RUN queries or more.
CELL, CELL_RUN = 100, 20_000


@dataclass(slots=True)
class Tally:
    """Counts over one run, and what in them falls short."""

    everyday_only: bool = False
    queries: int = 0
    some: int = 0
    repeated: int = 0
    verbs: Counter[str] = field(default_factory=Counter)
    grades: Counter[Pushdown] = field(default_factory=Counter)
    operands: Counter[tuple[str, str]] = field(default_factory=Counter)
    stored: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(
        self, verb: str, made: GeneratedPredicate, records: int, support: Support, *, everyday: bool
    ) -> None:
        """Count one query."""
        self.queries += 1
        self.verbs[verb] += 1
        self.some += 0 < len(made.matching) < records
        for used in made.comparisons:
            self.operands[used.op, used.operand or "none"] += 1
            self.stored.update((used.op, kind) for kind in used.stored)
        if everyday:
            # `any` is none of the everyday operators, of which the share is required, and a record's times
            # and version are none of its fields: Elasticsearch has no text of them for a pattern.
            everyday_leaves = (
                leaf
                for leaf in leaves(made.predicate)
                if not isinstance(leaf, AnyObject) and leaf.path.root in _FIELDS
            )
            self.grades.update(map(support.pushdown, everyday_leaves))

    def merge(self, other: Tally) -> None:
        """Count in what another process counted."""
        self.queries += other.queries
        self.some += other.some
        self.repeated += other.repeated
        for mine, theirs in (
            (self.verbs, other.verbs),
            (self.grades, other.grades),
            (self.operands, other.operands),
            (self.stored, other.stored),
        ):
            mine.update(theirs)  # type: ignore[arg-type]

    @property
    def exact_share(self) -> float | None:
        """The share of EXACT leaves in everyday queries; None if there were none."""
        total = self.grades.total()
        return self.grades[Pushdown.EXACT] / total if total else None

    def inexact(self) -> str | None:
        """Return what to say if too few leaves of everyday queries were EXACT."""
        needed = EXACT_SHARE if self.grades.total() >= ENOUGH_LEAVES else FEW_EXACT_SHARE
        if self.exact_share is None or self.exact_share >= needed:
            return None
        return f"EXACT leaves on everyday queries: {self.exact_share:.2%} < {needed:.0%}"

    def required(self) -> int:
        """Return how many comparisons each cell must have; in a short run fewer, as chance has it."""
        return CELL if self.queries >= CELL_RUN else self.queries * CELL // CELL_RUN // 5

    def shortcomings(self, *, exact_required: bool) -> list[str]:
        """Return what the run should have covered and did not."""
        short = []
        if exact_required and (told := self.inexact()) is not None:
            short.append(told)
        if self.queries and self.some / self.queries < SOME_SHARE:
            short.append(
                f"queries that select some but not all: {self.some / self.queries:.1%} < {SOME_SHARE:.0%}"
            )
        if not self.everyday_only:
            for op in COMPARISONS:
                for counts, kinds in ((self.operands, operand_kinds(op)), (self.stored, KINDS)):
                    for kind in kinds:
                        if counts[op, kind] < self.required():
                            name = "operands" if counts is self.operands else "stored values"
                            short.append(f"{op} on {kind} {name}: {counts[op, kind]} < {self.required()}")
            if self.stored["any", "object"] < self.required():
                short.append(f"any on stored objects: {self.stored['any', 'object']} < {self.required()}")
        return short

    def table(self) -> str:
        """Return operators by types: comparisons with such an operand / on paths that hold such values."""
        lines = ["operator      " + "".join(f"{kind:>15}" for kind in KINDS) + "   (operands/stored)"]
        for op in (*COMPARISONS, "any"):
            cells = "".join(f"{self.operands[op, kind]:>8}/{self.stored[op, kind]:<6}" for kind in KINDS)
            lines.append(f"{op:<14}{cells}")
        return "\n".join(lines)
