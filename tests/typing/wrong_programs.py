"""Programs that are wrong. One function is one program; a comment says which checkers see it.

A program that one of them lets through is refused when it is run, before any I/O.
"""

import datetime as dt
from typing import assert_type

from isthmus import AsyncDatabase, Query, Transaction, field
from isthmus.typed import TypedQuery, count, each, f, like, not_, one_of, some, sum_
from tests.typing.models import Color, Foreign, People, Person, Summary


# Dicts and None


def key_of_another_type(people: People) -> None:
    people.where(lambda p: p.labels[5] == "red")  # red: mypy pyright ty


def value_of_a_dict(people: People) -> None:
    people.where(lambda p: f(p.labels["team"]).eq(5))  # red: mypy pyright ty


def change_of_a_dict(people: People) -> object:
    return people.modify("x", lambda p: f(p.labels["team"]).set(5))  # red: mypy pyright ty


def none_by_is(people: People) -> None:
    people.where(lambda p: p.nick is None or p.nick == "x")  # red: refused


def enum_by_is(people: People) -> None:
    people.where(lambda p: p.color is not Color.RED and p.active)  # red: refused


def narrowed_by_is(people: People) -> None:
    people.where(lambda p: p.home is not None and not_(p.home.city == "Oslo"))  # red: refused


def sum_of_bools(people: People) -> object:
    return people.group(lambda p: sum_(p.active))  # red: refused


def list_of_a_list(people: People) -> None:
    people.where(lambda p: p.name == ["x"])  # red: mypy pyright refused


# Names


def misspelt_field(people: People) -> None:
    people.where(lambda p: p.agee >= 25)  # red: mypy pyright ty


def misspelt_nested(people: People) -> None:
    people.where(lambda p: p.address.town == "Rome")  # red: mypy pyright ty


def misspelt_optional_nested(people: People) -> None:
    people.where(lambda p: some(p.home).town == "Rome")  # red: mypy pyright ty


def misspelt_element(people: People) -> None:
    people.where(lambda p: each(p.items).skuu == "a")  # red: mypy pyright ty


def misspelt_in_f(people: People) -> None:
    people.where(lambda p: f(p.agee) >= 3)  # red: mypy pyright ty


def misspelt_sort(people: People) -> None:
    people.sort(lambda p: p.agee)  # red: mypy pyright ty


def misspelt_selection(people: People) -> None:
    people.select(lambda p: (p.name, p.agee))  # red: mypy pyright ty


def field_of_a_list(people: People) -> None:
    people.where(lambda p: p.items.qty == 1)  # red: mypy pyright ty


def field_of_optional(people: People) -> None:
    people.where(lambda p: p.home.city == "Rome")  # red: mypy pyright ty


def field_of_text(people: People) -> None:
    people.where(lambda p: p.name.first == "A")  # red: mypy pyright ty


def attribute_of_dict(people: People) -> None:
    people.where(lambda p: p.labels.team == "red")  # red: mypy pyright ty


def misspelt_method(people: People) -> None:
    people.where(lambda p: f(p.name).likee("A%"))  # red: mypy pyright ty


def method_of_text(people: People) -> None:
    people.where(lambda p: p.name.startswith("A"))  # red: refused


def method_of_datetime(people: People) -> None:
    people.where(lambda p: p.at.isoformat() == "2026")  # red: refused


def attribute_of_datetime(people: People) -> None:
    people.where(lambda p: p.at.year == 2026)  # red: refused


def method_of_model(people: People) -> None:
    people.where(lambda p: p.model_dump())  # red: mypy pyright ty


def method_of_dict(people: People) -> None:
    people.where(lambda p: p.labels.get("team") == "red")  # red: refused


# Types of operands


def number_with_text(people: People) -> None:
    people.where(lambda p: p.age >= "25")  # red: mypy pyright ty


def number_equal_text(people: People) -> None:
    people.where(lambda p: p.age == "25")  # red: mypy pyright, refused


def number_eq_text(people: People) -> None:
    people.where(lambda p: f(p.age).eq("25"))  # red: mypy pyright ty


def text_with_number(people: People) -> None:
    people.where(lambda p: p.name == 3)  # red: mypy pyright, refused


def text_order_number(people: People) -> None:
    people.where(lambda p: p.name < 3)  # red: mypy pyright ty


def optional_without_f(people: People) -> None:
    people.where(lambda p: p.years >= 3)  # red: mypy pyright ty


def optional_with_text(people: People) -> None:
    people.where(lambda p: f(p.years) >= "3")  # red: mypy pyright ty


def optional_equal_text(people: People) -> None:
    people.where(lambda p: f(p.years) == "3")  # red: refused


def enum_with_its_value(people: People) -> None:
    people.where(lambda p: p.color == "red")  # red: mypy pyright, refused


