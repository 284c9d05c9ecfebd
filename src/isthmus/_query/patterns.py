"""Compiled patterns of a predicate, and what evaluating it costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from isthmus._query.ast import And, In, Leaf, Like, Not, Or, Predicate, Regex
from isthmus.errors import QueryError

if TYPE_CHECKING:
    from isthmus._query.regex import BacktrackingPattern, Pattern


MAX_PATTERNS = 20_000
"""The most characters of all patterns of a query, with the bounded repeats of regexes written out.

Some 50 ms go into reading so many; and one rule for all stores refuses the patterns that would take more.
"""


def compile_regex(pattern: str) -> Pattern | BacktrackingPattern:
    """Return the compiled regular expression; raises `PatternError` for one that is bad or too large."""
    # The engine and its tables of characters are loaded by the first regex, not at import.
    from isthmus._query.regex import compile_regex

    return compile_regex(pattern)


def nonlinear_part(leaf: Regex) -> str | None:
    """Return the construct that no linear-time engine takes, such as look-around; None if there is none."""
    return compile_regex(leaf.pattern).nonlinear_part


def weight(leaf: Leaf) -> int:
    """Return the characters that a leaf's pattern counts towards `MAX_PATTERNS`; 0 if it has none."""
    match leaf:
        case Regex(_, pattern):
            return compile_regex(pattern).weight
        case Like(_, pattern, _):
            return len(pattern)
        case _:
            return 0


def check_weight(found: Iterable[Leaf]) -> None:
    """Raise `QueryError` if the patterns of a query are too large together."""
    patterns = [leaf for leaf in found if isinstance(leaf, Regex | Like)]
    total = sum(len(leaf.pattern) for leaf in patterns)
    if total <= MAX_PATTERNS:  # else they are not even read
        total = sum(map(weight, patterns))
    refuse_weight(total)


def refuse_weight(total: int) -> None:
    """Raise `QueryError` if the patterns of a query that were counted so far are too large together."""
    if total > MAX_PATTERNS:
        raise QueryError(
            f"the patterns of a query have at most {MAX_PATTERNS:,} characters together, with bounded repeats"
            f" written out and large sets of characters counted as several; these have at least {total:,}"
        )


def effort(predicate: Predicate) -> int:
    """Return what the predicate costs for each character of a record, at worst, in units of some 100 ns."""
    match predicate:
        case And(terms) | Or(terms):
            return sum(map(effort, terms))
        case Not(term):
            return effort(term)
        case Regex(_, pattern):
            return compile_regex(pattern).size + 1
        case Like(_, pattern, _):
            return len(pattern) + 1
        case In(_, values):
            return 1 + len(values) // 10  # each is compared, whatever the text's length
        case _:
            return 1
