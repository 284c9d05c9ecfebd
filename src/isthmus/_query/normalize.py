"""Rewrites that keep the meaning: flat trees without constants and double negations."""

from __future__ import annotations

from isthmus._query.ast import FALSE, TRUE, And, In, Not, Or, Predicate


def normalize(predicate: Predicate) -> Predicate:
    """Return an equivalent tree: nested And/Or flattened, constants folded, `~~p` undone.

    The order of terms stays. `x >= a and x <= b` is not made a between: on lists they differ.
    """
    match predicate:
        case And(terms):
            return _flatten(And, terms, neutral=TRUE, absorbing=FALSE)
        case Or(terms):
            return _flatten(Or, terms, neutral=FALSE, absorbing=TRUE)
        case Not(term):
            inner = normalize(term)
            if isinstance(inner, Not):
                return inner.term
            if inner == TRUE:
                return FALSE
            if inner == FALSE:
                return TRUE
            return Not(inner)
        case In(_, ()):
            return FALSE
        case leaf:
            return leaf


def _flatten(
    kind: type[And] | type[Or], terms: tuple[Predicate, ...], *, neutral: Predicate, absorbing: Predicate
) -> Predicate:
    flat: list[Predicate] = []
    for term in map(normalize, terms):
        if term == absorbing:
            return absorbing
        parts = term.terms if isinstance(term, kind) else (term,)
        flat.extend(part for part in parts if part != neutral)
    return flat[0] if len(flat) == 1 else kind(tuple(flat))
