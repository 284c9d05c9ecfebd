"""Typed queries as lambdas: they find what the same query without a model finds, in the model's types."""

import datetime as dt
import os
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import AnyUrl, BaseModel, Field, field_serializer

from isthmus import (
    AsyncDatabase,
    BatchError,
    ConflictError,
    InvalidRecordError,
    Query,
    QueryError,
    Record,
    UsageError,
    field,
)
from isthmus._ids import new_id
from isthmus.typed import (
    avg,
    count,
    each,
    f,
    like,
    max_,
    maybe,
    min_,
    not_,
    one_of,
    some,
    sum_,
)
from tests.typing.models import Address, ByCity, Color, Item, People, Person, Summary

POSTGRES = os.environ.get("ISTHMUS_TEST_POSTGRES_URL")


def persons() -> list[Person]:
    """Return persons that differ in every field a query may name."""
    return [
        Person(
            id=f"p{n}",
            name=("Ann", "Bob", "Cid")[n % 3],
            age=20 + n,
            nick=f"nick{n}" if n % 2 else None,
            height=1.5 + n / 10 if n % 3 else None,
            years=n if n % 4 else None,
            active=n % 2 == 0,
            born=dt.date(2000, 1, 1 + n),
            at=dt.datetime(2026, 1, 1 + n, tzinfo=dt.UTC),
            takes=dt.timedelta(minutes=n),
            price=Decimal(n) / 4,
            color=Color.RED if n < 5 else Color.BLUE,
            kind="member" if n % 5 == 0 else "guest",
            key=UUID(int=n),
            folder=Path(f"/tmp/{n}"),
            link=AnyUrl(f"https://example.com/{n}"),
            tags=["a", "b", "c"][: n % 4],
            items=[Item(sku="s", qty=n), Item(sku="t", qty=n + 1, note="x")][: n % 3],
            labels={"team": "red" if n < 3 else "blue"},
            address=Address(city="Oslo" if n % 2 else "Rome", zip=f"0{n}"),
            home=Address(city="Bari") if n in (2, 3) else None,
        )
        for n in range(10)
    ]


