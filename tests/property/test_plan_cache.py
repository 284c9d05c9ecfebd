"""A statement that is bound is the one that compiling gives."""

from __future__ import annotations

import dataclasses
import random

import pytest

from isthmus import Query, field
from isthmus._core.columns import DeclaredColumn
from isthmus._core.executor import PageRequest
from isthmus._path import parse_path
from isthmus._query.ast import TRUE, And, Equal, Not, Or, Predicate
from isthmus._query.normalize import flatten, normalize
from isthmus._query.plan_cache import PlanCache, _probe
from isthmus._query.shape import shape_of, with_operands
from isthmus._query.split import split
from isthmus._value import replace
from isthmus.backends.postgres.sql.columns import StoredColumn
from isthmus.backends.postgres.sql.select import select_count, select_page
from isthmus.backends.postgres.sql.table import IndexedPaths, Table
from isthmus.backends.postgres.support import SUPPORT
from isthmus.testing.queries import QueryMaker
from isthmus.testing.records import everyday_set, nasty_set
from tests.breadth import size
from tests.differential.repeated import operands_in

A, B, T = parse_path("a"), parse_path("b"), parse_path("t")

_COLUMNS = {
    A: StoredColumn(DeclaredColumn(A, "number"), "c1"),
    B: StoredColumn(DeclaredColumn(B, "text"), "c2"),
}


def _tables() -> dict[str, Table]:
    indexed = IndexedPaths(numbers=frozenset({A}), texts=frozenset({B}), elements=frozenset({T}))
    return {
        "plain": Table("public", "x", IndexedPaths()),
        "indexed": Table("public", "x", indexed),
        "every element": Table("public", "x", IndexedPaths(every_element=True)),
        "columns": dataclasses.replace(Table("public", "x", indexed), columns=_COLUMNS),
        "psycopg": Table("public", "x", IndexedPaths(), "text[]::jsonb[]"),
    }


def _predicates(rng: random.Random, count: int) -> list[tuple[Predicate, dict[type, list[object]]]]:
    """Return predicates that have a shape, each with operands to ask them with."""
    found = []
    while len(found) < count:
        records = rng.choice((everyday_set, nasty_set))(rng)
        maker, operands = QueryMaker(rng, records), operands_in(records.records)
        for _ in range(40):
            where = maker.generate().predicate
            if shape_of(where) is not None:
                found.append((where, operands))
    return found


@pytest.mark.parametrize("name", list(_tables()))
def test_a_bound_statement_is_the_one_that_compiling_gives(name: str) -> None:
    """For random predicates, each asked several times with other operands: text and arguments are equal."""
    rng = random.Random(11)
    kept = _tables()[name]
    for where, operands in _predicates(rng, size(60, 1_500)):
        shaped = shape_of(where)
        assert shaped is not None
        order = rng.choice((None, (), Query().sort("a", "desc").order, Query().sort("b").sort("a").order))
        for _ in range(4):
            values = [rng.choice(operands[kind]) for kind in shaped.shape.kinds]
            asked = with_operands(where, iter(values))  # type: ignore[arg-type]
            request = PageRequest(asked, order, 5)
            fresh = _tables()[name]

            assert repr(select_page(kept, request)) == repr(select_page(fresh, request))
            assert repr(select_count(kept, asked)) == repr(select_count(fresh, asked))
    assert kept.plans.hits > 0


def test_a_predicate_that_is_not_split_would_be_split_into_itself() -> None:
    """Where the planner takes a short cut by the shape, splitting gives the predicate and no residual."""
    rng = random.Random(12)
    for where, _ in _predicates(rng, size(100, 3_000)):
        shaped = shape_of(where)

        if shaped is not None and shaped.shape.is_normal:
            parts = split(where, SUPPORT.pushdown)
            assert parts.residual != TRUE or parts.pushed == where
            assert normalize(where) == where


def test_known_shapes_are_bound_and_not_compiled() -> None:
    """The third query of a shape with usual operands is not compiled, whatever the operands are."""
    cache = PlanCache()
    compiled = []

    def compile(where: Predicate) -> tuple[str, list[object]]:
        compiled.append(where)
        return "SELECT $1", [where.value]  # type: ignore[union-attr]

    for n in (5, 6):
        cache.statement("page", field("a") == n, compile)
    before = len(compiled)

    assert cache.statement("page", field("a") == 7, compile) == ("SELECT $1", [7])
    assert len(compiled) == before
    assert cache.hits == 1