def enum_of_another_value(people: People) -> None:
    people.where(lambda p: f(p.color).in_(["red"]))  # red: mypy pyright ty


def literal_with_another(people: People) -> None:
    people.where(lambda p: p.kind == "gest")  # red: mypy pyright, refused


def datetime_with_text(people: People) -> None:
    people.where(lambda p: p.at >= "2026-01-01")  # red: mypy pyright ty


def datetime_with_date(people: People) -> None:
    people.where(lambda p: p.at >= dt.date(2026, 1, 1))  # red: refused


def date_with_number(people: People) -> None:
    people.where(lambda p: p.born < 2026)  # red: mypy pyright ty


def decimal_with_text(people: People) -> None:
    people.where(lambda p: p.price >= "1.5")  # red: mypy pyright ty


def duration_with_number(people: People) -> None:
    people.where(lambda p: p.takes >= 3)  # red: mypy pyright ty


def uuid_with_text(people: People) -> None:
    people.where(lambda p: p.key == "00000000-0000-0000-0000-000000000007")  # red: refused


def path_with_text(people: People) -> None:
    people.where(lambda p: p.folder == "/tmp")  # red: mypy pyright, refused


def url_with_text(people: People) -> None:
    people.where(lambda p: p.link == "https://example.com")  # red: refused


def nested_with_text(people: People) -> None:
    people.where(lambda p: p.address == "Rome")  # red: mypy pyright, refused


def list_with_element(people: People) -> None:
    people.where(lambda p: p.tags == "a")  # red: mypy pyright, refused


def members_of_another_type(people: People) -> None:
    people.where(lambda p: f(p.age).in_(["a"]))  # red: mypy pyright ty


def members_function_of_another_type(people: People) -> None:
    people.where(lambda p: one_of(p.age, ["a"]))  # red: refused


def members_of_text(people: People) -> None:
    people.where(lambda p: f(p.name).in_(3))  # red: mypy pyright ty


def bounds_of_text(people: People) -> None:
    people.where(lambda p: f(p.age).between("a", "b"))  # red: mypy pyright ty


def like_on_number(people: People) -> None:
    people.where(lambda p: f(p.age).like("2%"))  # red: mypy pyright ty


def like_function_on_number(people: People) -> None:
    people.where(lambda p: like(p.age, "2%"))  # red: mypy pyright ty


def contains_on_list(people: People) -> None:
    people.where(lambda p: f(p.tags).contains("a"))  # red: mypy pyright ty


def pattern_of_number(people: People) -> None:
    people.where(lambda p: f(p.name).like(3))  # red: mypy pyright ty


def has_on_text(people: People) -> None:
    people.where(lambda p: f(p.name).has("A"))  # red: mypy pyright ty


def has_another_type(people: People) -> None:
    people.where(lambda p: f(p.tags).has(3))  # red: mypy pyright ty


def each_of_number(people: People) -> None:
    people.where(lambda p: each(p.age) == 3)  # red: mypy pyright ty


def element_with_text(people: People) -> None:
    people.where(lambda p: each(p.items).qty >= "2")  # red: mypy pyright ty


def any_misspelt(people: People) -> None:
    people.where(lambda p: f(p.items).any(lambda i: i.skuu == "a"))  # red: mypy pyright ty


def any_with_text(people: People) -> None:
    people.where(lambda p: f(p.items).any(lambda i: i.qty >= "2"))  # red: mypy pyright ty


def any_on_text(people: People) -> None:
    people.where(lambda p: f(p.name).any(lambda c: c == "a"))  # red: mypy pyright ty


def any_of_the_record(people: People) -> None:
    people.where(lambda p: f(p.items).any(lambda i: (i.sku == "a") & p.active))  # red: refused


def any_of_scalars(people: People) -> None:
    people.where(lambda p: f(p.tags).any(lambda t: t == "a"))  # red: refused


def key_of_a_list(people: People) -> None:
    people.where(lambda p: p.tags["a"] == "b")  # red: mypy pyright ty


def nearest_on_text(people: People) -> None:
    people.where(lambda p: f(p.name).nearest([1.0]))  # red: mypy pyright ty


# Forms that Python decides itself


def python_and(people: People) -> None:
    people.where(lambda p: p.age >= 25 and p.name == "Ann")  # red: refused


def python_or(people: People) -> None:
    people.where(lambda p: p.age >= 25 or p.name == "Ann")  # red: refused


def python_not(people: People) -> None:
    people.where(lambda p: not p.active)  # red: refused


def python_not_f(people: People) -> None:
    people.where(lambda p: not f(p.active))  # red: pyright, refused


def python_and_f(people: People) -> None:
    people.where(lambda p: f(p.age) >= 25 and f(p.age) <= 30)  # red: refused