@pytest_asyncio.fixture(
    params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.backend("postgres"))]
)
async def people(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[People]:
    """A collection of ten persons on each kind of store."""
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
    async with handle as db:
        name = f"people_{new_id().replace('-', '')}"
        collection = db.collection(name, Person)
        await collection.create_batch(persons())
        yield collection
        if db.backend == "postgres":
            await db.drop_collection(db.collection_name)
            await db.drop_collection(name)


# A lambda, and what holds for exactly the same persons in Python.
CASES: list[tuple[Callable[[Person], Any], Callable[[Person], bool]]] = [
    (lambda p: p.age >= 25, lambda p: p.age >= 25),
    (lambda p: (p.age > 22) & (p.name == "Ann"), lambda p: p.age > 22 and p.name == "Ann"),
    (lambda p: (p.age < 22) | (p.name != "Ann"), lambda p: p.age < 22 or p.name != "Ann"),
    (lambda p: p.active, lambda p: p.active),
    (lambda p: p.active & (p.age <= 24), lambda p: p.active and p.age <= 24),
    (lambda p: (p.age <= 24) & p.active, lambda p: p.active and p.age <= 24),
    (lambda p: not_(p.active) | (p.color == Color.RED), lambda p: not p.active or p.color is Color.RED),
    (lambda p: ~(f(p.years) >= 3), lambda p: p.years is None or p.years < 3),
    (lambda p: f(p.years).eq(3) | f(p.years).eq(None), lambda p: p.years in (3, None)),
    (lambda p: f(p.nick).ne("nick1"), lambda p: p.nick != "nick1"),
    (lambda p: p.nick == None, lambda p: p.nick is None),  # noqa: E711
    (lambda p: f(p.nick).exists() & f(p.height).is_null(), lambda p: p.nick is not None and p.height is None),
    (lambda p: f(p.height) < 2, lambda p: p.height is not None and p.height < 2),
    (lambda p: p.born < dt.date(2000, 1, 4), lambda p: p.born < dt.date(2000, 1, 4)),
    (lambda p: p.at >= dt.datetime(2026, 1, 7, tzinfo=dt.UTC), lambda p: p.at.day >= 7),
    (lambda p: p.takes == dt.timedelta(minutes=3), lambda p: p.age == 23),
    (lambda p: p.price >= Decimal("1.5"), lambda p: p.price >= Decimal("1.5")),
    (lambda p: p.kind == "member", lambda p: p.kind == "member"),
    (lambda p: f(p.kind).in_(["member"]), lambda p: p.kind == "member"),
    (lambda p: p.key == UUID(int=7), lambda p: p.key.int == 7),
    (lambda p: p.folder == Path("/tmp/4"), lambda p: p.age == 24),
    (lambda p: p.link == AnyUrl("https://example.com/4"), lambda p: p.age == 24),
    (lambda p: one_of(p.id, ["p1", "p3", "x"]), lambda p: p.id in ("p1", "p3")),
    (lambda p: f(p.color).not_in({Color.BLUE}), lambda p: p.color is Color.RED),
    (lambda p: f(p.age).between(22, 24), lambda p: 22 <= p.age <= 24),
    (
        lambda p: f(p.born).not_between(dt.date(2000, 1, 3), dt.date(2000, 1, 9)),
        lambda p: p.age in (20, 21, 29),
    ),
    (lambda p: f(p.name).like("A%") | f(p.name).ilike("b_B"), lambda p: p.name in ("Ann", "Bob")),
    (lambda p: like(p.nick, "%3"), lambda p: p.nick == "nick3"),
    (lambda p: f(p.name).not_like("A%") & f(p.name).regex("i"), lambda p: p.name == "Cid"),
    (lambda p: f(p.name).starts_with("B") | f(p.name).ends_with("n"), lambda p: p.name in ("Ann", "Bob")),
    (lambda p: f(p.name).contains("i"), lambda p: "i" in p.name),
    (lambda p: p.address.city == "Rome", lambda p: p.address.city == "Rome"),
    (lambda p: some(p.home).city == "Bari", lambda p: p.home is not None),
    (lambda p: p.home == Address(city="Bari"), lambda p: p.home is not None),
    (lambda p: p.tags == ["a", "b"], lambda p: p.tags == ["a", "b"]),
    (lambda p: f(p.tags).has("b") & (each(p.tags) == "a"), lambda p: "b" in p.tags),
    (lambda p: each(p.items).qty >= 8, lambda p: any(item.qty >= 8 for item in p.items)),
    (lambda p: f(each(p.items).note).like("x"), lambda p: any(item.note == "x" for item in p.items)),
    (
        lambda p: f(p.items).any(lambda i: (i.sku == "s") & (i.qty >= 4)),
        lambda p: any(item.sku == "s" and item.qty >= 4 for item in p.items),
    ),
    (
        lambda p: p.active & not_(f(p.items).any(lambda i: f(i.note).exists())),
        lambda p: p.active and not any(item.note for item in p.items),
    ),
    (lambda p: p.labels["team"] == "red", lambda p: p.labels["team"] == "red"),
    (
        lambda p: (f(p.years) >= 3) & (field("name") == "Ann"),
        lambda p: (p.years or 0) >= 3 and p.name == "Ann",
    ),
]


@pytest.mark.asyncio
async def test_a_lambda_finds_what_python_finds(people: People) -> None:
    """Each form of condition, against the same condition on the models themselves."""
    for number, (condition, holds) in enumerate(CASES):
        expected = [person.id for person in persons() if holds(person)]

        found = [person.id for person in await people.search(condition)]

        assert found == expected, f"case {number}"
        assert await people.count(lambda p, tested=condition: not_(tested(p))) == 10 - len(expected)
        assert 0 < len(expected) < 10


@pytest.mark.asyncio
async def test_order_limits_and_pages(people: People) -> None:
    """Sort keys as lambdas or names; the query is immutable."""
    query = people.where(lambda p: p.age >= 22).sort(lambda p: p.active, "desc").sort("age", "desc")

    assert [p.age for p in await query.limit(3).search()] == [28, 26, 24]
    assert [p.age for p in await query.offset(6).limit(1).search()] == [25]
    assert [p.age for p in await query.search()] == [28, 26, 24, 22, 29, 27, 25, 23]
    page = await query.page(size=5)
    assert [p.age for p in (await query.page(size=5, cursor=page.cursor)).models] == [27, 25, 23]
    assert [p.age async for p in query.stream(page_size=3)] == [28, 26, 24, 22, 29, 27, 25, 23]
    by_home = await people.sort(lambda p: some(p.home).city, nulls="first").sort("id").search()
    assert [p.id for p in by_home[-2:]] == ["p2", "p3"]
    first = await query.find_one()
    assert first is not None
    assert first.age == 28
    assert await query.exists()
    assert not await people.exists(lambda p: p.age > 200)


@pytest.mark.asyncio
async def test_rows_have_the_types_of_the_model(people: People) -> None:
    """A smaller model, a field, a tuple; only these fields are read."""
    older = people.where(lambda p: p.age >= 28)

    assert await older.select(Summary).search() == [Summary(name="Cid", age=28), Summary(name="Ann", age=29)]
    assert await older.select(lambda p: p.born).search() == [dt.date(2000, 1, 9), dt.date(2000, 1, 10)]
    rows = await older.select(
        lambda p: (p.id, p.price, p.color, p.address, maybe(some(p.home).city))
    ).search()
    assert rows[0] == ("p8", Decimal(2), Color.BLUE, Address(city="Rome", zip="08"), None)
    assert [key async for key in older.select(lambda p: p.key).stream()] == [UUID(int=8), UUID(int=9)]
    assert (await older.select(lambda p: p.folder).page(size=1)).models == [Path("/tmp/8")]
    assert older.select(Summary).query.fields is not None


@pytest.mark.asyncio
async def test_groups_have_the_types_of_the_model(people: People) -> None:
    """Keys and measures as a tuple, a NamedTuple or one value."""
    everyone = persons()

    rows = await people.group(lambda p: (p.color, count(), max_(p.born), sum_(p.price)))

    assert rows == [
        (
            color,
            len(group := [p for p in everyone if p.color is color]),
            max(p.born for p in group),
            sum(p.price for p in group),
        )
        for color in (Color.BLUE, Color.RED)
    ]
    cities = await people.where(lambda p: p.age < 23).group(
        lambda p: ByCity(p.address.city, count(), max_(p.age))
    )
    assert cities == [ByCity("Oslo", 1, 21), ByCity("Rome", 2, 22)]
    assert await people.group(lambda p: p.kind) == ["guest", "member"]
    tags = await people.group(lambda p: (maybe(each(p.tags)), count()))
    assert tags == [("a", 7), ("b", 4), ("c", 2), (None, 3)]
    totals = await people.where(lambda p: p.age > 200).group(
        lambda p: (count(), count(p.nick), avg(p.age), min_(p.at), sum_(each(p.items).qty))
    )
    assert totals == [(0, 0, None, None, None)]
    assert await people.aggregate(by=lambda p: p.color, n="count", old=("max", lambda p: p.age)) == [
        {"color": "blue", "n": 5, "old": 29},
        {"color": "red", "n": 5, "old": 24},
    ]


@pytest.mark.asyncio
async def test_names_and_operands_are_converted_as_stored(people: People) -> None:
    """A field by name, an operator and a value; dates and the like as values or as text."""

    async def find(name: str, op: str, value: Any = None) -> list[str]:
        return [person.id for person in await people.where(name, op, value).search()]

    assert await find("takes", "=", dt.timedelta(minutes=3)) == await find("takes", "=", "PT3M") == ["p3"]
    assert await find("folder", "in", [Path("/tmp/1"), Path("/tmp/2")]) == ["p1", "p2"]
    assert await find("link", "=", "https://example.com/4") == ["p4"]
    assert await find("color", "=", Color.BLUE) == await find("color", "=", "blue")
    assert await find("price", ">=", Decimal("2.25")) == ["p9"]
    assert await find("born", "between", [dt.date(2000, 1, 1), "2000-01-02"]) == ["p0", "p1"]
    assert await find("id", "=", "p4") == await find("key", "=", str(UUID(int=4))) == ["p4"]
    assert await find("address.zip", "like", "%7") == ["p7"]
    assert await find("nick", "exists") == [f"p{n}" for n in range(10) if n % 2]


@pytest.mark.parametrize(
    ("name", "op", "value", "message"),
    [
        ("agee", "=", 1, "did you mean 'age'"),
        ("address.citty", "=", "x", "did you mean 'city'"),
        ("age", "=", "25", "holds int, got '25'"),
        ("takes", ">=", "soon", "holds timedelta"),
        ("at", ">=", dt.date(2026, 1, 1), "holds datetime"),
        ("color", "=", "rad", "did you mean 'red'"),
        ("age", "like", "2%", "holds int, not text"),
        ("age", "gte", 2, "did you mean '>='"),
        ("active", "=", 1, "holds bool"),
        ("takes", ">=", dt.timedelta(1), "does not sort as its values do"),
    ],
)
@pytest.mark.asyncio
async def test_a_name_or_operand_that_finds_nothing_is_refused(
    name: str, op: str, value: Any, message: str
) -> None:
    """When the query is built, with the nearest name."""
    async with AsyncDatabase("memory") as db:
        with pytest.raises(QueryError, match=message):
            db.collection("people", Person).where(name, op, value)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (lambda p: p.agee >= 1, "did you mean 'age'"),
        (lambda p: p.age >= 1 and p.active, r"\(p.age >= 20\) & \(p.age <= 30\)"),
        (lambda p: not p.active, "not_"),
        (lambda p: 1 <= p.age <= 3, r"\(p.age >= 20\) & \(p.age <= 30\)"),
        (lambda p: p.name in ["x"], r"f\(p.name\).in_"),
        (lambda p: p.name in {"x"}, r"f\(p.name\).in_"),
        (lambda p: "a" in p.tags, r"f\(p.tags\).has"),
        (lambda p: p.name.startswith("A"), r"f\(p.name\).starts_with"),
        (lambda p: p.home is None, r"f\(p.home\).is_null"),
        (lambda p: (p.age >= 1) & (p.home is None), r"f\(p.nick\).is_null"),
        (lambda p: p.items.qty == 1, r"each\(p.items\).qty"),
        (lambda p: p.items[0].qty == 1, r"each\(p.items\)"),
        (lambda p: p.labels.get("x") == "y", r"p.labels\['key'\]"),
        (lambda p: p.tags == "a", r"f\(p.tags\).has\('a'\)"),
        (lambda p: p.age + 1 > 3, "move the arithmetic"),
        (lambda p: p.color == "red", "write Color.RED"),
        (lambda p: f(p.name).likee("x"), "did you mean 'like'"),
        (lambda p: p.name == p.nick, "not with another field"),
        (lambda p: p.age, "compare it"),
        (lambda p: int("x"), "cannot express"),
        (lambda p: p.takes >= dt.timedelta(1), "does not sort as its values do"),
        (lambda p: f(p.folder).between(Path("a"), Path("b")), "does not sort as its values do"),
        (7, "expected a lambda"),
    ],
)
@pytest.mark.asyncio
async def test_what_a_query_cannot_express_says_how_to_write_it(condition: Any, message: str) -> None:
    """At build time, before any I/O."""
    async with AsyncDatabase("memory") as db:
        with pytest.raises(QueryError, match=message):
            db.collection("people", Person).where(condition)


