"""Typed queries at the edges of the model: dicts, unions, lists in lists, what Python decides itself."""

import datetime as dt
import enum
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, computed_field

from isthmus import AsyncDatabase, InvalidRecordError, QueryError, field
from isthmus.typed import Version, avg, count, each, f, max_, maybe, not_, sum_


class State(enum.Enum):
    """An enum of texts."""

    OPEN = "open"
    PAID = "paid"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


class Part(BaseModel):
    """An element of a list, and a value of a dict."""

    name: str
    size: int = Field(default=1, alias="sz")
    tags: list[str] = []


class Cat(BaseModel):
    """One of a union."""

    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    """The other."""

    kind: Literal["dog"] = "dog"
    owner: str


Count = NewType("Count", int)


class Thing(BaseModel):
    """A model with the fields that are harder to name."""

    id: str = ""
    version: Annotated[str | None, Version()] = None
    name: str = ""
    nick: str | None = None
    level: Level = Level.LOW
    state: State = State.OPEN
    flag: bool = False
    born: dt.date | None = None
    takes: dt.timedelta | None = None
    tags: list[str] = []
    grid: list[list[int]] = []
    parts: list[Part] = []
    main: Part | None = None
    pet: Cat | Dog = Cat(lives=9)
    labels: dict[str, str] = {}
    days: dict[str, dt.date] = {}
    limits: dict[str, Annotated[int, Field(ge=0)]] = {}
    stock: dict[State, int] = {}
    by_number: dict[int, Decimal] = {}
    by_name: dict[str, Part] = {}
    deep: dict[str, dict[str, UUID]] = {}
    free: dict[str, Any] = {}
    maybes: list[int | None] = []
    pair: tuple[int, str] | None = None
    count: Count = Count(1)

    @computed_field
    def double(self) -> int:
        """Stored beside what it is computed from."""
        return self.count * 2


THINGS = [
    Thing(
        id="a",
        name="Ann",
        nick="x",
        born=dt.date(2026, 1, 1),
        takes=dt.timedelta(hours=1),
        tags=["new"],
        grid=[[1, 2], [3]],
        parts=[Part(name="p", sz=2, tags=["t"])],
        main=Part(name="m"),
        labels={"team": "red", "a.b": "dot"},
        days={"start": dt.date(2026, 3, 1)},
        limits={"cpu": 4},
        stock={State.OPEN: 3},
        by_number={7: Decimal("1.5")},
        by_name={"one": Part(name="first", sz=8)},
        deep={"x": {"y": UUID(int=1)}},
        free={"k": 1},
        pair=(1, "x"),
    ),
    Thing(id="b", name="Bob", nick="y", pet=Dog(owner="Eve"), labels={"team": "blue"}),
    Thing(id="c", name="Cid"),
]


class Named:
    """A condition that is an object."""

    def __call__(self, thing: Thing) -> Any:
        """Return the condition."""
        return thing.nick is not None and thing.nick != "x"


def chosen(p: Thing) -> Any:
    """Return one of two conditions by something that is no field."""
    limit = None
    return p.name == "Ann" if limit is None else p.name == "Bob"


FOUND: list[tuple[Callable[[Any], Any], str]] = [
    (lambda p: p.labels["team"] == "red", "a"),
    (lambda p: p.labels["a.b"] == "dot", "a"),
    (lambda p: f(p.labels["team"]).like("b%"), "b"),
    (lambda p: not_(f(p.labels["team"]).exists()), "c"),
    (lambda p: p.days["start"] >= dt.date(2026, 2, 1), "a"),
    (lambda p: p.limits["cpu"] > 3, "a"),
    (lambda p: p.stock[State.OPEN] == 3, "a"),
    (lambda p: p.by_number[7] >= Decimal("1.5"), "a"),
    (lambda p: p.by_name["one"].size == 8, "a"),
    (lambda p: f(p.by_name["one"].tags).is_null(), "abc"),
    (lambda p: p.deep["x"]["y"] == UUID(int=1), "a"),
    (lambda p: p.free["k"] == 1, "a"),
    (lambda p: f(p.parts).any(lambda i: i.tags == ["t"]), "a"),
    (lambda p: each(each(p.parts).tags) == "t", "a"),
    (lambda p: each(each(p.grid)) == 3, "a"),
    (lambda p: p.grid == [[1, 2], [3]], "a"),
    (lambda p: p.pair == (1, "x"), "a"),
    (lambda p: p.limits == {"cpu": 4}, "a"),
    (lambda p: p.parts == [Part(name="p", sz=2, tags=["t"])], "a"),
    (lambda p: p.tags == ("new",), "a"),
    (lambda p: p.tags == [], "bc"),
    (lambda p: p.pet.kind == "dog", "b"),
    (lambda p: p.pet.owner == "Eve", "b"),
    (chosen, "a"),
]

REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    # Python decides `is`, and the query is what is left.
    (lambda p: p.nick is not None and p.nick != "x", r"f\(p.nick\).exists\(\)"),
    (lambda p: p.nick is None or p.nick == "x", r"f\(p.nick\).is_null\(\)"),
    (lambda p: p.main is not None and not_(p.main.name == "m"), r"f\(p.main\)"),
    (lambda p: p.name == "Ann" if p.nick is None else p.name == "Bob", r"f\(p.nick\)"),
    (lambda p: p.state is not State.PAID and p.name == "Ann", "write p.state == "),
    (lambda p: p.flag is True or p.name == "Ann", "write p.flag == "),
    (lambda p: f(p.parts).any(lambda i: i.size is None or i.name == "p"), r"f\(i.size\)"),
    (Named(), r"f\(p.nick\)"),
    (partial(lambda _, p: p.nick is None or p.nick == "x", 1), r"\.nick\).is_null"),
    # Values of dicts have a type.
    (lambda p: p.labels["team"] == 5, r"p.labels\['team'\]: holds str"),
    (lambda p: p.limits["cpu"] >= "x", "holds int"),
    (lambda p: p.days["start"] == "2026-03-01", "holds date"),
    (lambda p: p.by_name["one"].siz == 1, "did you mean 'size'"),
    (lambda p: p.deep["x"]["y"] == 1, "holds UUID"),
    (lambda p: p.labels[5] == "x", "its keys are str"),
    (lambda p: p.stock["open"] == 3, "its keys are State"),
    (lambda p: "team" in p.labels, r"f\(p.labels\['team'\]\).exists\(\)"),
    # Methods for fields of another type.
    (lambda p: f(p.name).has("x"), "p.name == 'x'"),
    (lambda p: f(p.tags).like("x"), r"f\(each\(p.tags\)\)"),
    (lambda p: f(p.born).like("2026%"), r"field\('born'\)"),
    (lambda p: f(p.state).starts_with("o"), r"field\('state'\)"),
    (lambda p: f(p.name).nearest([1.0]), "list of numbers"),
    # Lists that nothing equals.
    (lambda p: p.name == ["x"], "got a list"),
    (lambda p: each(p.parts).tags == ["t"], r"f\(p.items\).any"),
    (lambda p: each(p.grid) == [1, 2], "one element"),
    (lambda p: f(p.maybes).has(None), r"f\(p.maybes\).is_null"),
    (lambda p: p.pair == (1, 2), r"\[1\]: Input should be a valid string"),
    (lambda p: p.grid == [1, 2], "never equals"),
    (lambda p: p.limits == {"cpu": "many"}, r"\['cpu'\]: Input should be a valid integer"),
    # How to write it.
    (lambda p: p.level == 1, "write Level.LOW"),
    (lambda p: p.pet.kind == "cow", "'cat' or 'dog'"),
    (lambda p: p.born.year == 2026, r"f\(p.born\).between"),
    (lambda p: p.state.value == "paid", "with a member"),
    (lambda p: p.pet.kind.upper() == "CAT", "ilike"),
    (lambda p: p.pet.kind.first == "c", "compare p.pet.kind itself"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_fields_below_dicts_and_unions_are_found(backend: str) -> None:
    """A value of a dict is named by its key, and is compared in its type."""
    async with await AsyncDatabase.create(backend) as db:
        things = db.collection("things", Thing)
        await things.create_batch(THINGS)

        for condition, ids in FOUND:
            assert "".join([thing.id for thing in await things.search(condition)]) == ids


@pytest.mark.asyncio
@pytest.mark.parametrize(("condition", "message"), REFUSED)
async def test_what_would_find_something_else_is_refused(condition: Any, message: str) -> None:
    """With what to write instead, when the query is built."""
    async with AsyncDatabase("memory") as db:
        with pytest.raises(QueryError, match=message):
            db.collection("things", Thing).where(condition)


@pytest.mark.asyncio
async def test_names_have_the_types_of_dicts_too() -> None:
    """The same checks hold for text names, with values converted as stored."""
    async with AsyncDatabase("memory") as db:
        things = db.collection("things", Thing)
        await things.create_batch(THINGS)

        assert await things.where("days.start", "<=", "2026-03-01").count() == 1
        assert await things.where("parts", "any", field("size") == 2).count() == 1
        for name, op, value in [
            ("labels.team", "=", 5),
            ("days.start", "=", "soon"),
            ("name", "=", ["x"]),
            ("parts", "any", field("siz") == 2),
        ]:
            with pytest.raises(QueryError):
                things.where(name, op, value)
        assert await things.count(field("born") >= "2025") == 1
        for unparsed in (field("born") >= "soon", field("born") == "2026", field("born").in_(["2026-13-01"])):
            with pytest.raises(QueryError, match="born: holds date, and"):
                things.where(unparsed)


@pytest.mark.asyncio
async def test_rows_read_versions_and_values_of_dicts() -> None:
    """They have the types that the checker sees: a key may be missing, and a version is never None."""
    async with AsyncDatabase("memory") as db:
        things = db.collection("things", Thing)
        await things.create_batch(THINGS)
        versions = [thing.version for thing in await things.search()]

        assert await things.select(lambda p: p.version).search() == versions
        days = things.select(lambda p: (p.id, maybe(p.days["start"]), p.pet.kind))
        assert await days.search() == [
            ("a", dt.date(2026, 3, 1), "cat"),
            ("b", None, "dog"),
            ("c", None, "cat"),
        ]
        with pytest.raises(QueryError, match=r"write maybe\(p.labels\['team'\]\)"):
            things.select(lambda p: p.labels["team"])
        groups = await things.group(lambda p: (maybe(p.days["start"]), count()))
        assert groups == [(dt.date(2026, 3, 1), 1), (None, 2)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "row",
    [
        lambda p: sum_(p.name),
        lambda p: sum_(p.flag),
        lambda p: sum_(p.level),
        lambda p: avg(p.born),
        lambda p: max_(p.tags),
        lambda p: max_(p.main),
        lambda p: (p.main, count()),
    ],
)
async def test_a_measure_without_a_meaning_is_refused(row: Any) -> None:
    """It would be None, or a value of another type than the field's."""
    async with AsyncDatabase("memory") as db:
        with pytest.raises(QueryError):
            await db.collection("things", Thing).group(row)


@pytest.mark.asyncio
async def test_rows_say_what_they_take() -> None:
    """A name is no row, and a group has no order of records."""
    async with AsyncDatabase("memory") as db:
        things: Any = db.collection("things", Thing)
        with pytest.raises(QueryError, match="expected a lambda"):
            things.select("name")
        with pytest.raises(QueryError, match=r"group\(\) takes conditions"):
            await things.sort("name").group(lambda p: (p.name, count()))


@pytest.mark.asyncio
async def test_changes_below_dicts_are_checked() -> None:
    """A wrong value would make the record unreadable; the text of a duration is not its order."""
    async with AsyncDatabase("memory") as db:
        things = db.collection("things", Thing)
        await things.create_batch(THINGS)

        await things.modify(
            "a",
            lambda p: (
                f(p.labels["team"]).set("green"),
                f(p.days["end"]).set(dt.date(2026, 4, 1)),
                f(p.by_name["one"].size).inc(1),
                f(p.stock[State.PAID]).inc(2),
                f(p.limits["cpu"]).max(9),
                f(p.count).inc(1),
            ),
        )
        changed = await things.require("a")
        assert changed.labels["team"] == "green"
        assert changed.days["end"] == dt.date(2026, 4, 1)
        assert changed.by_name["one"].size == 9
        assert changed.stock[State.PAID] == 2
        assert changed.limits == {"cpu": 9}
        assert changed.double == 4

        wrong: list[Any] = [
            lambda p: f(p.labels["team"]).set(5),
            lambda p: f(p.labels["team"]).inc(1),
            lambda p: f(p.limits["cpu"]).set(-1),
            lambda p: f(p.days["end"]).set(dt.datetime(2026, 4, 1, tzinfo=dt.UTC)),
            lambda p: f(p.takes).max(dt.timedelta(days=3)),
            lambda p: f(p.double).set(3),
            field("labels.team").set(5),
            field("limits.cpu").set("x"),
        ]
        for change in wrong:
            with pytest.raises((QueryError, InvalidRecordError)):
                await things.modify("a", change)
        assert await things.require("a") == changed


class Account(BaseModel):
    """A model with a field that is never stored."""

    name: str
    secret: str = Field(default="", exclude=True)


@pytest.mark.asyncio
async def test_a_field_that_is_not_stored_is_refused_where_it_is_named() -> None:
    """It would find nothing, whatever the model holds."""
    async with AsyncDatabase("memory", {}) as db:
        accounts = db.collection("accounts", Account)
        await accounts.create(Account(name="a", secret="x"))
        for build in (
            lambda: accounts.where(lambda p: p.secret == "x"),
            lambda: accounts.where("secret", "=", "x"),
            lambda: accounts.where(lambda p: p.name == "a").sort(lambda p: p.secret),
        ):
            with pytest.raises(QueryError, match="not stored"):
                await build().count()
        assert await accounts.where(lambda p: p.name == "a").count() == 1


class Access(enum.Flag):
    """Rights, which can be united."""

    READ = 1
    WRITE = 2


class Guarded(BaseModel):
    """A model with flags."""

    access: Access


@pytest.mark.asyncio
async def test_a_union_of_flags_is_found_by_its_number(db: AsyncDatabase) -> None:
    """By name, by `field()` and in a list; a number with another bit equals nothing (§3)."""
    guarded = db.collection("guarded", Guarded)
    await guarded.create(Guarded(access=Access.READ | Access.WRITE))
    await guarded.create(Guarded(access=Access(0)))

    for number in (3, 3.0, Access.READ | Access.WRITE):
        assert await guarded.where("access", "=", number).count() == 1
        assert await guarded.where("access", "in", [number]).count() == 1
        assert await guarded.count(field("access") == number) == 1
    assert await guarded.where("access", "=", 0).count() == 1
    assert await guarded.where("access", "!=", 1).count() == 2
    for other in (4, 1.5, -1, True, "3", float("inf")):
        with pytest.raises(QueryError):
            guarded.where("access", "=", other)
    with pytest.raises(QueryError, match=r"write Access\(3\)"):
        guarded.where(lambda g: g.access == 3)  # type: ignore[arg-type,return-value,comparison-overlap]
