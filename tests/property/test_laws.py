"""Laws that hold for every query and record, tried on generated ones."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import Query, Record
from isthmus._query.ast import And, Not, Or, Predicate, SortKey, leaves
from isthmus._query.codec import from_json, predicate_json, text, to_json
from isthmus._query.cursor import decode_cursor, encode_cursor
from isthmus._query.evaluate import leaf_matches, matches
from isthmus._query.normalize import normalize
from isthmus._query.order import cursor_position, sort_key, sort_records
from isthmus._query.split import Pushdown, split
from isthmus._values import canonical, decode, decode_numeric, encode, same
from isthmus.errors import InvalidRecordError, QueryError
from isthmus.testing import strategies as made

_SETTINGS = settings(max_examples=300, deadline=None, print_blob=True)


@_SETTINGS
@given(made.predicates, made.records)
def test_not_is_the_exact_complement(predicate: Predicate, record: Record) -> None:
    """A predicate is true or false for every record, and `not` is the other one."""
    assert matches(predicate, record) is not matches(Not(predicate), record)


@_SETTINGS
@given(st.lists(made.predicates, max_size=3).map(tuple), made.records)
def test_de_morgan(terms: tuple[Predicate, ...], record: Record) -> None:
    """Not all is some not; not any is all not."""
    negated = tuple(Not(term) for term in terms)

    assert matches(Not(And(terms)), record) is matches(Or(negated), record)
    assert matches(Not(Or(terms)), record) is matches(And(negated), record)


@_SETTINGS
@given(made.predicates, made.records)
def test_normalizing_keeps_the_meaning(predicate: Predicate, record: Record) -> None:
    """And is done after one pass."""
    flat = normalize(predicate)

    assert matches(flat, record) is matches(predicate, record)
    assert predicate_json(normalize(flat)) == predicate_json(flat)


@_SETTINGS
@given(made.predicates, made.records, st.integers(0, 2**32))
def test_pushed_and_residual_is_the_predicate(predicate: Predicate, record: Record, seed: int) -> None:
    """Whatever the grades; and what is pushed, in any superset form, misses no match."""

    def pushdown(leaf: Any) -> Pushdown:
        return random.Random(f"{seed} {text(leaf)}").choice(list(Pushdown))

    def superset(leaf: Any) -> bool:
        if leaf_matches(leaf, record):
            return True
        return (
            pushdown(leaf) is Pushdown.SUPERSET
            and random.Random(f"{seed} {text(leaf)} {record.id}").random() < 0.5
        )

    def upper(tree: Predicate) -> bool:
        match tree:
            case And(terms):
                return all(map(upper, terms))
            case Or(terms):
                return any(map(upper, terms))
            case Not(term):
                return not upper(term)
            case leaf:
                return superset(leaf)

    parts = split(predicate, pushdown)
    expected = matches(predicate, record)

    assert not expected or upper(parts.pushed)
    assert (upper(parts.pushed) and matches(parts.residual, record)) is expected
    assert all(pushdown(leaf) is not Pushdown.NONE for leaf in leaves(parts.pushed))


@_SETTINGS
@given(made.predicates, made.orders, st.none() | st.integers(0, 2**62), st.integers(0, 99))
def test_a_query_comes_back_from_json(
    predicate: Predicate, order: tuple[SortKey, ...], count: int | None, skip: int
) -> None:
    """Through bytes; the same shape and the same meaning."""
    query = Query(predicate, order, count, skip)

    shape = orjson.loads(orjson.dumps(to_json(query)))
    back = from_json(shape)

    assert same(to_json(back), to_json(query))
    assert back.order == order


@_SETTINGS
@given(st.lists(made.records, min_size=1, max_size=4), made.orders)
def test_the_order_is_total(records: list[Record], order: tuple[SortKey, ...]) -> None:
    """Antisymmetric, transitive, and a tie only of a record with itself."""
    places = [cursor_position(record, order) for record in records]

    keys = [sort_key(order)(place) for place in places]
    for a, left in zip(records, keys, strict=True):
        for b, right in zip(records, keys, strict=True):
            assert (left < right) + (right < left) + (left == right) == 1
            assert (left <= right, left >= right, left > right) == (
                not right < left,
                not left < right,
                right < left,
            )
            assert (left == right) == (a.id == b.id) or not order or a.id == b.id
            for third in keys:
                if not (right < left or third < right):
                    assert not third < left
    shuffled = records[::-1]
    distinct = {record.id: record for record in records}
    if len(distinct) == len(records):
        assert [r.id for r in sort_records(shuffled, order)] == [r.id for r in sort_records(records, order)]


@_SETTINGS
@given(made.records, made.orders, made.predicates, st.binary(max_size=8))
def test_a_cursor_comes_back_and_fits_only_its_query(
    record: Record, order: tuple[SortKey, ...], predicate: Predicate, secret: bytes
) -> None:
    """The position survives; another secret or collection is refused."""
    query = Query(predicate, order)
    at = cursor_position(record, order)

    token = encode_cursor(at, query, "notes", secret)

    back = decode_cursor(token, query, "notes", secret)
    assert same(_lists(back), _lists(at))
    for other_query, collection, key in (
        (query, "other", secret),
        (query, "notes", secret + b"x"),
        (Query(Not(predicate), order), "notes", secret),
        (Query(predicate, (*order, SortKey(_PATH))), "notes", secret),
    ):
        with pytest.raises(QueryError):
            decode_cursor(token, other_query, collection, key)


_PATH = Query().sort("zzz").order[0].path


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple | list) else value


def test_ten_thousand_changed_cursors_are_all_refused() -> None:
    """A flipped, dropped, doubled or swapped character never gives a position."""
    rng = random.Random(7)
    query = Query().sort("n", "desc")
    token = encode_cursor(((1, 2**53 + 1), "some id"), query, "notes", b"secret")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. é+/"
    tried = 0

    while tried < 10_000:
        at = rng.randrange(len(token))
        form = rng.randrange(5)
        changed = (
            token[:at] + rng.choice(alphabet) + token[at + 1 :],
            token[:at] + token[at + 1 :],
            token[:at] + rng.choice(alphabet) + token[at:],
            token[:at],
            token[: at // 2] + token[at:] + token[at // 2 : at],
        )[form]
        if changed == token:
            continue
        tried += 1
        with pytest.raises(QueryError):
            decode_cursor(changed, query, "notes", b"secret")


@_SETTINGS
@given(st.dictionaries(made.keys, made.json_values, max_size=4))
def test_encoding_gives_the_canonical_form_back(data: dict[str, Any]) -> None:
    """The fast path and the slow walk agree, and decoding gives the canonical value."""
    slow = canonical(data)
    fast = encode(data)

    assert same(decode(fast), slow)
    assert same(decode(orjson.dumps(slow)), slow)
    assert same(decode_numeric(fast), slow)
    assert encode(slow) == encode(decode(fast))


@_SETTINGS
@given(
    st.dictionaries(made.keys, made.json_values, max_size=3),
    st.sampled_from(
        (float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1, 2**64, "a\0", "\ud800", {1})
    ),
    st.integers(0, 3),
)
def test_the_fast_path_refuses_what_the_slow_walk_refuses(data: dict[str, Any], bad: Any, depth: int) -> None:
    """At any depth, with the same path."""
    value: Any = bad
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    whole = {**data, "bad": value}

    with pytest.raises(InvalidRecordError) as slow:
        canonical(whole)
    with pytest.raises(InvalidRecordError) as fast:
        encode(whole)

    assert fast.value.path == slow.value.path
