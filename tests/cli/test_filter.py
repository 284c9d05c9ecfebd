"""The filter language: the predicate of each form, and the position of each error."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import time

import orjson
import pytest

from isthmus import Query, QueryError, field
from isthmus._query.ast import And, Not, Or, Predicate
from isthmus._query.codec import to_json
from isthmus.cli._filter import parse_field, parse_filter, parse_query
from isthmus.cli._tokenizer import FilterError
from tests.seeds import drawn

A, B, C = field("a") == 1, field("b") == 2, field("c") == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('age>=25 and city="Oslo"', And((field("age") >= 25, field("city") == "Oslo"))),
        ("a=1 or b=2 and c=3", Or((A, And((B, C))))),
        ("(a=1 or b=2) and c=3", And((Or((A, B)), C))),
        ("not a=1 and b=2", And((Not(A), B))),
        ("not (a=1 and b=2)", Not(And((A, B)))),
        ("a=1 & !(b=2 | c=3)", And((A, Not(Or((B, C)))))),
        ("NOT a=1 OR b=2 AND c=3", Or((Not(A), And((B, C))))),
        ("not not a=1", A),
        ("o any (a=1 and b=2)", field("o").any(A & B)),
        ("o not any (a=1)", Not(field("o").any(A))),
        ("not o ANY (p any (c=3) or a=1)", Not(field("o").any(field("p").any(C) | A))),
        ("any any (any = 1)", field("any").any(field("any") == 1)),
        ("a == 1", A),
        ("a != 1", Not(A)),
        ("a <> 1", Not(A)),
        ("a<-1.5e3", field("a") < -1500.0),
        ("a>.5", field("a") > 0.5),
        ("a=9223372036854775807", field("a") == 2**63 - 1),
        ("a=true", field("a") == True),  # noqa: E712
        ("a=null", field("a").is_null()),
        ("a!=null", Not(field("a").is_null())),
        ("a is null", field("a").is_null()),
        ("a is not null", field("a").exists()),
        ("a exists", field("a").exists()),
        ("a not exists", Not(field("a").exists())),
        ("a in (1, 'x', true)", field("a").in_([1, "x", True])),
        ("a not in (1)", field("a").not_in([1])),
        ("a in ()", field("a").in_([])),
        ("a between 1 and 2 and b=2", And((field("a").between(1, 2), B))),
        ('a not between "x" and "y"', field("a").not_between("x", "y")),
        ('a like "A%\\_\\%"', field("a").like("A%\\_\\%")),
        ('a not like "A%"', field("a").not_like("A%")),
        ('a ilike "x"', field("a").ilike("x")),
        (r'a ~ "^\d+$"', field("a").regex(r"^\d+$")),
        (r'a regex "\\."', field("a").regex(r"\.")),
        ('a !~ "x"', Not(field("a").regex("x"))),
        (
            'a starts_with "x" and a ends_with "y"',
            And((field("a").starts_with("x"), field("a").ends_with("y"))),
        ),
        ('a contains "x"', field("a").contains("x")),
        ("a = [1, [2, null], 'x']", field("a") == [1, [2, None], "x"]),
        ("a.b.c = 1", field("a.b.c") == 1),
        ('"a.b".c = 1', field(["a.b", "c"]) == 1),
        ("`a b` = 1", field(["a b"]) == 1),
        ("'it''s' = 1", None),
        ('"it\'s" = "say \\"hi\\""', field(["it's"]) == 'say "hi"'),
        ("items.0 = 1", field("items.0") == 1),
        ("first-name = 1", field("first-name") == 1),
        ("størrelse = 1", field("størrelse") == 1),
        ('_id > "k1"', field("_id") > "k1"),
        ('_metadata.source = "x"', field("_metadata.source") == "x"),
        ('"_id" = 1', field(["_id"]) == 1),
        ('at >= datetime("2024-05-01")', field("at") >= dt.datetime(2024, 5, 1, tzinfo=dt.UTC)),
        ('a = "tab\\there \\n \\u"', field("a") == "tab\there \n \\u"),
        ("not=1", None),
    ],
)
def test_text_parses_to_a_predicate(text: str, expected: Predicate | None) -> None:
    """Each form of the grammar gives the same predicate as the Python API."""
    if expected is None:
        with pytest.raises(FilterError):
            parse_filter(text)
        return

    found = parse_filter(text)

    assert to_json(Query(where=found)) == to_json(Query(where=expected))


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("age>=", 5, "expected a value, found the end"),
        ("age >= Oslo", 7, 'text needs quotes: "Oslo"'),
        ("(a=1", 4, "expected ')'"),
        ("a=1)", 3, "expected 'and', 'or' or the end, found ')'"),
        ("a=1 b=2", 4, "expected 'and', 'or' or the end"),
        ("a in 1", 5, "expected '('"),
        ("a in (1 2)", 8, "expected ',' or ')'"),
        ("a between 1 or 2", 12, "expected 'and'"),
        ('a = "abc', 4, "never closed"),
        ("a like 5", 2, "needs text"),
        ("a < [1]", 2, "needs a number, text or bool"),
        ("and a=1", 4, "expected an operator"),
        ("a.", 2, "expected a key after '.'"),
        ("a $ 3", 2, "no meaning"),
        ("a is 3", 5, "expected 'null'"),
        ("a = 99999999999999999999999", 4, "64 bits"),
        ('a between 1 and "x"', 2, "needs two numbers"),
        ('a ~ "("', 2, "no pattern"),
        ('at > datetime("soon")', 14, "expected a time"),
        ("_id.x = 1", 0, "no parts"),
    ],
)
def test_an_error_has_its_position(text: str, position: int, message: str) -> None:
    """The position is exact, and a caret marks it."""
    with pytest.raises(FilterError, match="filter, character") as caught:
        parse_filter(text)

    assert message in str(caught.value)
    assert caught.value.position == position
    assert str(caught.value).splitlines()[-1] == " " * (position + 2) + "^"


def test_a_filter_may_be_json() -> None:
    """Text that begins with a brace is JSON: a predicate or a query."""
    query = Query().filter("a", ">=", 1).sort("b").limit(3)

    assert parse_query('{"field": "a", "op": "=", "value": 1}').where == A
    assert to_json(parse_query(orjson.dumps(to_json(query)).decode())) == to_json(query)
    with pytest.raises(FilterError, match="not JSON"):
        parse_query('{"field": ')
    with pytest.raises(QueryError, match="unknown operator"):
        parse_query('{"field": "a", "op": "===", "value": 1}')


def test_no_filter_selects_all() -> None:
    """A missing or blank filter selects all records."""
    assert parse_query(None) == parse_query("  ") == Query()


def test_a_field_can_be_parsed_alone() -> None:
    """Sort and select name fields as filters do."""
    assert parse_field('"a.b".c').path.keys == ("a.b", "c")
    with pytest.raises(FilterError):
        parse_field("a b")


def test_deep_nesting_is_refused() -> None:
    """No filter can exhaust the stack."""
    for text in ("(" * 5_000 + "a=1" + ")" * 5_000, "a = " + "[" * 5_000, "not " * 50_000 + "a=1"):
        start = time.thread_time()
        with contextlib.suppress(FilterError):
            parse_filter(text)
        assert time.thread_time() - start < 5


def test_random_text_gives_a_predicate_or_a_query_error() -> None:
    """No text raises anything but a QueryError."""
    seed = drawn()
    chance = random.Random(seed)
    words = ["a", "b.c", "and", "or", "not", "in", "(", ")", "[", "]", ",", "=", "<", ">=", "!", "~", '"x"']
    words += ["'", '"', "`", "\\", "1", "-2.5", "1e999", "null", "true", "between", "is", "like", ".", "_id"]
    words += [
        "datetime",
        "é",
        "\x00",
        "\ud800",
        "{",
        "}",
        " ",
        "\n",
        "99999999999999999999",
        "regex",
        "exists",
    ]
    parsed = 0

    for _ in range(30_000):
        text = chance.choice(["", " "]).join(chance.choices(words, k=chance.randrange(1, 9)))
        try:
            parse_query(text)
            parsed += 1
        except QueryError:
            pass

    assert parsed > 50
