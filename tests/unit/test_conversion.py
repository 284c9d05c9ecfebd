"""Values whose own code fails while they are converted: one error with the path, and its cause."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel, computed_field, field_validator

from isthmus import AsyncDatabase, InvalidRecordError, Query, QueryError, Record, UsageError, field, nearest
from isthmus._values import encode, encode_many
from isthmus.errors import IsthmusError
from isthmus.testing.failing import FAILING, FineTime

HUGE = 10**5000
"""An int that Python refuses to print."""


class Raising(Mapping[str, Any]):
    """A mapping that raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, key: str) -> Any:
        raise self.error

    def __iter__(self) -> Iterator[str]:
        raise self.error

    def __len__(self) -> int:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


class Endless:
    """A model that never becomes JSON."""

    def model_dump(self) -> Any:
        """Return another one."""
        return Endless()


@pytest.mark.parametrize("name", FAILING)
def test_a_value_that_fails_is_refused_with_its_path_and_cause(name: str) -> None:
    """Encoded alone, among others, and as an operand or argument of a change."""
    value = FAILING[name]()

    with pytest.raises(InvalidRecordError) as alone:
        encode({"a": [0, value]})
    with pytest.raises(InvalidRecordError) as among:
        list(encode_many([{"n": 1}, {"a": [0, value]}, {"n": 2}]))
    with pytest.raises(QueryError) as operand:
        field("a") == value  # noqa: B015 - it raises
    with pytest.raises(QueryError):
        field("a").set(value)

    assert alone.value.path == among.value.path == "data.a[1]"
    for caught in (alone, among, operand):
        assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), asyncio.CancelledError(), MemoryError(), SystemExit(1)], ids=repr
)
def test_an_interrupt_during_a_conversion_is_not_swallowed(error: BaseException) -> None:
    """orjson hides it as the cause of an encoding error; a second attempt could succeed."""
    for convert in (
        lambda: encode({"a": Raising(error)}),
        lambda: list(encode_many([{"n": 1}, {"a": Raising(error)}])),
        lambda: field("a") == Raising(error),
    ):
        with pytest.raises(type(error)):
            convert()


def test_a_value_that_never_becomes_json_is_refused() -> None:
    """A conversion that goes on for ever ends."""
    with pytest.raises(InvalidRecordError, match="never becomes JSON"):
        encode({"a": Endless()})


def test_keys_and_metadata_that_fail_are_refused() -> None:
    """A key that Python cannot print; metadata that is no object, or whose truth fails."""
    with pytest.raises(InvalidRecordError, match="keys must be text, got int"):
        encode({HUGE: 1})  # type: ignore[dict-item]
    with pytest.raises(InvalidRecordError) as caught:
        Record({}, metadata=Raising(ValueError("no")))
    assert caught.value.path == "metadata"
    for metadata in ([], "", 0, False):
        with pytest.raises(InvalidRecordError):
            Record({}, metadata=metadata)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda: Query().limit(-HUGE),
        lambda: Query().offset(-HUGE),
        lambda: Query().sort("a", HUGE),  # type: ignore[arg-type]
        lambda: Query().sort("a", nulls=HUGE),  # type: ignore[arg-type]
        lambda: Query().sort(HUGE),  # type: ignore[arg-type]
        lambda: Query().filter("a", HUGE, 1),  # type: ignore[arg-type]
        lambda: Query().filter("a", [HUGE], 1),  # type: ignore[arg-type]
        lambda: Query().filter(HUGE),  # type: ignore[arg-type]
        lambda: Query().filter("a", "between", [HUGE]),
        lambda: field("a").by(-HUGE),
        lambda: field("a").by("day", zone=HUGE),  # type: ignore[arg-type]
        lambda: field("a").in_(Raising(ValueError("no"))),  # type: ignore[arg-type]
        lambda: nearest("a", iter([1.0, "x"]), 3),  # type: ignore[list-item]
        lambda: nearest("a", [1.0], HUGE),
        lambda: nearest("a", Raising(ValueError("no"))),  # type: ignore[arg-type]
    ],
)
def test_a_huge_int_or_a_failing_object_as_an_argument_is_a_query_error(call: Any) -> None:
    """Its message is short."""
    with pytest.raises(QueryError) as caught:
        call()

    assert len(str(caught.value)) < 400


@pytest.mark.asyncio
async def test_a_limit_or_offset_beyond_any_count_is_one() -> None:
    """All records are within it; the query can be printed."""
    async with AsyncDatabase("memory") as db:
        await db.create({"n": 1})
        assert len(await db.search(Query().limit(HUGE))) == 1
        assert await db.search(Query().offset(HUGE)) == []
        assert len(repr(Query().limit(HUGE).offset(HUGE))) < 400


