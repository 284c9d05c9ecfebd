"""Typed collections: models go in, the same models come out, and what does not fit is told by record."""

import asyncio
import datetime as dt
import enum
import ipaddress
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar
from uuid import UUID, uuid4

import pydantic
import pytest
import pytest_asyncio
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    computed_field,
    create_model,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from isthmus import (
    AsyncDatabase,
    BatchError,
    ConfigError,
    ConflictError,
    Indexed,
    InvalidRecordError,
    NotFoundError,
    NotWrittenError,
    Query,
    QueryError,
    Record,
    UsageError,
    field,
)
from isthmus._ids import new_id

T = TypeVar("T")
POSTGRES = os.environ.get("ISTHMUS_TEST_POSTGRES_URL")


class Colour(enum.Enum):
    """An enum by value."""

    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    """A model inside another one."""

    code: Annotated[str, Indexed()]
    blob: bytes = b""


class Item(BaseModel):
    """A model with everything that JSON cannot say."""

    id: str | None = None
    name: Annotated[str, Indexed("prefix")] = Field(min_length=1)
    price: Annotated[Decimal, Indexed()] = Field(default=Decimal(1), ge=0)
    made: dt.date = dt.date(2026, 11, 21)
    seen: dt.datetime = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
    key: UUID = Field(default_factory=uuid4)
    colour: Colour = Colour.RED
    raw: bytes = b"\x00\xff"
    raws: list[bytes] = []
    by_name: dict[str, bytes | None] = {}
    tags: frozenset[str] = frozenset()
    takes: dt.timedelta = dt.timedelta(seconds=90)
    at: dt.time = dt.time(9, 30)
    host: ipaddress.IPv4Address = ipaddress.IPv4Address("10.0.0.1")
    where: Path = Path("/tmp/x")
    size: tuple[int, int] = (1, 2)
    parts: list[Part] = []


def full(name: str = "lamp", **changes: Any) -> Item:
    """Return an item with a value in every field."""
    return Item(
        name=name,
        raws=[b"a", b"\xfe"],
        by_name={"x": b"\x80", "y": None},
        tags=frozenset({"b", "a"}),
        parts=[Part(code="p", blob=b"\x01")],
        **changes,
    )


@pytest_asyncio.fixture(
    params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.backend("postgres"))]
)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncDatabase]:
    """A handle on each kind of store."""
    if request.param == "postgres":
        if POSTGRES is None:
            from tests.servers import server

            url = server("postgres").url
        else:
            url = POSTGRES
        handle = await AsyncDatabase.open(url, {"table": f"typed_{new_id().replace('-', '')}"})
    else:
        path = {"path": str(tmp_path / "typed.db")} if request.param == "sqlite" else {}
        handle = await AsyncDatabase.create(request.param, path)
    async with handle as opened:
        opened.name = f"items_{new_id().replace('-', '')}"  # type: ignore[attr-defined]
        yield opened
        if opened.backend == "postgres":
            for name in (opened.collection_name, opened.name):  # type: ignore[attr-defined]
                await opened._backend.drop(name)  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_a_model_comes_back_equal(db: AsyncDatabase) -> None:
    """Dates, decimals, UUIDs, enums, bytes, sets, times, paths and nested models are restored."""
    items = db.collection(db.name, Item)  # type: ignore[attr-defined]
    item = full(price=Decimal("19.90"))

    id = await items.create(item)

    assert await items.require(id) == item.model_copy(update={"id": id})
    assert await items.search(field("price") < 20) == [await items.get(id)]
    assert await items.find_one(field("made") == dt.date(2026, 11, 21)) is not None
    assert await items.count(field("colour") == Colour.RED) == 1
    assert (await items.untyped.require(id)).data.get("id") is None


@pytest.mark.asyncio
async def test_writes_are_judged_by_the_model(db: AsyncDatabase) -> None:
    """A model that was built without validation, or changed after it, is not stored."""
    items = db.collection(db.name, Item)  # type: ignore[attr-defined]
    id = await items.create(full())
    wrong = full()
    wrong.price = Decimal(-1)

    for write in (items.create(wrong), items.replace(id, wrong), items.upsert("new", wrong)):
        with pytest.raises(InvalidRecordError) as caught:
            await write
        assert caught.value.path == "data.price"
    with pytest.raises(InvalidRecordError) as caught:
        await items.update(id, price=Decimal(-1))
    assert (caught.value.path, caught.value.record_id) == ("data.price", id)
    with pytest.raises(UsageError, match="has no field 'prize'"):
        await items.update(id, prize=1)
    with pytest.raises(UsageError, match="'id'"):
        await items.update(id, id="other")
    with pytest.raises(NotFoundError):
        await items.update("nobody", name="x")
    assert (await items.require(id)).price == Decimal(1)
    assert not await items.exists("new")


