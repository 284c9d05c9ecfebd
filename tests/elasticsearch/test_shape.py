"""The shape that is remembered is the shape that a look at every value finds."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from isthmus._values import decode, encode
from isthmus.backends.elasticsearch.shape import (
    NotJsonTypes,
    ShapeCache,
    ValueKind,
    infer_type,
    needs_values,
    walk,
)
from tests.elasticsearch.made_up import Maker

pytestmark = pytest.mark.backend("elasticsearch")


@pytest.mark.parametrize("seed", range(5))
def test_a_remembered_shape_equals_a_fresh_one(seed: int) -> None:
    """Unless the encoded record says that values matter; 2,000 records share one memory."""
    maker = Maker(seed)
    shapes = ShapeCache("data")

    for _ in range(2_000):
        data = maker.data()
        encoded = encode(data)
        fresh = walk(decode(encoded), "data")
        if needs_values(encoded):
            continue
        known = shapes.of(data)
        assert known.fields == fresh.fields
        assert known.forced == fresh.forced
        assert known.objects == fresh.objects
        assert known.refused == fresh.refused


@pytest.mark.parametrize(
    ("data", "look"),
    [
        ({"n": 2**53}, True),
        ({"n": -(2**53)}, True),
        ({"n": [1, 2**60]}, True),
        ({"n": 2.0**60}, True),
        ({"t": "x" * 8_192}, True),
        ({"t": "😀" * 4_100}, True),
        ({"n": 10**15 - 1, "f": 0.1234567890123456789}, False),
        ({"f": 1e300, "g": 5e-324}, False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_look_at_values_is_taken_where_they_matter(data: dict[str, Any], look: bool) -> None:
    """A long fraction is no reason, an integer of sixteen digits is."""
    assert needs_values(encode(data)) is look


@pytest.mark.parametrize(
    "data", [{"a": dt.datetime.now(dt.UTC)}, {"a": {"b": (1, 2)}}, {"a": [{"b": [b"x"]}]}]
)
def test_values_of_other_types_are_foreign(data: dict[str, Any]) -> None:
    """Their shape is that of what they are converted to."""
    with pytest.raises(NotJsonTypes):
        ShapeCache("data").of(data)


@pytest.mark.parametrize(
    ("votes", "type_"),
    [
        ({ValueKind.TEXT: 3, ValueKind.INT: 1}, "keyword"),
        ({ValueKind.TEXT: 1, ValueKind.INT: 3}, "double"),
        ({ValueKind.INT: 3, ValueKind.BIG: 1}, "long"),
        ({ValueKind.INT: 3, ValueKind.BIG: 1, ValueKind.FLOAT: 1}, "double"),
        ({ValueKind.BOOL: 2}, "boolean"),
        ({ValueKind.OBJECTS: 2}, "keyword"),
        ({ValueKind.LONG_TEXT: 1}, "keyword"),
    ],
)
def test_a_new_field_gets_the_type_that_most_records_have(votes: dict[ValueKind, int], type_: str) -> None:
    """A field of integers of which one is beyond the doubles is long."""
    assert infer_type(votes) == type_