@pytest.mark.asyncio
async def test_predicates_with_names_are_checked_too() -> None:
    """`field()` knows no model; the typed collection does."""
    async with AsyncDatabase("memory") as db:
        people = db.collection("people", Person)
        for predicate, message in [
            (field("age") == "25", "holds int, and '25' is text"),
            (field("color").in_(["red", "grean"]), "never 'grean'"),
            (~field("address").like("x"), "holds Address, not text"),
            (field("kind") == "gest", "did you mean 'guest'"),
            (field("items").any(field("qty") == "2"), "holds int"),
        ]:
            with pytest.raises(QueryError, match=message):
                await people.search(predicate)
        with pytest.raises(QueryError, match=r"write maybe\(p.home.city\)"):
            people.select(lambda p: some(p.home).city)
        with pytest.raises(QueryError, match="does not sort"):
            people.sort(lambda p: p.takes)
        with pytest.raises(QueryError, match="does not sort"):
            await people.search(Query().sort("takes"))
        with pytest.raises(QueryError, match="does not sort"):
            await people.group(lambda p: max_(p.folder))
        with pytest.raises(QueryError, match="one select"):
            people.select(Summary).select(lambda p: p.age)


class Reading(BaseModel):
    """A model with a field of a form of its own, and one of any kind."""

    taken: dt.datetime = Field(alias="takenAt")
    value: Any = None

    @field_serializer("taken")
    def _seconds(self, value: dt.datetime) -> float:
        return value.timestamp()


