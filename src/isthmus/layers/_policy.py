"""What a handle lets be done client-side."""

from __future__ import annotations

from typing import Literal

from isthmus._query.ast import Predicate, Regex, all_leaves, leaves
from isthmus._query.patterns import check_weight, nonlinear_part
from isthmus._value import Value
from isthmus.errors import QueryError


class Policy(Value):
    """What may be evaluated client-side.

    `residual="refuse"` makes any client-side filtering, sorting or aggregation an `UnsupportedError`.

    `backtracking="refuse"`, the default, makes a regular expression with look-around, a back reference,
    a conditional, an atomic group or a possessive repeat a `QueryError`: Python's own engine is the only
    one for it. `"allow"` takes such a pattern. Its search may take time exponential in the text, hold the
    event loop meanwhile and outlast the deadline, so never allow it for patterns of strangers.
    """

    residual: Literal["allow", "refuse"] = "allow"
    backtracking: Literal["refuse", "allow"] = "refuse"

    def check_patterns(self, where: Predicate) -> None:
        """Raise `QueryError` for patterns too large together, and for one that the policy refuses."""
        found = leaves(where, inner=True)
        check_weight(found)
        if self.backtracking == "allow" or not any(isinstance(leaf, Regex) for leaf in found):
            return
        for leaf in all_leaves(where):
            if isinstance(leaf, Regex) and (part := nonlinear_part(leaf)) is not None:
                raise QueryError(
                    f"{leaf.path} regex: {leaf.pattern[:80]!r} has {part}, which cannot be searched in"
                    " linear time; write it without, or, unless strangers write patterns, allow it with"
                    ' db.options(policy=Policy(backtracking="allow"))'
                )
