"""Batches in columns: encoded together as each alone, checked together as each alone."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from typing import Any

import pytest

from isthmus._core.executor import Mutation
from isthmus._core.mutation_batch import MutationBatch, batch_creates, batch_writes
from isthmus._ids import check_id, check_ids, new_id, new_ids
from isthmus._record import Record
from isthmus._values import encode, encode_many
from isthmus.errors import InvalidRecordError
from tests.seeds import drawn

SEED = drawn()
# What orjson writes otherwise than the contract says, or what looks like it from outside.
ODD: list[Any] = [
    None, float("nan"), float("-inf"), -0.0, 0.0, 2**63, 2**63 - 1, -(2**63), 2.0**53, 1e16, 1.5e17, 1e22,
    "a\0b", "a\\u0000", "null", "-0.0", "+1 555", "1234567890123456", "é😀\n", "\ud800", b"x", {1},
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1), 12345678901234567,
]  # fmt: skip


def _record(rng: random.Random) -> Any:
    draw = rng.random()
    if draw < 0.93:
        plain = {
            "n": rng.randrange(10**6),
            "name": "user-0000001",
            "x": rng.random(),
            "tags": ["a", {"b": []}],
        }
        return plain | ({"v": None} if rng.random() < 0.1 else {})
    if draw < 0.97:
        return {"v": [rng.choice(ODD)]}
    if draw < 0.98:
        value: Any = 1
        for _ in range(rng.choice([98, 99, 100, 101, 260])):
            value = [value]
        return {"deep": value}
    return rng.choice([{"many": [{"i": 1}] * rng.choice([5, 99, 100, 200])}, [1], "text", 5])


def test_records_encoded_together_are_what_each_is_alone() -> None:
    """The same text for each up to the first that is refused, and the same refusal."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)

    for _ in range(60):
        items = [_record(rng) for _ in range(rng.randrange(1, 80))]
        if rng.random() < 0.1:
            items = [items[0]] * len(items)
        alone: list[str] = []
        together: list[str] = []
        for item in items:
            try:
                alone.append(encode(item).decode())
            except InvalidRecordError as error:
                alone.append(str(error))
                break
        texts = encode_many(items)
        try:
            together.extend(texts)
        except InvalidRecordError as error:
            together.append(str(error))

        assert together == alone


def test_ids_made_together_ascend_among_those_made_alone() -> None:
    """All are UUIDv7, none comes twice, and the order in which they were made is theirs."""
    made = [new_id(), *new_ids(0), *new_ids(1), new_id(), *new_ids(3_000), new_id(), *new_ids(2), new_id()]

    assert made == sorted(set(made))
    assert {(uuid.UUID(id).version, uuid.UUID(id).variant) for id in made} == {(7, uuid.RFC_4122)}


@pytest.mark.parametrize("bad", ["", "a\0", "\ud800", "é" * 257, "a" * 513, 5, None])
def test_ids_checked_together_are_refused_as_alone(bad: Any) -> None:
    """A bad one among good ones is found, with the same words."""
    with pytest.raises(InvalidRecordError) as alone:
        check_id(bad)
    with pytest.raises(InvalidRecordError) as together:
        check_ids(["a", "b" * 512, bad, "c"])

    assert str(together.value) == str(alone.value)
    assert check_ids(["a", "é" * 256, "b" * 512]) == ["a", "é" * 256, "b" * 512]


def test_columns_and_changes_say_the_same() -> None:
    """A backend that reads the columns writes the same records as one that goes through the items."""
    records = [Record({"n": n}, id=f"{9 - n}", metadata={"m": n} if n % 2 else None) for n in range(10)]
    columns = batch_creates(records)
    assert columns is not None

    ordered = columns.by_id()
    rebuilt = MutationBatch.of(list(columns))

    assert [mutation.id for mutation in columns] == [record.id for record in records]
    assert [mutation.encode() for mutation in columns] == [text.encode() for text in columns.texts()]
    for each in (columns, rebuilt):
        assert [mutation.encode_metadata().decode() for mutation in columns] == list(
            each.metadata_texts() or ()
        )
    assert columns[3] is columns[3]
    assert ordered.ids == sorted(columns.ids)
    assert list(ordered.texts()) == list(columns.texts())[::-1]
    assert ordered.by_id() is ordered


def test_what_is_checked_already_is_passed_on_as_it_is() -> None:
    """The text of a record from another store goes into the columns undecoded."""
    mutations = [Mutation("a", {"n": 1}), Mutation("b")]
    mutations[1].raw, mutations[1].raw_metadata = b'{"n": 2}', b'{"m":1}'

    columns = MutationBatch.of(mutations)

    assert list(columns.texts()) == ['{"n":1}', '{"n": 2}']
    assert list(columns.metadata_texts() or ()) == ["{}", '{"m":1}']


def test_only_batches_of_one_plain_kind_become_columns() -> None:
    """Ids of ours are marked as such; what is mixed goes item by item."""
    plain, named = Record({}), Record({}, id="a")
    made = batch_creates([{"n": 1}, {"n": 2}])

    assert made is not None
    assert [mutation.own_id for mutation in made] == [True, True]
    assert batch_creates([named, plain]) is None
    assert batch_creates([plain, {}]) is None
    assert batch_creates([]) is None
    assert batch_writes([("a", {}), ("b", {}, "1")]) is None
    assert batch_writes([("a", named)]) is None
    assert batch_writes([plain]) is None
    assert batch_writes([named]) is not None
