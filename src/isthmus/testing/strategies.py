"""Hypothesis strategies for JSON values, records, predicates and orders."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from isthmus._path import Path, Root
from isthmus._query.ast import And, AnyObject, Not, Or, Predicate, SortKey
from isthmus._query.field import comparison
from isthmus._record import Record
from isthmus._values import INT_MAX, INT_MIN, canonical
from isthmus.errors import QueryError
from isthmus.testing import values
from isthmus.testing.queries import COMPARISONS, EVERYDAY, ORDERED, TEXT_OPERATORS, WITHOUT_OPERAND

# Text that every store can hold: no lone surrogates, no U+0000.
texts = st.one_of(
    st.sampled_from(values.TEXTS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
integers = st.one_of(st.sampled_from(values.INTEGERS), st.integers(INT_MIN, INT_MAX))
floats = st.one_of(st.sampled_from(values.FLOATS), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(st.booleans(), integers, floats, texts)
keys = st.sampled_from(("a", "b", "c", "a.b", "", "é", "_id"))
json_values = st.recursive(
    st.one_of(st.none(), scalars),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(keys, json_values, max_size=4).map(canonical)
records = st.builds(
    lambda data, number, metadata: Record(data, id=f"k{number}", metadata=metadata),
    objects,
    st.integers(0, 10**9),
    objects,
)
data_paths = st.lists(keys, min_size=1, max_size=3).map(lambda parts: Path(Root.DATA, tuple(parts)))
paths = st.one_of(
    data_paths,
    st.sampled_from((Path(Root.ID, ()), Path(Root.METADATA, ("a",)))),
)
patterns = st.text(st.sampled_from("ab%_\\.é\n"), max_size=6)
regexes = st.sampled_from(("a", "^a", "a$", "[ab]+", "(?i)A", ".", r"\d+", "a|b", "^$", r"\ba"))


@st.composite
def leaves(draw: Any, everyday: bool = False, paths: st.SearchStrategy[Path] = paths) -> Predicate:
    """Draw one comparison; `everyday` limits it to scalars and the operators that all stores support."""
    op = draw(st.sampled_from(EVERYDAY if everyday else COMPARISONS))
    path = draw(paths)
    if op in WITHOUT_OPERAND:
        return comparison(path, op)
    if op in ("in", "not_in"):
        operand: Any = draw(st.lists(scalars if everyday else json_values, max_size=4))
    elif op in ("between", "not_between"):
        operand = draw(
            st.one_of(*(st.tuples(kind, kind) for kind in (texts, integers, floats, st.booleans())))
        )
    elif op == "regex":
        operand = draw(regexes)
    elif op in TEXT_OPERATORS:
        operand = draw(patterns)
    else:
        operand = draw(scalars if everyday or op in ORDERED else json_values)
    try:
        return comparison(path, op, operand)
    except QueryError:
        return comparison(path, "exists")


def _trees(leaf: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, max_size=3).map(lambda terms: And(tuple(terms))),
            st.lists(inner, max_size=3).map(lambda terms: Or(tuple(terms))),
        ),
        max_leaves=6,
    )


_inside = leaves(paths=data_paths)
any_objects: st.SearchStrategy[Predicate] = st.builds(
    AnyObject,
    data_paths,
    _trees(st.one_of(_inside, _inside, st.builds(AnyObject, data_paths, _trees(_inside)))),
)
predicates: st.SearchStrategy[Predicate] = _trees(st.one_of(leaves(), leaves(), leaves(), any_objects))
orders = st.lists(st.builds(SortKey, paths, st.booleans(), st.booleans()), max_size=3).map(tuple)
