"""Rewrites that keep the meaning: flat trees without constants, double negations or long alternatives."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus._path import Path, Root
from isthmus._query.ast import FALSE, TRUE, And, AnyObject, Equal, In, Not, Or, Predicate
from isthmus._values import Scalar, kind_of


def normalize(predicate: Predicate) -> Predicate:
    """Return an equivalent tree: nested And/Or flattened, constants folded, `~~p` undone.

    Alternatives of equalities on one path become one `In`, and so do the inequalities of an And
    under `Not`: stores answer it by one look-up, where thousands of terms take minutes. The order of
    terms stays. `x >= a and x <= b` does not become a between: on lists they differ.
    """
    match predicate:
        case And(terms):
            return _flatten(And, terms, absorbing=FALSE)
        case Or(terms):
            return _flatten(Or, terms, absorbing=TRUE)
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
        case AnyObject(path, where):
            inner = normalize(where)
            # The attributes of a record are texts.
            has_objects = path.root in (Root.DATA, Root.METADATA)
            return AnyObject(path, inner) if has_objects and inner != FALSE else FALSE
        case leaf:
            return leaf


def flatten(predicate: Predicate) -> Predicate:
    """Return an equivalent predicate without an And in an And; of one that has none, itself.

    What `filter` and scopes make; so that most predicates need no other rewriting.
    """
    if type(predicate) is not And:
        return predicate
    terms = predicate.terms
    if len(terms) != 1 and And not in map(type, terms):
        return predicate
    flat: list[Predicate] = []
    for term in map(flatten, terms):
        if type(term) is And:
            flat.extend(term.terms)
        else:
            flat.append(term)
    return flat[0] if len(flat) == 1 else And(tuple(flat))


_REWRITTEN = (And, Or, Not, In, AnyObject)
"""The kinds of nodes that `normalize` may change: thousands of other leaves are not even looked at."""


def _flatten(kind: type[And] | type[Or], terms: tuple[Predicate, ...], *, absorbing: Predicate) -> Predicate:
    flat: list[Predicate] = []
    for given in terms:
        term = normalize(given) if isinstance(given, _REWRITTEN) else given
        if isinstance(term, kind):
            flat.extend(term.terms)  # none, if it is the neutral constant
        elif term == absorbing:
            return absorbing
        else:
            flat.append(term)
    flat = _fold_equalities(flat, negated=kind is And)
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def _fold_equalities(terms: list[Predicate], *, negated: bool) -> list[Predicate]:
    """Return terms with the equalities on each path merged into the first of them."""
    equalities = [_equality(term, negated=negated) for term in terms]
    values: dict[Path, list[Scalar]] = {}
    for found in equalities:
        if found is not None:
            values.setdefault(found[0], []).extend(found[1])
    folded: list[Predicate] = []
    done: set[Path] = set()
    for term, found in zip(terms, equalities, strict=True):
        if found is None or len(values[found[0]]) == len(found[1]):
            folded.append(term)
        elif found[0] not in done:
            done.add(found[0])
            merged = In(found[0], _distinct(values[found[0]]))
            folded.append(Not(merged) if negated else merged)
    return folded


def _equality(term: Predicate, *, negated: bool) -> tuple[Path, tuple[Scalar, ...]] | None:
    if negated:
        if not isinstance(term, Not):
            return None
        term = term.term
    if isinstance(term, In):
        return term.path, term.values
    if isinstance(term, Equal) and not isinstance(term.value, dict):
        return term.path, (term.value,)
    return None


def _distinct(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    # True == 1 as a key of a dictionary, but not as a value of a record.
    return tuple({(kind_of(value), value): value for value in values}.values())
