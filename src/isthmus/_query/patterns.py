"""Compiled patterns of a predicate, and what evaluating it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._query.ast import And, In, Like, Not, Or, Predicate, Regex
from isthmus._query.like import compile_like

if TYPE_CHECKING:
    from isthmus._query.regex import BacktrackingPattern, Pattern


def compile_regex(pattern: str) -> Pattern | BacktrackingPattern:
    """Return the compiled regular expression; raises `PatternError` for one that is bad or too large."""
    # The engine and its tables of characters are loaded by the first regex, not at import.
    from isthmus._query.regex import compile_regex

    return compile_regex(pattern)


def nonlinear_part(leaf: Regex) -> str | None:
    """Return the construct that no linear-time engine takes, such as look-around; None if there is none."""
    return compile_regex(leaf.pattern).nonlinear_part


def effort(predicate: Predicate) -> int:
    """Return what the predicate costs for each character of a record, at worst, in units of some 100 ns."""
    match predicate:
        case And(terms) | Or(terms):
            return sum(map(effort, terms))
        case Not(term):
            return effort(term)
        case Regex(_, pattern):
            return compile_regex(pattern).size + 1
        case Like(_, pattern, folded):
            return compile_like(pattern, folded=folded).size
        case In(_, values):
            return 1 + len(values) // 10  # each is compared, whatever the text's length
        case _:
            return 1
