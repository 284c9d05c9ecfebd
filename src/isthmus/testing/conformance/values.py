"""Values: every type is read back as it was written, also at its limits; refusals name the path."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Any

import pytest

from isthmus import AsyncDatabase, Record, field
from isthmus._values import same
from isthmus.errors import BatchError, InvalidRecordError, QueryError
from isthmus.testing import values as nasty
from isthmus.testing.conformance._fixtures import put_one, requires
from isthmus.testing.failing import FAILING, FineTime, NotATime

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "empty text": "",
    "empty list": [],
    "empty object": {},
    "list of lists": [[], [[]], [1, [2, [3]]]],
    "mixed list": [1, "a", None, 2.5, True, {"x": 1}, [None]],
    "object in list": [{"a": [{"b": []}]}],
    "vector-like": {"type": "vector", "value": [1, 2]},
    "2^53 + 1": 2**53 + 1,
    "-2^53 - 1": -(2**53) - 1,
    "2^63 - 1": 2**63 - 1,
    "-2^63": -(2**63),
    "0.1": 0.1,
    "1e300": 1e300,
    "1e308": 1e308,
    "1e-320": 1e-320,
    "5e-324": 5e-324,
    "-0.0": -0.0,
    "2.0^63": 2.0**63,
    "2.0^64": 2.0**64,
    "1.5": 1.5,
    "line breaks": "a\nb\r\nc\u2028d\u0085",
    "combining": "e\u0301 and é",
    "every plane": "a é 日 💥 \U0002fa1d \U000e0001 \U000f0000 \U0010ffff \uffff \ufffe",
    "quotes": 'it\'s "so" `x` \\ \\u0000 ; -- /*',
    "deep": {"a": {"b": {"c": {"d": {"e": {"f": [[[[1]]]]}}}}}},
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.asyncio
async def test_a_value_is_read_back_with_the_same_type(db: AsyncDatabase, name: str) -> None:
    """Null, booleans, texts, lists, objects, 64-bit integers and finite floats are preserved (§1)."""
    value = VALUES[name]

    id = await put_one(db, Record({"v": value, "in": [value], "under": {"v": value}}))

    record = await db.require(id)
    assert same(record.data["v"], value)
    assert same(record.data, {"v": value, "in": [value], "under": {"v": value}})
    [searched] = await db.search()
    assert same(searched.data, record.data)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 1, 0])
@pytest.mark.asyncio
async def test_an_integer_is_read_back_as_an_integer(db: AsyncDatabase, value: int) -> None:
    """64-bit integers are exact and stay integers (§1)."""
    stored = (await db.require(await put_one(db, Record({"v": value})))).data["v"]

    assert stored == value
    assert type(stored) is int


@pytest.mark.parametrize("size", nasty.LONG_SIZES)
@pytest.mark.parametrize("character", ["x", "é", "💥"])
@pytest.mark.asyncio
async def test_a_long_text_is_stored_and_found(db: AsyncDatabase, size: int, character: str) -> None:
    """Texts around the size limits of stores can be stored, compared and searched."""
    text = character * (size // len(character.encode())) + "y" * (size % len(character.encode()))
    id = await put_one(db, Record({"t": text, "n": 1}))
    other = await put_one(db, Record({"t": text[:-1] + "\U0010ffff", "n": 2}))

    assert (await db.require(id)).data["t"] == text
    assert [r.id for r in await db.search(field("t") == text)] == [id]
    assert [r.id for r in await db.search(field("t") != text)] == [other]
    assert [r.id for r in await db.search(field("t").starts_with(text))] == [id]
    assert [r.id for r in await db.search(field("t") > text)] == [other]


@pytest.mark.asyncio
async def test_datetimes_dates_decimals_uuids_and_bytes_have_one_form(db: AsyncDatabase) -> None:
    """Each has one canonical JSON form, which operands take as well."""
    east = dt.timezone(dt.timedelta(hours=2))
    uid = uuid.UUID("12345678-1234-5678-1234-567812345678")
    data = {
        "at": dt.datetime(2024, 5, 6, 7, 8, 9, 10, east),
        "on": dt.date(2024, 5, 6),
        "price": decimal.Decimal("12.25"),
        "whole": decimal.Decimal("7"),
        "uid": uid,
        "raw": b"\x00\xff",
    }

    record = await db.require(await put_one(db, Record(data)))

    assert record.data == {
        "at": "2024-05-06T05:08:09.000010Z",
        "on": "2024-05-06",
        "price": 12.25,
        "whole": 7,
        "uid": str(uid),
        "raw": base64.b64encode(b"\x00\xff").decode(),
    }
    for name, value in data.items():
        assert await db.count(field(name) == value) == 1, name
    assert await db.count(field("at") >= dt.datetime(2024, 5, 6, 5, 8, 9, 10, dt.UTC)) == 1
    assert await db.count(field("at") > dt.datetime(2024, 5, 6, 5, 8, 9, 10, dt.UTC)) == 0


class _Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class _Point:
    x: int
    y: int


class _Text(str):
    __slots__ = ()


@pytest.mark.asyncio
async def test_enums_dataclasses_tuples_and_subclasses_become_json(db: AsyncDatabase) -> None:
    """An Enum becomes its value, a dataclass an object, a tuple a list, a subclass its JSON type (§1)."""
    record = await db.require(
        await put_one(db, Record({"c": _Color.RED, "p": _Point(1, 2), "t": (1, (2,)), "s": _Text("x")}))
    )

    assert record.data == {"c": "red", "p": {"x": 1, "y": 2}, "t": [1, [2]], "s": "x"}


def _cycle() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["self"] = [data]
    return data


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(101):
        value = [value]
    return value


def _fine_time() -> FineTime:
    time = FineTime(2020, 1, 1, tzinfo=dt.UTC)
    time.nanosecond = 789
    return time


REFUSED: dict[str, tuple[Any, str]] = {
    "nan": (float("nan"), "data.a[1]"),
    "infinity": (float("inf"), "data.a[1]"),
    "2^63": (2**63, "data.a[1]"),
    "2^70": (2**70, "data.a[1]"),
    "below -2^63": (-(2**63) - 1, "data.a[1]"),
    "naive datetime": (dt.datetime(2024, 1, 1), "data.a[1]"),
    "time": (dt.time(1, 2), "data.a[1]"),
    "timedelta": (dt.timedelta(1), "data.a[1]"),
    "set": ({1}, "data.a[1]"),
    "object": (object(), "data.a[1]"),
    "NUL": ("a\0b", "data.a[1]"),
    "lone surrogate": ("\ud800", "data.a[1]"),
    "NUL in a key": ({"a\0b": 1}, "data.a[1]"),
    "surrogate in a key": ({"\udfff": 1}, "data.a[1]"),
    "number as key": ({1: 2}, "data.a[1]"),
    "inexact decimal": (decimal.Decimal("0.1234567890123456789"), "data.a[1]"),
    "cycle": (_cycle(), "data.a[1]"),
    "too deep": (_deep(), "data.a[1]"),
    "huge int": (10**5000, "data.a[1]"),
    "huge int as key": ({10**5000: 2}, "data.a[1]"),
    "nanoseconds": (_fine_time(), "data.a[1]"),
    **{name: (make(), "data.a[1]") for name, make in FAILING.items()},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.asyncio
async def test_a_value_that_no_store_can_hold_is_refused(db: AsyncDatabase, name: str) -> None:
    """It raises InvalidRecordError with the path, and nothing is written (§1)."""
    value, path = REFUSED[name]

    with pytest.raises(InvalidRecordError) as caught:
        await db.create(Record({"a": [0, value]}, id="x"))

    assert caught.value.path.startswith(path)
    assert await db.get("x") is None
    assert await db.count() == 0


@requires("conditional_create")
@pytest.mark.asyncio
async def test_an_invalid_record_in_a_batch_is_that_items_error(db: AsyncDatabase) -> None:
    """Its error has the path; if batches are atomic, nothing is written."""
    records = [Record({"n": 1}, id="a"), Record({"n": float("nan")}, id="b"), Record({"n": 3}, id="c")]

    with pytest.raises(BatchError) as caught:
        await db.create_batch(records)

    outcomes = caught.value.outcomes
    assert isinstance(outcomes[1], InvalidRecordError)
    assert outcomes[1].path == "data.n"
    assert outcomes[1].record_id == "b"
    written = {r.id for r in await db.search()}
    assert written == ({"a", "c"} if not db.capabilities.atomic_batch else set())


@requires("conditional_create")
@pytest.mark.parametrize("name", FAILING)
@pytest.mark.asyncio
async def test_of_a_batch_with_a_value_that_fails_each_item_has_its_outcome(
    db: AsyncDatabase, name: str
) -> None:
    """What is written is what the outcomes say, whatever a value's own code raises (§1)."""
    records: list[dict[str, Any]] = [{"n": n} for n in range(60)]
    records[55] = {"n": 55, "v": FAILING[name]()}

    with pytest.raises(BatchError) as caught:
        await db.create_batch(records)

    outcomes = caught.value.outcomes
    refused = outcomes[55]
    assert isinstance(refused, InvalidRecordError)
    assert refused.path == "data.v"
    assert refused.__cause__ is not None
    written = sum(isinstance(outcome, str) for outcome in outcomes)
    assert written == (0 if db.capabilities.atomic_batch else 59)
    assert await db.count() == written