def chained_comparison(people: People) -> None:
    people.where(lambda p: 20 <= p.age <= 30)  # red: refused


def chained_f(people: People) -> None:
    people.where(lambda p: 20 <= f(p.age) <= 30)  # red: refused


def conditional(people: People) -> None:
    people.where(lambda p: p.active if p.age else p.nick == "x")  # red: refused


def in_a_list(people: People) -> None:
    people.where(lambda p: p.name in ["Ann", "Bob"])  # red: refused


def in_a_set(people: People) -> None:
    people.where(lambda p: p.name in {"Ann"})  # red: refused


def in_a_field(people: People) -> None:
    people.where(lambda p: "a" in p.tags)  # red: refused


def is_none(people: People) -> None:
    people.where(lambda p: p.nick is None)  # red: refused


def is_none_and_more(people: People) -> None:
    people.where(lambda p: (p.age >= 3) & (p.nick is None))  # red: refused


def arithmetic(people: People) -> None:
    people.where(lambda p: p.age + 1 > 25)  # red: refused


def length(people: People) -> None:
    people.where(lambda p: len(p.tags) > 1)  # red: refused


def number_of_text(people: People) -> None:
    people.where(lambda p: int(p.name) == 3)  # red: refused


def formatted(people: People) -> None:
    people.where(lambda p: f"{p.name}" == "Ann")  # red: refused


def two_fields(people: People) -> None:
    people.where(lambda p: p.name == p.nick)  # red: refused


def constant(people: People) -> None:
    people.where(lambda p: True)  # red: refused


def no_condition(people: People) -> None:
    people.where(lambda p: p.age)  # red: mypy pyright ty


def the_model_itself(people: People) -> None:
    people.where(lambda p: p)  # red: mypy pyright ty


def nothing(people: People) -> None:
    people.where(lambda p: None)  # red: mypy pyright ty


def not_a_function(people: People) -> None:
    people.where(25)  # red: mypy pyright ty


def two_parameters(people: People) -> None:
    people.where(lambda p, q: p.age >= q)  # red: mypy pyright ty


# Order, limits, rows


def unknown_direction(people: People) -> None:
    people.sort(lambda p: p.age, "down")  # red: mypy pyright ty


def unknown_nulls(people: People) -> None:
    people.sort(lambda p: p.age, nulls="middle")  # red: mypy pyright ty


def sort_by_condition(people: People) -> None:
    people.sort(lambda p: p.age >= 3)  # red: refused


def limit_of_text(people: People) -> None:
    people.where(lambda p: p.active).limit("3")  # red: mypy pyright ty


def negative_limit(people: People) -> None:
    people.where(lambda p: p.active).limit(-1)  # red: refused


def foreign_model(people: People) -> None:
    people.select(Foreign)  # red: refused


def selected_constant(people: People) -> None:
    people.select(lambda p: (p.name, 3))  # red: refused


def selected_below_optional(people: People) -> None:
    people.select(lambda p: (p.name, some(p.home).city))  # red: refused


def selected_below_list(people: People) -> None:
    people.select(lambda p: each(p.items).qty)  # red: refused


def selected_twice(people: People) -> None:
    people.select(Summary).select(lambda p: p.name)  # red: refused


def wrong_result_of_selection(people: People) -> None:
    assert_type(people.select(lambda p: p.name), TypedQuery[Person, int])  # red: mypy pyright ty


def wrong_on_invalid(people: People) -> None:
    people.stream(on_invalid="ignore")  # red: mypy pyright ty


def name_of_no_field(people: People) -> None:
    people.where("agee", "=", 3)  # red: refused


def unknown_operator(people: People) -> None:
    people.where("age", "~", 3)  # red: refused


def name_with_text_for_number(people: People) -> None:
    people.where("age", "=", "25")  # red: refused


def name_of_unknown_member(people: People) -> None:
    people.where("color", "=", "rde")  # red: refused


def predicate_of_no_field(people: People) -> None:
    people.where(field("agee") >= 3)  # red: refused


# Running


async def group_of_a_list(people: People) -> None:
    await people.group(lambda p: (p.tags, count()))  # red: refused


async def sum_of_text(people: People) -> None:
    await people.group(lambda p: sum_(p.name))  # red: mypy pyright ty


async def group_of_constant(people: People) -> None:
    await people.group(lambda p: (p.name, 3))  # red: refused


async def wrong_row_type(people: People) -> None:
    rows: list[tuple[str, str]] = await people.group(lambda p: (p.name, count()))  # red: mypy pyright ty


async def wrong_search_type(people: People) -> None:
    found: list[Summary] = await people.search(lambda p: p.active)  # red: mypy pyright ty


async def optional_result(people: People) -> None:
    (await people.find_one(lambda p: p.active)).name  # red: mypy pyright ty


