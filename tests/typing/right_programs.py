"""Programs that are right: mypy, pyright and ty pass them, and each runs. One function is one program."""

import datetime as dt
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

from pydantic import AnyUrl

from isthmus import AsyncDatabase, Explanation, Outcomes, Query, Record, Transaction, field
from isthmus.typed import (
    TypedPage,
    TypedQuery,
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

# Conditions on plain fields


def compare_number(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.age >= 25)


def compare_number_with_float(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.age > 24.5)


def equal_number(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.age == 25)


def unequal_text(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.name != "Ann")


def both(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: (p.age >= 25) & (p.name == "Ann"))


def either(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: (p.age >= 25) | (p.name == "Ann"))


def three_conditions(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: (p.age >= 25) & (p.name == "Ann") | p.active)


def bool_field(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.active)


def bool_field_and_more(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.active & (p.age > 3))


def negated_bool_field(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: not_(p.active))


def negated_condition(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: not_((p.age >= 25) & p.active))


def equal_none(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.nick == None)


def optional_equality(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.years == 3)


def enum_member(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.color == Color.RED)


def literal_value(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.kind == "member")


def datetime_bound(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.at >= dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def date_bound(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.born < dt.date(2026, 1, 1))


def duration(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.takes == dt.timedelta(minutes=3))


def decimal_bound(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.price >= Decimal("1.5"))


def uuid(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.key == UUID(int=7))


def path(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.folder == Path("/tmp"))


def url(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.link == AnyUrl("https://example.com/a"))


def id_field(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.id == "a")


def nested_field(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.address.city == "Rome")


def whole_list(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.tags == ["a", "b"])


def nested_model(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.home == Address(city="Rome"))


def key_of_dict(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.labels["team"] == "red")


def repeated_where(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.age >= 25).where(lambda p: p.active)


# Conditions by helpers


def optional_number(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.years) >= 3)


def optional_float_with_int(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.height) < 2)


def optional_by_method(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.years).eq(3) | f(p.nick).ne("x"))


def mixed_forms(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: (f(p.years) >= 3) & (p.name == "Ann"))


def mixed_forms_other_way(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: (p.name == "Ann") & (f(p.years) >= 3))


def inverted(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: ~(f(p.years) >= 3))


def like_method(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.name).like("A%") & f(p.nick).not_like("%x"))


def like_function(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: like(p.nick, "A%"))


def text_methods(people: People) -> TypedQuery[Person, Person]:
    return people.where(
        lambda p: f(p.name).starts_with("A") | f(p.name).ends_with("n") | f(p.name).contains("n")
    )


def folded_and_regex(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.name).ilike("a%") & f(p.nick).regex("^x"))


def members(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.age).in_([25, 26]) & f(p.color).not_in({Color.BLUE}))


def members_function(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: one_of(p.age, [25, 26]))


def literal_members(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.kind).in_(["guest"]) & f(p.kind).like("g%"))


def ranges(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.age).between(20, 30) & f(p.years).not_between(1, 2))


def dates_between(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.born).between(dt.date(1999, 1, 1), dt.date(2001, 1, 1)))


def existence(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.nick).exists() | f(p.home).is_null())


def optional_nested(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: some(p.home).city == "Rome")


def optional_nested_like(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(some(p.home).zip).like("0%"))


def element_of_list(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.tags).has("a"))


def each_text(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: each(p.tags) == "a")


def each_model(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: (each(p.items).qty >= 2) & f(each(p.items).note).like("x%"))


def one_element(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: f(p.items).any(lambda i: (i.sku == "a") & (i.qty >= 2)) & p.active)


def not_one_element(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: not_(f(p.items).any(lambda i: f(i.note).like("x%"))))


def untyped_predicate(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: (f(p.years) >= 3) & (field("name") == "Ann"))


def predicate_with_names(people: People) -> TypedQuery[Person, Person]:
    return people.where((field("address.city") == "Rome") & (field("age") >= 25))


def names(people: People) -> TypedQuery[Person, Person]:
    return people.where("color", "=", Color.RED).where("takes", "=", dt.timedelta(1)).where("nick", "exists")


def query_with_names(people: People) -> TypedQuery[Person, Person]:
    return people.where(Query().filter("age", ">=", 25).any_of(field("name") == "Ann"))


# Order, limits, rows


def sorted_query(people: People) -> TypedQuery[Person, Person]:
    return (
        people.sort(lambda p: p.age, "desc").sort(lambda p: p.address.city, nulls="first").limit(3).offset(1)
    )


def sorted_by_optional(people: People) -> TypedQuery[Person, Person]:
    return people.where(lambda p: p.active).sort(lambda p: some(p.home).city).sort("name")


def smaller_model(people: People) -> None:
    assert_type(people.where(lambda p: p.active).select(Summary), TypedQuery[Person, Summary])


def selected_field(people: People) -> None:
    assert_type(people.select(lambda p: p.born), TypedQuery[Person, dt.date])


def selected_fields(people: People) -> None:
    assert_type(
        people.select(lambda p: (p.name, p.age, p.home)),
        TypedQuery[Person, tuple[str, int, Address | None]],
    )


def selected_optional(people: People) -> None:
    assert_type(people.select(lambda p: maybe(some(p.home).city)), TypedQuery[Person, str | None])


def selected_list(people: People) -> None:
    assert_type(people.select(lambda p: p.items), TypedQuery[Person, list[Item]])


# Running


async def searches(people: People) -> None:
    assert_type(await people.search(lambda p: p.age >= 25), list[Person])
    assert_type(await people.where(lambda p: p.age >= 25).search(on_invalid="skip"), list[Person])
    assert_type(await people.search(field("age") >= 25), list[Person])
    assert_type(await people.search(), list[Person])