@requires("conditional_create")
@pytest.mark.asyncio
async def test_a_value_that_fails_in_a_late_part_of_a_batch_leaves_outcomes(db: AsyncDatabase) -> None:
    """Parts that were sent before it are written, and their items say so (§1)."""
    records: list[dict[str, Any]] = [{"n": n} for n in range(2_500)]
    records[2_200] = {"n": NotATime(2020, 1, 1)}

    with pytest.raises(BatchError) as caught:
        await db.create_batch(records)

    written = sum(isinstance(outcome, str) for outcome in caught.value.outcomes)
    assert written == (0 if db.capabilities.atomic_batch else 2_499)
    assert await db.count() == written


@pytest.mark.asyncio
async def test_an_operand_that_fails_or_is_too_fine_is_a_query_error(db: AsyncDatabase) -> None:
    """Neither is compared as something that it is not; without nanoseconds such a time is one (§1)."""
    for make in (*FAILING.values(), _fine_time):
        with pytest.raises(QueryError):
            await db.count(field("at") == make())

    plain = FineTime(2020, 1, 1, tzinfo=dt.UTC)
    stored = await put_one(db, Record({"at": plain}))
    assert (await db.require(stored)).data == {"at": "2020-01-01T00:00:00.000000Z"}
    assert await db.count(field("at") == plain) == 1