async def misspelt_result(people: People) -> None:
    (await people.require("a")).agee  # red: mypy pyright ty


async def misspelt_page(people: People) -> None:
    (await people.page()).records  # red: mypy pyright ty


async def highlight_of_no_field(people: People) -> None:
    await people.hits(lambda p: f(p.name).match("a"), highlights=[lambda p: p.nmae])  # red: mypy pyright ty


async def hits_without_match(people: People) -> None:
    await people.hits(lambda p: p.active)  # red: refused


async def limited_count(people: People) -> None:
    await people.where(lambda p: p.active).limit(3).count()  # red: refused


# Writing


async def create_of_a_dict(people: People) -> None:
    await people.create({"name": "Ann", "age": 3})  # red: mypy pyright ty


async def create_of_another_model(people: People) -> None:
    await people.create(Summary(name="Ann", age=3))  # red: mypy pyright ty


async def update_of_no_field(people: People) -> None:
    await people.update("a", agee=3)  # red: refused


async def missing_field(people: People) -> None:
    await people.create(Person(name="Ann"))  # red: mypy pyright ty


async def version_of_a_number(people: People) -> None:
    await people.replace("a", Person(name="A", age=1), if_version=3)  # red: mypy pyright ty


async def batch_of_one(people: People) -> None:
    await people.create_batch(Person(name="A", age=1))  # red: mypy pyright ty


def collection_of_no_model(db: AsyncDatabase) -> None:
    db.collection("people", int)  # red: mypy pyright ty


async def increment_of_text(people: People) -> None:
    await people.modify("a", lambda p: f(p.name).inc(1))  # red: mypy pyright ty


async def increment_by_text(people: People) -> None:
    await people.modify("a", lambda p: f(p.age).inc("x"))  # red: mypy pyright ty


async def set_another_type(people: People) -> None:
    await people.modify("a", lambda p: f(p.name).set(3))  # red: mypy pyright ty


async def push_another_type(people: People) -> None:
    await people.modify("a", lambda p: f(p.tags).push(3))  # red: mypy pyright ty


async def push_on_text(people: People) -> None:
    await people.modify("a", lambda p: f(p.name).push("x"))  # red: mypy pyright ty


async def modify_misspelt(people: People) -> None:
    await people.modify("a", lambda p: f(p.agee).inc(1))  # red: mypy pyright ty


async def modify_by_a_condition(people: People) -> None:
    await people.modify("a", lambda p: p.age == 3)  # red: mypy pyright ty


async def modify_in_a_list(people: People) -> None:
    await people.modify("a", lambda p: f(each(p.items).qty).inc(1))  # red: refused


# Databases, queries and transactions without a model


async def get_of_a_number(db: AsyncDatabase) -> None:
    await db.get(3)  # red: mypy pyright ty


async def create_of_text(db: AsyncDatabase) -> None:
    await db.create("text")  # red: mypy pyright ty


async def record_of_optional(db: AsyncDatabase) -> None:
    (await db.get("missing")).data  # red: mypy pyright ty


async def update_without_id(db: AsyncDatabase) -> None:
    await db.update({"n": 1})  # red: mypy pyright ty


async def misspelt_verb(db: AsyncDatabase) -> None:
    await db.serach()  # red: mypy pyright ty


async def stream_awaited(db: AsyncDatabase) -> None:
    await db.stream()  # red: mypy pyright ty


async def result_of_count(db: AsyncDatabase) -> None:
    n: str = await db.count()  # red: mypy pyright ty


async def query_direction(db: AsyncDatabase) -> None:
    await db.search(Query().sort("n", "down"))  # red: mypy pyright ty


async def query_limit(db: AsyncDatabase) -> None:
    await db.search(Query().limit("3"))  # red: mypy pyright ty


async def query_misspelt_method(db: AsyncDatabase) -> None:
    await db.search(Query().fliter("n", "=", 3))  # red: mypy pyright ty


async def predicate_and(db: AsyncDatabase) -> None:
    await db.search(field("n") == 1 and field("m") == 2)  # red: refused


async def field_method(db: AsyncDatabase) -> None:
    await db.search(field("n").like(3))  # red: mypy pyright ty


def transaction_isolation(db: AsyncDatabase) -> None:
    db.transaction(isolation="chaos")  # red: refused


async def transaction_without_enter(db: AsyncDatabase) -> None:
    await db.transaction().create({"n": 1})  # red: mypy pyright ty


async def transaction_verb(tx: Transaction) -> None:
    await tx.commit_now()  # red: mypy pyright ty


async def transaction_result(tx: Transaction) -> None:
    done: str = await tx.delete("x")  # red: mypy pyright ty


async def run_of_no_function(db: AsyncDatabase) -> None:
    await db.run(3)  # red: mypy pyright ty