@pytest.mark.asyncio
async def test_fields_of_an_unknown_form_are_not_checked() -> None:
    """A serializer of the model's own decides what is stored; `Any` holds anything."""
    async with AsyncDatabase("memory") as db:
        readings = db.collection("readings", Reading)
        moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        await readings.create(Reading(takenAt=moment, value=3))

        assert await readings.count(field("takenAt") >= moment.timestamp()) == 1
        assert await readings.where("taken", "<=", moment.timestamp()).count() == 1
        assert await readings.count(lambda p: p.value == 3) == 1
        assert await readings.count(lambda p: p.value == "x") == 0


@pytest.mark.asyncio
async def test_a_carried_version_makes_writes_compare_and_set(people: People) -> None:
    """Of two that read the same version, the second is refused; the version is not part of the data."""
    first, second = await people.require("p1"), await people.require("p1")
    assert first.version is not None
    assert "version" not in (await people.untyped.require("p1")).data

    version = await people.replace("p1", first.model_copy(update={"age": 50}))
    with pytest.raises(ConflictError):
        await people.replace("p1", second)
    with pytest.raises(ConflictError):
        await people.upsert("p1", second)
    outcomes = await people.replace_batch(
        {"p1": second, "p2": await people.require("p2")}, on_error="collect", atomic=False
    )
    with pytest.raises(BatchError):
        await people.stream_write([second], upsert=True)
    third = await people.require("p3")
    receipt = await people.stream_write([second, third], upsert=True, on_error="collect")
    changed = await people.update("p1", age=51)

    assert (receipt.written, receipt.failed) == (1, 1)
    assert isinstance(receipt.errors[0], ConflictError)
    assert isinstance(outcomes.errors[0], ConflictError)
    assert 1 not in outcomes.errors
    assert changed.version not in (None, version)
    assert await people.count(lambda p: p.version == changed.version) == 1
    assert await people.replace("p1", second.model_copy(update={"version": None}))
    assert (await people.require("p1")).age == 21
    with pytest.raises(UsageError, match="'version'"):
        await people.update("p1", version="3")