@pytest.mark.asyncio
async def test_an_update_keeps_what_the_model_does_not_know_and_returns_the_model(db: AsyncDatabase) -> None:
    """Only the changed fields are sent; types are restored in the answer."""
    items = db.collection(db.name, Item)  # type: ignore[attr-defined]
    id = await items.create(full())
    await items.untyped.update(id, {"foreign": 1})
    version = (await items.untyped.require(id)).version

    changed = await items.update(id, made=dt.date(2027, 1, 1), raw=b"\x81", if_version=version)

    assert (changed.made, changed.raw, changed.id) == (dt.date(2027, 1, 1), b"\x81", id)
    assert changed == await items.require(id)
    assert (await items.untyped.require(id))["foreign"] == 1
    with pytest.raises(ConflictError):
        await items.update(id, name="late", if_version=version)


class Span(BaseModel):
    """A rule over two fields."""

    low: int
    high: int

    @model_validator(mode="after")
    def _ordered(self) -> "Span":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


@pytest.mark.asyncio
async def test_concurrent_updates_never_store_what_the_model_refuses(db: AsyncDatabase) -> None:
    """Each is fine with what it read; together they would break the rule."""
    spans = db.collection(db.name, Span)  # type: ignore[attr-defined]
    id = await spans.create(Span(low=0, high=10))

    results = await asyncio.gather(spans.update(id, low=8), spans.update(id, high=5), return_exceptions=True)

    assert sum(isinstance(result, InvalidRecordError) for result in results) == 1
    span = await spans.require(id)
    assert span.low <= span.high


@pytest.mark.asyncio
async def test_a_batch_tells_which_models_do_not_fit(db: AsyncDatabase) -> None:
    """By place; all or nothing where the batch is atomic, the others written where it is not."""
    items = db.collection(db.name, Item)  # type: ignore[attr-defined]
    wrong = full("bad")
    wrong.price = Decimal(-1)
    batch = [full("a", id="a"), wrong, full("c", id="c")]

    with pytest.raises(BatchError) as caught:
        await items.create_batch(batch)
    kinds = [type(outcome) for outcome in caught.value.outcomes]
    assert kinds == [NotWrittenError, InvalidRecordError, NotWrittenError]
    assert await items.count() == 0

    outcomes = await items.create_batch(batch, on_error="collect", atomic=False)
    assert (outcomes[0], outcomes[2]) == ("a", "c")
    assert isinstance(outcomes[1], InvalidRecordError)
    assert outcomes[1].path == "data.price"
    assert [item.name for item in await items.search()] == ["a", "c"]
    again = await items.upsert_batch({"a": full("A"), "d": full("D")})
    assert len(again) == 2
    assert await items.get_batch(["d", "x"]) == [await items.get("d"), None]
    with pytest.raises(BatchError):
        await items.replace_batch({"a": full("1"), "missing": full("2")})


@pytest.mark.asyncio
async def test_a_stored_record_that_does_not_fit_is_named(db: AsyncDatabase) -> None:
    """Reading never returns half a model."""
    items = db.collection(db.name, Item)  # type: ignore[attr-defined]
    await items.untyped.upsert("odd", {"name": "", "parts": [{"blob": "AA=="}]})

    for read in (items.get("odd"), items.search(), items.page()):
        with pytest.raises(InvalidRecordError) as caught:
            await read
        assert caught.value.record_id == "odd"
        assert caught.value.path == "data.name"
        assert "and 1 more" in str(caught.value)


@pytest.mark.asyncio
async def test_pages_streams_and_transactions_are_typed(db: AsyncDatabase) -> None:
    """The rest of the verbs, models in and out."""
    items = db.collection(db.name, Item)  # type: ignore[attr-defined]
    receipt = await items.stream_write(full(f"n{n}", id=f"id{n}") for n in range(7))
    assert receipt.written == 7

    first = await items.page(Query().sort("name"), size=4)
    rest = await items.page(Query().sort("name"), size=4, cursor=first.cursor)
    async with items.stream(page_size=2) as stream:
        streamed = [item.name async for item in stream]

    assert [item.name for item in (*first.models, *rest.models)] == [f"n{n}" for n in range(7)]
    assert sorted(streamed) == [f"n{n}" for n in range(7)]
    async with db.transaction() as tx:
        await tx.collection(db.name, Item).update("id0", name="changed")  # type: ignore[attr-defined]
        await items.delete("id1")
    assert [(await items.require("id0")).name, await items.exists("id1")] == ["changed", False]


