"""The meaning of predicates, written by hand: a predicate, a record, and whether it holds (meaning §3)."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from isthmus import Query, Record, field
from isthmus._query.ast import FALSE, TRUE, Predicate
from isthmus._query.evaluate import matches

F = field
ROWS: list[tuple[Predicate, Any, bool]] = [
    # Equality within one type
    (F("a") == 1, {"a": 1}, True),
    (F("a") == 1, {"a": 1.0}, True),
    (F("a") == 1, {"a": True}, False),
    (F("a") == 1, {"a": "1"}, False),
    (F("a") == True, {"a": True}, True),  # noqa: E712
    (F("a") == True, {"a": 1}, False),  # noqa: E712
    (F("a") == False, {"a": 0}, False),  # noqa: E712
    (F("a") == "", {"a": ""}, True),
    (F("a") == "", {"a": None}, False),
    (F("a") == 2**53, {"a": 2**53 + 1}, False),
    (F("a") == 2**53 + 1, {"a": 2**53 + 1}, True),
    (F("a") == float(2**53), {"a": 2**53 + 1}, False),
    (F("a") == -0.0, {"a": 0}, True),
    (F("a") == "é", {"a": "e\u0301"}, False),
    (F("a") == 1, {}, False),
    (F("a") == 1, {"a": None}, False),
    (F("a") == 1, {"a": []}, False),
    (F("a") == 1, {"b": 1}, False),
    (F("a") == {"x": 1}, {"a": {"x": 1.0}}, True),
    (F("a") == {"x": 1}, {"a": {"x": True}}, False),
    (F("a") == {"x": 1}, {"a": {"x": 1, "y": None}}, False),
    (F("a") == {}, {"a": {}}, True),
    (F("a") == {}, {"a": None}, False),
    # One object satisfies all
    (F("a").any((F("x") == 1) & (F("y") == 2)), {"a": [{"x": 1, "y": 2}]}, True),
    (F("a").any((F("x") == 1) & (F("y") == 2)), {"a": [{"x": 1}, {"y": 2}]}, False),
    (F("a").any((F("x") == 1) & (F("y") == 2)), {"a": [[{"x": 1, "y": [3, 2]}]]}, True),
    (F("a").any(F("x") == 1), {"a": {"x": 1}}, True),
    (F("a").any(F("x") == 1), {"a": {"b": {"x": 1}}}, False),
    (F("a").any(F("x") != 1), {"a": [{"x": 1}, {}]}, True),
    (F("a").any(F("x") != 1), {"a": [1, "x", None]}, False),
    (F("a").any(F("x") != 1), {}, False),
    (~F("a").any(F("x") == 1), {"a": [{"x": 1}, {"x": 2}]}, False),
    (~F("a").any(F("x") == 1), {"a": 1}, True),
    (~F("a").any(~(F("x") == 1)), {"a": [{"x": 1}, {"x": [0, 1]}]}, True),
    (~F("a").any(~(F("x") == 1)), {"a": [{"x": 1}, {"x": 2}]}, False),
    (F("a").any(F("x") == [1]), {"a": [{"x": [1]}]}, True),
    (F("a").any(F("b").any(F("x") == 1)), {"a": [{"b": [{"x": 1}]}]}, True),
    (F("a").any(F("b.x") == 1), {"a": [{"b": [{"x": 1}]}]}, True),
    (F("_id").any(F("x") != 1), {"_id": {}}, False),
    # None
    (F("a") == None, {}, True),  # noqa: E711
    (F("a") == None, {"a": None}, True),  # noqa: E711
    (F("a") == None, {"a": []}, True),  # noqa: E711
    (F("a") == None, {"a": [None, [None]]}, True),  # noqa: E711
    (F("a") == None, {"a": {}}, False),  # noqa: E711
    (F("a") == None, {"a": 0}, False),  # noqa: E711
    (F("a") != None, {"a": False}, True),  # noqa: E711
    (F("a").exists(), {"a": ""}, True),
    (F("a").exists(), {"a": {}}, True),
    (F("a").exists(), {"a": [[], None]}, False),
    (F("a").exists(), {"a": [None, 0]}, True),
    (F("a.b").exists(), {"a": {"b": None}}, False),
    (F("a").is_null(), {"a": {"b": None}}, False),
    # Complements
    (F("a") != 1, {}, True),
    (F("a") != 1, {"a": None}, True),
    (F("a") != 1, {"a": "1"}, True),
    (F("a") != 1, {"a": [1, 2]}, False),
    (F("a") != 1, {"a": [2, 3]}, True),
    (F("a").not_in([1]), {}, True),
    (F("a").not_in([]), {"a": 1}, True),
    (F("a").not_like("%"), {"a": 5}, True),
    (F("a").not_like("%"), {"a": "x"}, False),
    (F("a").not_between(1, 3), {"a": [0, 4]}, True),
    (F("a").not_between(1, 3), {"a": [0, 2]}, False),
    (~(F("a") < 5), {"a": "x"}, True),
    # Order
    (F("a") < 2, {"a": 1.9999}, True),
    (F("a") < 2, {"a": 2}, False),
    (F("a") <= 2, {"a": 2.0}, True),
    (F("a") > "B", {"a": "a"}, True),
    (F("a") > "a", {"a": "B"}, False),
    (F("a") > "\uffff", {"a": "💥"}, True),
    (F("a") >= "", {"a": ""}, True),
    (F("a") > "9", {"a": 10}, False),
    (F("a") < 10, {"a": "9"}, False),
    (F("a") < True, {"a": False}, True),
    (F("a") < True, {"a": 0}, False),
    (F("a") > 0, {"a": {"b": 1}}, False),
    (F("a") > 2**53, {"a": 2**53 + 1}, True),
    (F("a") > float(2**53), {"a": 2**53 + 1}, True),
    (F("a") < 1e300, {"a": 2**63 - 1}, True),
    (F("a").between(10, 20), {"a": 10}, True),
    (F("a").between(10, 20), {"a": 20.0}, True),
    (F("a").between(10, 20), {"a": [1, 99]}, False),
    ((F("a") >= 10) & (F("a") <= 20), {"a": [1, 99]}, True),
    (F("a").between(20, 10), {"a": 15}, False),
    (F("a").between("a", "c"), {"a": "b"}, True),
    # In
    (F("a").in_([]), {"a": 1}, False),
    (F("a").in_([1, "x"]), {"a": "x"}, True),
    (F("a").in_([1, "x"]), {"a": 1.0}, True),
    (F("a").in_([1]), {"a": True}, False),
    (F("a").in_([None]), {}, True),
    (F("a").in_([None]), {"a": 1}, False),
    (F("a").in_([[1, 2]]), {"a": [1, 2]}, True),
    (F("a").in_([[1, 2]]), {"a": 1}, False),
    (F("a").in_([{"x": 1}]), {"a": [{"x": 1}]}, True),
    # Lists
    (F("a") == 1, {"a": [[[1]]]}, True),
    (F("a") == [1], {"a": [1]}, True),
    (F("a") == [1], {"a": [1.0]}, True),
    (F("a") == [1], {"a": [[1]]}, False),
    (F("a") == [1], {"a": 1}, False),
    (F("a") == [], {"a": []}, True),
    (F("a") == [], {"a": None}, False),
    (F("a") == [], {}, False),
    (F("a") == [1, 2], {"a": [2, 1]}, False),
    (F("a.b") == [1], {"a": [{"b": [1]}]}, False),
    (F("a.b") == [1], {"a": {"b": [1]}}, True),
    (F("a.b") == 1, {"a": [{"b": 2}, {"b": [0, [1]]}]}, True),
    (F("a.b") == 1, {"a": [[{"b": 1}]]}, True),
    (F("a.b") == 1, {"a": [1, {"c": 1}]}, False),
    ((F("a.b") == 1) & (F("a.c") == 2), {"a": [{"b": 1}, {"c": 2}]}, True),
    # Paths
    (F("a.b") == 1, {"a.b": 1}, False),
    (F(["a.b"]) == 1, {"a.b": 1}, True),
    (F(["a.b"]) == 1, {"a": {"b": 1}}, False),
    (F("a.") == 1, {"a": {"": 1}}, True),
    (F([""]) == 1, {"": 1}, True),
    (F("a.0") == 1, {"a": [1]}, False),
    (F("a.0") == 1, {"a": {"0": 1}}, True),
    # Like
    (F("a").like("abc"), {"a": "abc"}, True),
    (F("a").like("abc"), {"a": "ABC"}, False),
    (F("a").like("b"), {"a": "abc"}, False),
    (F("a").like("%b%"), {"a": "a\nb\nc"}, True),
    (F("a").like("a_c"), {"a": "a\nc"}, True),
    (F("a").like("_"), {"a": "💥"}, True),
    (F("a").like("_"), {"a": "e\u0301"}, False),
    (F("a").like("a.c"), {"a": "abc"}, False),
    (F("a").like("[%"), {"a": "[x"}, True),
    (F("a").like("a\\%"), {"a": "a%"}, True),
    (F("a").like("a\\%"), {"a": "ab"}, False),
    (F("a").like("a\\_"), {"a": "ab"}, False),
    (F("a").like("a\\\\"), {"a": "a\\"}, True),
    (F("a").like("a\\"), {"a": "a\\"}, True),
    (F("a").like("a\\b"), {"a": "ab"}, True),
    (F("a").like(""), {"a": ""}, True),
    (F("a").like(""), {"a": "x"}, False),
    (F("a").like("%"), {"a": 5}, False),
    (F("a").like("%x"), {"a": ["y", "zx"]}, True),
    # Ilike
    (F("a").ilike("ALICE"), {"a": "alice"}, True),
    (F("a").ilike("straße"), {"a": "STRASSE"}, False),
    (F("a").ilike("straße"), {"a": "STRAẞE"}, True),
    (F("a").ilike("_"), {"a": "ß"}, True),
    (F("a").ilike("σ"), {"a": "ς"}, True),
    (F("a").ilike("i"), {"a": "İ"}, False),
    (F("a").ilike("i"), {"a": "I"}, True),
    (F("a").ilike("k"), {"a": "\u212a"}, True),
    (F("a").ilike("é%"), {"a": "ÉTÉ"}, True),
    # Regex
    (F("a").regex("li"), {"a": "Alice"}, True),
    (F("a").regex("^li"), {"a": "Alice"}, False),
    (F("a").regex("e$"), {"a": "Alice\n"}, True),
    (F("a").regex(r"e\Z"), {"a": "Alice\n"}, False),
    (F("a").regex("a.c"), {"a": "a\nc"}, False),
    (F("a").regex("(?i)ALICE"), {"a": "alice"}, True),
    (F("a").regex(r"^\w+$"), {"a": "日本"}, True),
    (F("a").regex(r"\d"), {"a": "٣"}, True),
    (F("a").regex(""), {"a": ""}, True),
    (F("a").regex("5"), {"a": 5}, False),
    # Parts of text
    (F("a").starts_with("A"), {"a": "Alice"}, True),
    (F("a").starts_with("a"), {"a": "Alice"}, False),
    (F("a").starts_with(""), {"a": ""}, True),
    (F("a").starts_with(""), {"a": 1}, False),
    (F("a").ends_with("ce"), {"a": "Alice"}, True),
    (F("a").ends_with("Alice!"), {"a": "Alice"}, False),
    (F("a").contains("%"), {"a": "50%"}, True),
    (F("a").contains("%"), {"a": "50"}, False),
    (F("a").contains("lic"), {"a": ["x", ["Alice"]]}, True),
    (F("a").contains("x"), {"a": {"x": "x"}}, False),
    # Operands convert as stored values do
    (F("a") == dt.date(2024, 1, 2), {"a": "2024-01-02"}, True),
    (F("a") >= dt.datetime(2024, 1, 2, tzinfo=dt.UTC), {"a": "2024-01-02T00:00:00.000000Z"}, True),
    (F("a") == b"\xff", {"a": "/w=="}, True),
    (F("a") == (1, 2), {"a": [1, 2]}, True),
    # Combinations
    (TRUE, {}, True),
    (FALSE, {"a": 1}, False),
    (~TRUE, {}, False),
    (~FALSE, {}, True),
    ((F("a") == 1) | (F("b") == 1), {"b": 1}, True),
    (~((F("a") == 1) | (F("b") == 1)), {"c": 1}, True),
    (~~(F("a") == 1), {"a": 1}, True),
    (Query().filter("a", ">", 1).filter("b", "exists").where, {"a": 2, "b": 0}, True),
    (Query().any_of().where, {"a": 2}, False),
    (Query().not_(F("a") == 2).where, {"a": 2}, False),
]


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_row_of_the_truth_table_holds(row: int) -> None:
    """The predicate holds for the record or not, as written; its complement the other way round."""
    predicate, data, expected = ROWS[row]

    assert matches(predicate, Record(data, id="x")) is expected
    assert matches(~predicate, Record(data, id="x")) is not expected
