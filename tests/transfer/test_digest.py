"""Digests tell what differs and nothing else."""

from __future__ import annotations

import datetime as dt
import random

import orjson
import pytest

from isthmus import Record
from isthmus._record import make_record
from isthmus.transfer import Digest, record_digest
from tests.seeds import drawn


def stored(data: object, metadata: object = None, id: str = "a") -> Record:
    return make_record(id, data, metadata or {}, "1", 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1.0}, {"a": 1}),
        ({"a": [{"b": -0.0}]}, {"a": [{"b": 0}]}),
        ({"a": 1e300}, {"a": float(10**300)}),
        ({"a": 2.0**62}, {"a": 2**62}),
        ({"a": 5e-324}, orjson.loads('{"a": 4.9406564584124654e-324}')),
    ],
)
def test_equal_records_have_one_digest(left: object, right: object) -> None:
    """Neither key order nor the spelling of a number counts."""
    assert record_digest(stored(left)) == record_digest(stored(right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {}),
        ({"a": 2**53}, {"a": 2**53 + 1}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": ""}, {"a": []}),
        ({"a": "1.0"}, {"a": "1"}),
        ({"a": "é"}, {"a": "e\u0301"}),
    ],
)
def test_unequal_records_have_two_digests(left: object, right: object) -> None:
    """A difference of type, order, presence or one bit counts."""
    assert record_digest(stored(left)) != record_digest(stored(right))


def test_id_data_and_metadata_each_count() -> None:
    """The same text in another place is another record."""
    digests = {
        record_digest(stored({"a": 1})),
        record_digest(stored({"a": 1}, id="b")),
        record_digest(stored({"a": 1}, {"a": 1})),
        record_digest(stored({}, {"a": 1})),
    }

    assert len(digests) == 4


def test_a_record_not_yet_stored_has_the_digest_that_it_will_have() -> None:
    """A transform may give any value that can be written."""
    at = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)

    assert record_digest(Record({"at": at, "n": 2.0**60}, id="a")) == record_digest(
        stored({"at": "2024-05-01T12:00:00.000000Z", "n": 2**60})
    )


def test_digests_of_neighbouring_ranges_add_up() -> None:
    """However a range is cut, the sum is the same."""
    seed = drawn()
    chance = random.Random(seed)
    ones = [record_digest(stored({"n": chance.random()}, id=f"k{i}")) for i in range(100)]
    whole = Digest()
    for one in ones:
        whole.add(one)
    cut = chance.randrange(100)
    left, right = Digest(), Digest()

    for index, one in enumerate(ones):
        (left if index < cut else right).add(one)
    left += right

    assert left == whole
    assert left.count == 100
