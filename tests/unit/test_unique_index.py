"""Which record has which value of unique fields: against records that are looked through one by one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from isthmus import Record, field
from isthmus._core.unique import MAX_TEXT, canonical_text, key_in, unique_of
from isthmus._core.unique_index import DuplicateSearch, UniqueChanges, UniqueIndex
from isthmus._query.evaluate import matches
from isthmus._values import canonical
from isthmus.errors import AlreadyExistsError, ConfigError, InvalidRecordError

VALUES = [0, 1, 1.0, -0.0, True, False, "1", "", "é", "e\u0301", 0.5, 2**53, 2**53 + 1, float(2**53)]
VALUES += [2**63 - 1, float(2**63), 1e300, -1, -1.0, "true", "null", "[1]", -(2**63), float(-(2**63))]
DECLARED = unique_of([["a"], ["b", "c.d"]])


@pytest.mark.parametrize("one", VALUES)
def test_two_values_have_one_text_if_they_are_equal_in_a_query(one: Any) -> None:
    """Numbers by value, whatever their type; texts by code point; booleans are no numbers."""
    stored = canonical({"x": one})
    for other in VALUES:
        equal = matches(field("x") == other, Record(stored, id="r"))

        assert (canonical_text((stored["x"],)) == canonical_text((canonical({"x": other})["x"],))) is equal


@pytest.mark.parametrize(
    "data",
    [{}, {"b": 1}, {"b": 1, "c": None}, {"b": 1, "c": {}}, {"b": 1, "c": 5}, {"b": None, "c": {"d": 1}}],
)
def test_a_record_that_lacks_one_of_the_fields_takes_no_part(data: dict[str, Any]) -> None:
    """Neither a missing field, nor null, nor a scalar on the way."""
    [unique] = unique_of([["b", "c.d"]])

    assert key_in(data, unique) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "a list"),
        ({"x": 1}, "an object"),
        ("x" * (MAX_TEXT + 1), "1024 bytes"),
        ("é" * (MAX_TEXT // 2 + 1), "1024 bytes"),
    ],
)
def test_values_that_a_unique_field_cannot_have(value: Any, message: str) -> None:
    """A scalar, and a text up to a length; the error names the path."""
    [unique] = unique_of([["c.d"]])

    with pytest.raises(InvalidRecordError, match=message) as refused:
        key_in({"c": {"d": value}}, unique)
    assert refused.value.path == "data.c.d"
    with pytest.raises(InvalidRecordError, match="a list"):
        key_in({"c": [{"d": 1}]}, unique)
    assert key_in({"c": {"d": "x" * MAX_TEXT}}, unique) == ("x" * MAX_TEXT,)
    assert key_in({"c": {"d": "é" * (MAX_TEXT // 2)}}, unique) is not None


def test_declarations_name_fields_of_the_data_once() -> None:
    """Each group has at least one; a group given twice is one declaration."""
    assert len(unique_of([["a"], ["a"], ["a", "b"], ["b", "a"]])) == 3
    for groups in ([[]], [["a", "a"]], [["_id"]], [["_metadata.x"]]):
        with pytest.raises(ConfigError):
            unique_of(groups)


class _Model:
    """Records as a dict, looked through for each value."""

    def __init__(self, records: dict[str, dict[str, Any]]) -> None:
        self.records = records

    def refusal(self, id: str, data: dict[str, Any]) -> tuple[str, str] | None:
        """Return the field and the record of the first clash."""
        for unique in sorted(DECLARED, key=str):
            key = key_in(data, unique)
            for other, had in self.records.items():
                had_key = key_in(had, unique)
                both = other != id and key is not None and had_key is not None
                if both and canonical_text(key or ()) == canonical_text(had_key or ()):
                    return str(unique), other
        return None


def _data(rng: random.Random) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if rng.random() < 0.7:
        data["a"] = rng.choice([1, 1.0, 2, "x", True, None])
    if rng.random() < 0.7:
        data |= {"b": rng.choice([1, 2]), "c": {"d": rng.choice([1, "y", None])}}
    return data


def _step(rng: random.Random, changes: UniqueChanges, model: _Model) -> None:
    """Do one thing to both, and compare what they say."""
    id = rng.choice("pqrstu")
    chance = rng.random()
    if chance < 0.03:
        changes.clear()
        model.records.clear()
    elif chance < 0.25:
        changes.remove(id)
        model.records.pop(id, None)
    else:
        data = _data(rng)
        expected = model.refusal(id, data)
        if expected is None:
            changes.put(id, data)
            model.records[id] = data
        else:
            with pytest.raises(AlreadyExistsError) as refused:
                changes.put(id, data)
            assert (refused.value.field, refused.value.record_id) == expected


@pytest.mark.parametrize("seed", range(30))
def test_changes_on_changes_say_what_the_records_say(seed: int) -> None:
    """Batches, some kept and some not, inside a transaction with savepoints; then all is stored."""
    rng = random.Random(seed)
    index, model = UniqueIndex(DECLARED), _Model({})
    assert index
    assert not UniqueIndex()
    for _ in range(6):
        outer, before = UniqueChanges(index), dict(model.records)
        for _ in range(4):
            saved, records = outer.copy(), dict(model.records)
            inner = UniqueChanges(outer)
            for _ in range(5):
                _step(rng, inner, model)
            if rng.random() < 0.7:
                inner.apply_to(outer)
            else:
                model.records = dict(records)
            if rng.random() < 0.3:
                outer, model.records = saved, dict(records)
        if rng.random() < 0.8:
            outer.apply_to(index)
        else:
            model.records = before
        assert index.is_consistent()
        held = {claim for id in model.records for claim in index.claims_of(id)}
        assert all(index.holder(claim) in model.records for claim in held)
        assert not any(index.claims_of(id) for id in set("pqrstu") - model.records.keys())


def test_what_a_write_asked_for_is_known() -> None:
    """Values that it claimed, gave up, and was refused: a transaction locks them."""
    index = UniqueIndex(unique_of([["a"]]))
    first = UniqueChanges(index)
    first.put("p", {"a": 1})
    first.put("q", {"a": 2})
    first.apply_to(index)
    assert len(first.touched) == 2

    changes = UniqueChanges(index)
    changes.put("p", {"a": 3})
    with pytest.raises(AlreadyExistsError):
        changes.put("r", {"a": 2})

    assert {claim.rpartition("]]")[2] for claim in changes.touched} == {"[1]", "[2]", "[3]"}


def test_a_value_that_two_records_have_is_noticed() -> None:
    """Before a declaration there may be such; 20 values are named, and ten records of each."""
    [unique] = unique_of([["a"]])
    index, search = UniqueIndex([unique]), DuplicateSearch(unique)
    for number in range(100):
        data = {"a": number % 25 if number < 75 else f"own {number}"}
        search.add(f"r{number:02}", data)
        changes = UniqueChanges(UniqueIndex([unique]))
        changes.put(f"r{number:02}", data)
        changes.apply_to(index)
    search.add("list", {"a": [1]})
    for number in range(20):
        search.add(f"same{number:02}", {"a": 0.0})

    found = search.duplicates()
    assert not index.is_consistent()
    assert len(found) == 20
    assert found[0] == ([0], ["r00", "r25", "r50", *(f"same{number:02}" for number in range(7))])
    assert found[1] == ([1], ["r01", "r26", "r51"])