@pytest.mark.asyncio
async def test_metadata_is_read_back_as_given(db: AsyncDatabase) -> None:
    """Nothing is added to it, and it can hold the same values as data."""
    metadata = {"source": "é", "n": [2**53 + 1, None, {"a.b": {}}], "id": "x", "version": 3}

    id = await put_one(db, Record({"n": 1}, metadata=metadata))

    assert (await db.require(id)).metadata == metadata
    plain = await put_one(db, Record({"n": 2}))
    assert (await db.require(plain)).metadata == {}


@pytest.mark.asyncio
async def test_invalid_metadata_is_refused_with_its_path(db: AsyncDatabase) -> None:
    """The path starts with `metadata`."""
    with pytest.raises(InvalidRecordError) as caught:
        await db.create(Record({"n": 1}, id="x", metadata={"k": float("inf")}))

    assert caught.value.path == "metadata.k"
    assert await db.get("x") is None


@pytest.mark.asyncio
async def test_stored_data_is_not_shared_with_the_caller(db: AsyncDatabase) -> None:
    """Changing the given data afterwards, or a record that was read, does not change what is stored."""
    data = {"tags": ["a"]}
    id = await put_one(db, Record(data))

    data["tags"].append("b")
    (await db.require(id)).data["tags"].append("c")

    assert (await db.require(id)).data == {"tags": ["a"]}


@pytest.mark.asyncio
async def test_times_are_aware_and_a_new_record_was_updated_when_it_was_created(db: AsyncDatabase) -> None:
    """created_at and updated_at are in UTC and within the last minute."""
    record = await db.require(await put_one(db, Record({"n": 1})))

    assert record.created_at is not None
    assert record.updated_at is not None
    assert record.created_at.utcoffset() == dt.timedelta(0)
    assert abs(dt.datetime.now(dt.UTC) - record.created_at) < dt.timedelta(minutes=1)
    assert record.updated_at >= record.created_at
    assert record.version