@pytest.mark.asyncio
async def test_modifications_as_lambdas(people: People) -> None:
    """Values in the model's types, as they are stored; several changes as a tuple."""
    await people.modify("p3", lambda p: (f(p.age).inc(10), f(p.color).set(Color.BLUE), f(p.tags).pull("a")))
    await people.modify("p3", lambda p: f(p.price).inc(Decimal("0.25")), where=lambda p: p.age == 33)
    await people.modify("p3", lambda p: (f(p.born).max(dt.date(2001, 1, 1)), f(p.takes).set(dt.timedelta(1))))
    await people.modify("p3", lambda p: (f(p.nick).unset(), f(some(p.home).city).set("Rome")))
    with pytest.raises(ConflictError):
        await people.modify("p3", lambda p: f(p.age).inc(1), where=lambda p: p.age == 3)
    changed = await people.require("p3")

    assert (changed.age, changed.color, changed.tags, changed.price) == (
        33,
        Color.BLUE,
        ["b", "c"],
        Decimal(1),
    )
    assert (changed.born, changed.takes, changed.nick) == (dt.date(2001, 1, 1), dt.timedelta(1), None)
    assert changed.home == Address(city="Rome")
    assert await people.update_where(lambda p: p.age >= 28, lambda p: f(p.tags).add("old")) == 3
    with pytest.raises(QueryError, match="change the list itself"):
        await people.modify("p3", lambda p: f(each(p.items).qty).inc(1))


@pytest.mark.asyncio
async def test_invalid_records_and_groups_can_be_passed_over(people: People) -> None:
    """`on_invalid` is everywhere where models are read."""
    await people.untyped.create(Record({"name": "Odd", "age": "old"}, id="odd"))
    errors: list[InvalidRecordError] = []
    query = people.sort(lambda p: p.id)

    for read in (query.search(), query.page(size=20), people.group(lambda p: (p.address.city, count()))):
        with pytest.raises(InvalidRecordError):
            await read

    assert len(await query.search(on_invalid="skip")) == 10
    assert len((await query.page(size=20, on_invalid="skip")).models) == 10
    assert len([row async for row in query.select(lambda p: p.age).stream(on_invalid=errors.append)]) == 10
    assert [error.record_id for error in errors] == ["odd"]
    assert await people.group(lambda p: (p.address.city, count()), on_invalid="skip") == [
        ("Oslo", 5),
        ("Rome", 5),
    ]


@pytest.mark.asyncio
async def test_explain_delete_and_clear(people: People) -> None:
    """The rest of the methods of a collection."""
    explanation = await people.explain(lambda p: p.age >= 25)
    assert "age" in str(explanation)
    assert await people.where(lambda p: p.age >= 28).delete() == 2
    assert await people.delete_where(lambda p: p.name == "Ann") == 3
    with pytest.raises(QueryError, match="only a query's conditions"):
        await people.sort(lambda p: p.age).delete()
    with pytest.raises(UsageError, match="clear"):
        await people.delete_where(Query())
    with pytest.raises(QueryError, match="match"):
        await people.hits(lambda p: p.active)
    await people.refresh()
    assert await people.clear() == 5