@pytest.mark.asyncio
async def test_a_huge_int_as_an_argument_of_a_handle_is_one_typed_error() -> None:
    """Names, isolation levels, aggregates and options of a method."""
    async with AsyncDatabase("memory") as db:
        with pytest.raises(UsageError):
            db.collection(HUGE)  # type: ignore[call-overload]
        with pytest.raises(UsageError):
            db.options(policy=HUGE)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            await db.create_batch([{}], on_error=HUGE)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            await db.replace_batch([(HUGE,)])  # type: ignore[list-item]
        with pytest.raises(QueryError):
            await db.aggregate(n=(HUGE, "a"))
        with pytest.raises(IsthmusError):
            db.transaction(isolation=HUGE)  # type: ignore[arg-type]


class Failing(BaseModel):
    """A model whose own code raises another error than pydantic expects."""

    n: int = 0
    validated: int = 0

    @computed_field
    def inverse(self) -> float:
        """Fail at zero."""
        return 1 / self.n

    @field_validator("validated")
    @classmethod
    def check(cls, value: int) -> int:
        """Fail at one."""
        if value == 1:
            raise RuntimeError("one")
        return value


class Colour(enum.Enum):
    """An enum."""

    RED = "red"


class Painted(BaseModel):
    """A model with an enum and a time."""

    colour: Colour = Colour.RED
    at: dt.datetime | None = None


@pytest.mark.asyncio
async def test_a_model_whose_code_fails_is_refused() -> None:
    """By a computed field when it is dumped, by a validator when it is validated; operands too."""
    async with AsyncDatabase("memory") as db:
        models = db.collection("models", Failing)
        with pytest.raises(InvalidRecordError, match="ZeroDivisionError") as dumped:
            await models.create(Failing())
        with pytest.raises(InvalidRecordError, match="RuntimeError") as validated:
            await models.create(Failing.model_construct(n=1, validated=1))
        with pytest.raises(QueryError):
            db.collection("painted", Painted).where("colour", "=", Raising(ValueError("no")))

    assert isinstance(dumped.value.__cause__, ZeroDivisionError)
    assert isinstance(validated.value.__cause__, RuntimeError)


class FineDuration(dt.timedelta):
    """A duration like pandas' `Timedelta`, with nanoseconds."""

    nanoseconds = 7


class Timed(BaseModel):
    """A model with times and durations, also as keys."""

    at: dt.datetime | None = None
    takes: dt.timedelta | None = None
    by_time: dict[dt.datetime, int] = {}


def _fine_time() -> FineTime:
    time = FineTime(2020, 1, 1, tzinfo=dt.UTC)
    time.nanosecond = 789
    return time


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (Timed(at=_fine_time()), "data.at"),
        (Timed(takes=FineDuration(1)), "data.takes"),
        (Timed.model_construct(by_time={_fine_time(): 1}), "data.by_time"),
    ],
)
@pytest.mark.asyncio
async def test_nanoseconds_in_a_model_are_refused(model: Timed, path: str) -> None:
    """pydantic would cut them off; what is stored is what comes back."""
    async with AsyncDatabase("memory") as db:
        timed = db.collection("timed", Timed)

        with pytest.raises(InvalidRecordError) as caught:
            await timed.create(model)

        assert caught.value.path == path
        assert await timed.count() == 0


@pytest.mark.parametrize("operator", ["=", "<", "in"])
@pytest.mark.asyncio
async def test_nanoseconds_in_an_operand_over_models_are_refused(operator: str) -> None:
    """As a time, a duration or a text of one; zeros are no nanoseconds."""
    exact = "2020-01-01T00:00:00.123456Z"
    async with AsyncDatabase("memory") as db:
        timed = db.collection("timed", Timed)
        await timed.create(Timed.model_validate({"at": exact}))
        for name, operand in {
            "at": exact.replace("Z", "789Z"),
            "takes": "PT0.123456789S",
        }.items():
            with pytest.raises(QueryError):
                await timed.where(name, operator, [operand] if operator == "in" else operand).count()
        with pytest.raises(QueryError):
            timed.where("at", operator, [_fine_time()] if operator == "in" else _fine_time())
        with pytest.raises(QueryError):
            await timed.count(field("at") == exact.replace("Z", "789Z"))

        assert await timed.where("at", "=", exact.replace("Z", "000Z")).count() == 1


def test_pandas_times_with_nanoseconds_are_refused() -> None:
    """A `Timestamp` without them is a time; `NaT` is none."""
    pandas = pytest.importorskip("pandas")
    whole = pandas.Timestamp("2020-01-01T00:00:00.123456Z")

    assert encode({"at": whole}) == b'{"at":"2020-01-01T00:00:00.123456Z"}'
    for value in (whole + pandas.Timedelta(1, "ns"), pandas.NaT, pandas.Timedelta(1, "ns")):
        with pytest.raises(InvalidRecordError):
            encode({"at": value})
        with pytest.raises(QueryError):
            field("at") == value  # noqa: B015 - it raises