def test_a_statement_that_depends_on_values_is_compiled_each_time() -> None:
    """A compiler that looks at an operand's value, or at a part of it, is not fooled by the cache."""

    def by_size(where: Predicate) -> tuple[str, list[object]]:
        value = where.value  # type: ignore[union-attr]
        return ("SELECT 1" if value > 100_000 else "SELECT 2"), [value]

    def by_part(where: Predicate) -> tuple[str, list[object]]:
        return "SELECT $1", [where.value[:1]]  # type: ignore[union-attr]

    numbers, texts = PlanCache(), PlanCache()
    for n in (1, 2, 3, 200_000, 4):
        where = field("a") == n
        assert numbers.statement("page", where, by_size) == by_size(where)
    for text in ("x", "yes", "no", "maybe"):
        where = field("a") == text
        assert texts.statement("page", where, by_part) == by_part(where)
    assert numbers.hits == texts.hits == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (field("a") == 1, field("a") == 1.5),
        (field("a") == 1, field("a") == "1"),
        (field("a") == 1, field("a") == 0),
        (field("a") == 1, field("a") == True),  # noqa: E712
        (field("a") == True, field("a") == False),  # noqa: E712
        (field("a") == 0, field("a") == False),  # noqa: E712
        (field("a") == 0, field("a") == 0.0),
        (field("a") == 1, field("a") == 2**53),
        (field("a") == 2**53, field("a") == 2**53 + 1),
        (field("a") == 1.5, field("a") == 1e300),
        (field("a") == 1.5, field("a") == 1.0),
        (field("a") == "x", field("a") == ""),
        (field("a") == "x", field("a") == "x" * 101),
        (field("a") == 1, field("b") == 1),
        (field("a") == 1, field(["a", "b"]) == 1),
        (field("a.b") == 1, field(["a.b"]) == 1),
        (field("_id") == "x", field(["_id"]) == "x"),
        (field("a") < 1, field("a") <= 1),
        (field("a").in_([1, 2]), field("a").in_([1, 2, 3])),
        (field("a").in_([1, "x"]), field("a").in_([1, 2])),
        (field("a").like("x%"), field("a").like("y%")),
        (field("a").like("x%"), field("a").ilike("x%")),
        (field("a").starts_with("x"), field("a").ends_with("x")),
        (field("a").exists(), ~field("a").exists()),
        ((field("a") == 1) & (field("b") == 2), (field("a") == 1) | (field("b") == 2)),
    ],
)
def test_what_decides_a_statement_is_part_of_the_shape(one: Predicate, other: Predicate) -> None:
    """Operators, paths, kinds, patterns, lengths and unusual values make another shape."""
    first, second = shape_of(one), shape_of(other)

    assert first is not None
    assert second is not None
    assert first.shape is not second.shape


@pytest.mark.parametrize(
    "where",
    [
        field("a") == [1],
        field("a") == {"b": 1},
        field("a").regex("x"),
        field("a").any(field("b") == 1),
        field("a").in_(list(range(51))),
        field("a").like("x" * 501),
    ],
)
def test_other_predicates_have_no_shape(where: Predicate) -> None:
    """They are compiled each time."""
    assert shape_of(where) is None


def test_a_deep_predicate_has_no_shape() -> None:
    """Up to eight levels of `and` and `or` are walked for a shape, by recursion."""
    where = field("n") == 1
    for level in range(1, 10):
        where = Or((field("m") == level, where)) if level % 2 else And((field("m") == level, where))
        assert (shape_of(where) is not None) == (level <= 8)


def test_another_index_or_column_is_another_table_with_no_statements() -> None:
    """Whatever a statement depends on, statements compiled before are not used for it."""
    table = Table("public", "x", IndexedPaths())
    where = field("a") == "x"
    for _ in range(3):
        plain = select_count(table, where)
    columns = {A: StoredColumn(DeclaredColumn(A, "text"), "c1")}
    declared = dataclasses.replace(table, columns=columns)
    indexed = dataclasses.replace(table, indexed=IndexedPaths(elements=frozenset({A})))

    assert table.plans.hits == 1
    for _ in range(3):
        assert select_count(declared, where).text != plain.text
        assert select_count(indexed, where).text != plain.text


def test_flat_conditions_mean_the_same() -> None:
    """Ands in Ands are joined; a predicate without them stays the object that it is."""
    a, b, c = field("a") == 1, field("b") == 2, field("c") == 3

    assert flatten(a & b) == And((a, b))
    assert flatten(Query().filter(a & b).filter(c).where) == And((a, b, c))
    assert flatten(Query().filter(a).where) is a
    assert flatten(TRUE) is TRUE
    assert flatten(replace(Query(), where=a | b).where) == a | b


def test_no_two_places_have_one_probe() -> None:
    """Else a template that mixes up two operands would pass."""
    for kind in (str, int, float):
        for turn in range(3):
            probes = [_probe(kind, index, turn) for index in range(60)]
            assert len(set(probes)) == len(probes)
            assert {type(probe) for probe in probes} == {kind}


@pytest.mark.parametrize("levels", [1, 8, 9, 50])
def test_a_deep_tree_has_no_shape(levels: int) -> None:
    """Recursion is bounded, whatever the tree is made of."""
    leaf = Equal(A, 1)
    for wrap in (Not, lambda inner: And((inner, leaf)), lambda inner: Or((leaf, inner))):
        where: Predicate = leaf
        for _ in range(levels):
            where = wrap(where)
        assert (shape_of(where) is None) == (levels > 8)