class Strict(BaseModel):
    """Strict, with an alias, a computed field, a validator that changes another field, nothing extra."""

    model_config = ConfigDict(strict=True, extra="forbid")

    born: dt.date = Field(alias="birthDay")
    name: str
    shout: str = ""

    @field_validator("name")
    @classmethod
    def _trimmed(cls, value: str) -> str:
        return value.strip()

    @model_validator(mode="after")
    def _shouts(self) -> "Strict":
        self.shout = self.name.upper()
        return self

    @computed_field
    def length(self) -> int:
        """How long the name is; stored, so that one can ask for it."""
        return len(self.name)


@pytest.mark.asyncio
async def test_strict_models_aliases_and_computed_fields_are_read_back(db: AsyncDatabase) -> None:
    """Fields are stored by name; a computed one can be queried; validators have their say in updates."""
    people = db.collection(db.name, Strict)  # type: ignore[attr-defined]
    id = await people.create(Strict(birthDay=dt.date(2000, 1, 2), name=" Ada "))

    changed = await people.update(id, name=" Grace ")

    assert (changed.name, changed.shout, changed.born) == ("Grace", "GRACE", dt.date(2000, 1, 2))
    assert await people.require(id) == changed
    assert await people.count(field("length") == len("Grace")) == 1
    assert (await people.untyped.require(id))["shout"] == "GRACE"


class Node(BaseModel):
    """A model that holds itself."""

    blob: bytes
    nodes: list["Node"] = []


class Photo(BaseModel):
    """Told from a note by its kind."""

    kind: Literal["photo"] = "photo"
    content: bytes


class Note(BaseModel):
    """Text that might as well be base64."""

    kind: Literal["note"] = "note"
    content: str


class Pair(NamedTuple):
    """Text and bytes by place."""

    text: str
    blob: bytes


@dataclass
class Leaf:
    """A dataclass in a model."""

    blob: bytes
    next: "Leaf | None" = None


class Header(TypedDict):
    """A dict with known keys."""

    blob: bytes


class ByName(RootModel[dict[str, "ByName | bytes"]]):
    """A model that is no object but what it holds."""


class Box(BaseModel, Generic[T]):
    """A generic model."""

    held: T


Blob = NewType("Blob", bytes)


class Held(BaseModel):
    """Bytes wherever a model may have them, and text that must not be taken for them."""

    node: Node = Node(blob=b"\xff", nodes=[Node(blob=b"abcd", nodes=[Node(blob=b"\xfe")])])
    either: list[Photo | Note] = [Photo(content=b"\xff"), Note(content="abcd"), Photo(content=b"abcd")]
    place: tuple[str, bytes] = ("abcd", b"abcd")
    places: tuple[bytes, ...] = (b"abcd", b"\xff")
    pair: Pair = Pair("abcd", b"\xff")
    leaf: Leaf = Leaf(b"abcd", Leaf(b"\xff"))
    header: Header = {"blob": b"\xff"}
    by_name: ByName = ByName({"a": b"\xff", "b": ByName({"c": b"abcd"})})
    box: Box[bytes] = Box[bytes](held=b"\xff")
    blob: Blob = Blob(b"\xff")
    sequence: Sequence[bytes] = [b"\xff", b"abcd"]
    number: bytes | int | None = b"abcd"
    one_or_more: bytes | list[bytes] = [b"abcd"]
    texts: list[str | int] = ["abcd", 1]


@pytest.mark.asyncio
async def test_bytes_come_back_from_wherever_a_model_has_them(db: AsyncDatabase) -> None:
    """In models that hold themselves, by place, in unions, under other names; text stays text."""
    held = db.collection(db.name, Held)  # type: ignore[attr-defined]

    found = await held.require(await held.create(Held()))

    assert found == Held()


@pytest.mark.parametrize(
    "mixed", [bytes | str, list[bytes] | list[str], Photo | Box[str], dict[str, bytes] | Note, bytes | Any]
)
@pytest.mark.asyncio
async def test_bytes_that_cannot_be_told_apart_are_refused(mixed: Any) -> None:
    """When the collection is made, not when somebody reads it."""
    model = create_model("Mixed", value=(mixed, ...))

    async with await AsyncDatabase.create("memory") as db:
        with pytest.raises(ConfigError, match="are ambiguous"):
            db.collection("mixed", model)