async def other_reads(people: People) -> None:
    assert_type(await people.find_one(lambda p: p.active), Person | None)
    assert_type(await people.count(lambda p: p.active), int)
    assert_type(await people.exists(lambda p: p.active), bool)
    assert_type(await people.where(lambda p: p.active).exists(), bool)
    assert_type(await people.explain(lambda p: p.active), Explanation)


async def pages(people: People) -> None:
    page = await people.page(lambda p: p.active, size=2)
    assert_type(page, TypedPage[Person])
    assert_type(page.models, list[Person])
    assert_type((await people.page(lambda p: p.active, size=2, cursor=page.cursor)).models, list[Person])
    assert_type(await people.select(lambda p: p.age).page(size=2), TypedPage[int])


async def streams(people: People) -> None:
    async with people.stream(lambda p: p.active, on_invalid=print) as stream:
        assert_type([person.name async for person in stream], list[str])
    async for age in people.select(lambda p: p.age).stream():
        assert_type(age, int)


async def groups(people: People) -> None:
    assert_type(
        await people.group(lambda p: (p.address.city, count(), max_(p.age))),
        list[tuple[str, int, int | None]],
    )
    assert_type(await people.group(lambda p: p.color), list[Color])


async def named_groups(people: People) -> None:
    rows = await people.where(lambda p: p.active).group(
        lambda p: ByCity(p.address.city, count(), max_(p.age))
    )
    assert_type(rows, list[ByCity])


async def totals(people: People) -> None:
    rows = await people.group(lambda p: (sum_(p.price), avg(p.height), min_(p.born), sum_(each(p.items).qty)))
    assert_type(rows, list[tuple[Decimal | None, float | None, dt.date | None, int | None]])


async def groups_of_elements(people: People) -> None:
    assert_type(await people.group(lambda p: (maybe(each(p.tags)), count())), list[tuple[str | None, int]])
    assert_type(
        await people.group(lambda p: (maybe(some(p.home).city), count())), list[tuple[str | None, int]]
    )


async def aggregates_by_name(people: People) -> None:
    rows = await people.aggregate(lambda p: p.active, by=lambda p: p.color, n="count", oldest=("max", "age"))
    assert_type(rows, list[dict[str, Any]])


async def removals(people: People) -> None:
    assert_type(await people.delete_where(lambda p: p.age > 200), int)
    assert_type(await people.where(lambda p: p.age > 200).delete(), int)
    assert_type(await people.clear(), int)


# Writing


async def writes(people: People) -> None:
    person = Person(name="Ann", age=25)
    id = await people.create(person)
    assert_type(id, str)
    assert_type(await people.replace(id, person), str)
    assert_type(await people.upsert("x", person), str)
    assert_type(await people.update(id, age=26), Person)
    assert_type(await people.delete(id), bool)


async def batches(people: People) -> None:
    person = Person(name="Ann", age=25)
    assert_type(await people.create_batch([person, person]), Outcomes[str])
    assert_type(await people.upsert_batch({"x": person}), Outcomes[str])
    assert_type(await people.get_batch(["x"]), list[Person | None])


async def carried_version(people: People) -> None:
    person = await people.require(await people.create(Person(name="Ann", age=25)))
    assert_type(person.version, str | None)
    assert_type(await people.replace(person.id, person), str)


async def streamed_writes(people: People) -> None:
    async def source() -> AsyncIterator[Person]:
        yield Person(name="Ann", age=25)

    assert_type((await people.stream_write(source())).written, int)


async def modifications(people: People) -> None:
    assert_type(await people.modify("a", lambda p: f(p.age).inc(1), where=lambda p: p.active), str)
    await people.modify("a", lambda p: (f(p.name).set("x"), f(p.tags).push("a", "b"), f(p.height).inc(0.5)))
    await people.modify("b", lambda p: f(p.price).inc(Decimal("1.5")), lambda p: f(p.nick).unset())
    assert_type(await people.update_where(lambda p: p.active, lambda p: f(p.years).max(3)), int)


async def modifications_by_name(people: People) -> None:
    await people.modify("a", field("age").inc(1), lambda p: f(p.color).set(Color.BLUE))
    await people.modify_batch({"a": [field("age").inc(1)], "b": [field("name").set("B")]})
    assert_type(await people.modify_batch([("c", lambda p: f(p.age).inc(1), None)]), Outcomes[str])


# Databases, queries and transactions without a model


async def untyped_verbs(db: AsyncDatabase) -> None:
    assert_type(await db.create({"n": 1}), str)
    assert_type(await db.create(Record({"n": 1}, id="r1")), str)
    assert_type(await db.get("r1"), Record | None)
    assert_type(await db.search(Query().filter("n", ">=", 1).sort("n", "desc").limit(5)), list[Record])


async def untyped_predicates(db: AsyncDatabase) -> None:
    assert_type(await db.count((field("n") >= 1) & ~field("m").exists()), int)
    assert_type(await db.find_one(field("n").in_([1, 2]) | field("s").like("a%")), Record | None)


async def typed_in_transaction(db: AsyncDatabase) -> None:
    async with db.transaction() as tx:
        people = tx.collection("people", Person)
        assert_type(await people.where(lambda p: p.age >= 25).search(for_update=True), list[Person])
        assert_type(await people.get("x", for_update=True), Person | None)


async def run_returns_what_the_function_returns(db: AsyncDatabase) -> None:
    async def work(tx: Transaction) -> int:
        return await tx.collection("people", Person).count(lambda p: p.active)

    assert_type(await db.run(work), int)


async def savepoints(tx: Transaction) -> None:
    async with tx.savepoint():
        assert_type(await tx.create({"n": 1}), str)
    assert_type(await tx.count(), int)