@pytest.mark.asyncio
async def test_what_cannot_be_kept_is_refused() -> None:
    """A secret would be stored as asterisks; only models are collected, and read whole."""

    class Account(BaseModel):
        password: SecretStr

    async with await AsyncDatabase.create("memory") as db:
        with pytest.raises(InvalidRecordError) as caught:
            await db.collection("accounts", Account).create(Account(password=SecretStr("x")))
        assert caught.value.path == "data.password"
        with pytest.raises(ConfigError, match="needs a pydantic model"):
            db.collection("dicts", dict)  # type: ignore[type-var]
        with pytest.raises(UsageError, match="untyped"):
            await db.collection("accounts", Account).search(Query().select("password"))
        with pytest.raises(InvalidRecordError, match="expected a Account, got Item"):
            await db.collection("accounts", Account).create(full())  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_declared_indexes_are_made_and_used(db: AsyncDatabase) -> None:
    """`Annotated[..., Indexed()]` reaches the store also for a collection that was used before."""
    await db.collection(db.name).create({"name": "before"})  # type: ignore[attr-defined]
    items = db.collection(db.name, Item)  # type: ignore[attr-defined]
    assert items.indexes == {"prefix": ("name",), "indexes": ("price", "parts.code")}
    await items.create_batch([full(f"n{n}", price=Decimal(n)) for n in range(3_000)])

    plan = await items.untyped.explain(Query().filter("price", "=", 17))

    assert (plan.index is not None) is db.capabilities.indexes


class Place(BaseModel):
    """A nested model."""

    city: str
    zip_code: str = pydantic.Field(default="", alias="zip")


class Person(BaseModel):
    """A model with an id, an alias, optional and repeated nested models, and free keys."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    id: str = ""
    name: str
    age: int | None = None
    full_name: str = pydantic.Field(default="", alias="fullName")
    home: Place | None = None
    places: list[Place] = []
    extra: dict[str, Any] = {}


@pytest.mark.asyncio
async def test_a_query_over_models_finds_by_the_names_of_the_model(db: AsyncDatabase) -> None:
    """The model's id is the record's, aliases are field names, dicts have any keys."""
    people = db.collection(db.name, Person)  # type: ignore[attr-defined]
    await people.create(
        Person(id="a", name="Ann", fullName="Ann B", home=Place(city="Oslo", zip="1"), extra={"x": {"y": 1}})
    )
    await people.create(Person(id="b", name="Bob", age=5, places=[Place(city="Rome"), Place(city="Oslo")]))

    async def find(query: Any) -> list[str]:
        return [person.id for person in await people.search(query)]

    assert await find(field("id") == "a") == ["a"]
    assert await find(Query().sort("id", "desc")) == ["b", "a"]
    assert await find(field("fullName") == "Ann B") == await find(field("full_name") == "Ann B") == ["a"]
    assert await find(field("home.zip") == "1") == ["a"]
    assert await find(field("places.city") == "Oslo") == ["b"]
    assert await find(field("extra.x.y") == 1) == ["a"]
    assert await people.count(~(field("id") == "a") & field("name").exists()) == 1
    assert await people.exists(field("fullName") == "Ann B")
    assert await people.aggregate(n="count", oldest=("max", "age")) == [{"n": 2, "oldest": 5}]
    assert await people.delete_where(field("id") == "b") == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nmae", "name"),
        ("home.citty", "city"),
        ("places.town", "Place has no field 'town'"),
        ("name.first", "'name' has no fields"),
        ("-age", r"sort\('age', 'desc'\)"),
        ("ID", "id"),
    ],
)
@pytest.mark.asyncio
async def test_a_name_that_the_model_lacks_is_an_error(name: str, hint: str) -> None:
    """It would find nothing in silence."""
    async with AsyncDatabase("memory") as db:
        people = db.collection("people", Person)
        for call in (
            lambda: people.search(field(name) == 1),
            lambda: people.search(Query().sort(name)),
            lambda: people.count(~field(name).exists()),
            lambda: people.aggregate(by=name, n="count"),
            lambda: people.aggregate(n=("max", name)),
            lambda: people.delete_where(field(name) == 1),
        ):
            with pytest.raises(QueryError, match=hint):
                await call()


@pytest.mark.asyncio
async def test_invalid_stored_records_can_be_passed_over(db: AsyncDatabase) -> None:
    """One record of another shape does not end a search or a stream, unless it is to."""
    people = db.collection(db.name, Person)  # type: ignore[attr-defined]
    await people.untyped.create_batch(
        [Record({"name": "Ann"}, id="a"), Record({"name": 3}, id="b"), Record({"name": "Cid"}, id="c")]
    )
    errors: list[InvalidRecordError] = []

    with pytest.raises(InvalidRecordError) as caught:
        await people.search()
    skipped = await people.search(on_invalid="skip")
    streamed = [person.id async for person in people.stream(Query().sort("id"), on_invalid=errors.append)]

    assert caught.value.stored
    assert caught.value.record_id == "b"
    assert [person.id for person in skipped] == streamed == ["a", "c"]
    assert [error.record_id for error in errors] == ["b"]
    with pytest.raises(UsageError, match="on_invalid"):
        people.stream(on_invalid="ignore")  # type: ignore[arg-type]
