"""Generated queries through typed collections: as lambdas, by names, and without a model, all alike.

Each query is built three times: as a lambda over the model, as `where(name, operator, value)` where it is
one condition, and as a predicate without a model whose operands are in stored form. The answers have to be
the same records in the same order, as the models that were written.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import AnyUrl

from isthmus import Query
from isthmus import field as name_of
from isthmus._query.ast import And, Not, Or, Predicate
from isthmus._query.evaluate import matches
from isthmus.typed import TypedQuery, count, each, f, maybe, min_, not_, some
from tests.stores import Store
from tests.typing.models import Address, Color, Item, People, Person

_NAMES = ("Ann", "Bob", "Cid", "ann", "", "Å", "a%b", "x_y")
_CITIES = ("Oslo", "Rome", "Bari")
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class TypedRun:
    """What a run came to."""

    queries: int = 0
    named: int = 0
    groups: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Condition:
    """One condition in its forms; `named` is the operator and the value of a single condition by name."""

    typed: Callable[[Any], Any]
    untyped: Predicate
    named: tuple[str, str, Any] | None = None


def person(rng: random.Random, number: int) -> Person:
    """Return a random person, with values that collide."""
    small = rng.randrange(6)
    return Person(
        id=f"p{number:04}",
        name=rng.choice(_NAMES),
        age=rng.choice((0, 1, 2, 2**53 + 1, -5)),
        nick=rng.choice((None, *_NAMES)),
        height=rng.choice((None, 0.0, 1.5, 1e300)),
        years=rng.choice((None, 1, 2, 3)),
        active=rng.random() < 0.5,
        born=dt.date(2000, 1, 1 + small),
        at=_START + dt.timedelta(hours=small),
        takes=dt.timedelta(minutes=1 + small),
        price=Decimal(small) / 4,
        color=rng.choice(list(Color)),
        kind=rng.choice(("guest", "member")),
        key=UUID(int=small),
        folder=Path(f"/tmp/{small}"),
        link=AnyUrl(f"https://example.com/{small}"),
        tags=rng.choices(("a", "b", "c"), k=rng.randrange(3)),
        items=[_item(rng) for _ in range(rng.randrange(3))],
        labels={"team": rng.choice(("red", "blue"))},
        address=Address(city=rng.choice(_CITIES), zip=rng.choice((None, "01", "02"))),
        home=rng.choice((None, Address(city=rng.choice(_CITIES)))),
    )


def _item(rng: random.Random) -> Item:
    return Item(sku=rng.choice("abc"), qty=rng.randrange(4), note=rng.choice((None, "x")))


def _minutes(value: dt.timedelta) -> str:
    return f"PT{value.seconds // 60}M"


# A scalar field: its name, how a lambda reaches it, a value, and that value as it is stored.
_Scalar = tuple[str, Callable[[Any], Any], Callable[[random.Random], Any], Callable[[Any], Any]]
_SCALARS: list[_Scalar] = [
    ("name", lambda p: p.name, lambda r: r.choice(_NAMES), str),
    ("nick", lambda p: p.nick, lambda r: r.choice(_NAMES), str),
    ("age", lambda p: p.age, lambda r: r.choice((0, 1, 2, 2**53 + 1)), int),
    ("height", lambda p: p.height, lambda r: r.choice((0.0, 1.5, 2.0)), float),
    ("years", lambda p: p.years, lambda r: r.randrange(5), int),
    ("active", lambda p: p.active, lambda r: r.random() < 0.5, bool),
    ("born", lambda p: p.born, lambda r: dt.date(2000, 1, r.randrange(1, 8)), dt.date.isoformat),
    ("at", lambda p: p.at, lambda r: _START + dt.timedelta(hours=r.randrange(7)), lambda v: f"{v:%FT%T.%fZ}"),
    ("takes", lambda p: p.takes, lambda r: dt.timedelta(minutes=r.randrange(1, 7)), _minutes),
    ("price", lambda p: p.price, lambda r: Decimal(r.randrange(7)) / 4, float),
    ("color", lambda p: p.color, lambda r: r.choice(list(Color)), lambda v: v.value),
    ("kind", lambda p: p.kind, lambda r: r.choice(("guest", "member")), str),
    ("key", lambda p: p.key, lambda r: UUID(int=r.randrange(7)), str),
    ("folder", lambda p: p.folder, lambda r: Path(f"/tmp/{r.randrange(7)}"), str),
    ("link", lambda p: p.link, lambda r: AnyUrl(f"https://example.com/{r.randrange(7)}"), str),
    ("address.city", lambda p: p.address.city, lambda r: r.choice(_CITIES), str),
    ("address.zip", lambda p: p.address.zip, lambda r: r.choice(("01", "02", "03")), str),
    ("home.city", lambda p: some(p.home).city, lambda r: r.choice(_CITIES), str),
    ("items.qty", lambda p: each(p.items).qty, lambda r: r.randrange(5), int),
    ("items.sku", lambda p: each(p.items).sku, lambda r: r.choice("abcd"), str),
    ("tags", lambda p: each(p.tags), lambda r: r.choice("abcd"), str),
    ("labels.team", lambda p: p.labels["team"], lambda r: r.choice(("red", "blue")), str),
]  # fmt: skip
# Their stored text does not sort as they do: such comparisons are refused.
_UNSORTED = ("takes", "folder")
_TEXTS = [scalar for scalar in _SCALARS if scalar[0] in ("name", "nick", "address.city", "items.sku", "tags")]


def condition(rng: random.Random, depth: int = 0) -> Condition:
    """Return a random condition."""
    if depth < 3 and rng.random() < 0.45:
        return _combination(rng, depth)
    if rng.random() < 0.1:
        return _one_item(rng)
    if rng.random() < 0.25:
        return _text(rng)
    return _comparison(rng)


def _combination(rng: random.Random, depth: int) -> Condition:
    left, right = condition(rng, depth + 1), condition(rng, depth + 1)
    match rng.randrange(3):
        case 0:
            return Condition(lambda p: left.typed(p) & right.typed(p), And((left.untyped, right.untyped)))
        case 1:
            return Condition(lambda p: left.typed(p) | right.typed(p), Or((left.untyped, right.untyped)))
    return Condition(lambda p: not_(left.typed(p)), Not(left.untyped))


def _comparison(rng: random.Random) -> Condition:
    name, reach, draw, store = rng.choice(_SCALARS)
    value, other = draw(rng), draw(rng)
    low, high = sorted((value, other), key=store)
    plain = name_of(name)
    stored, more = store(value), [store(value), store(other)]
    forms: list[tuple[Callable[[Any], Any], Predicate, str, Any]] = [
        (lambda p: reach(p) == value, plain == stored, "=", value),
        (lambda p: reach(p) != value, plain != stored, "!=", value),
        (lambda p: f(reach(p)).eq(value), plain == stored, "=", value),
        (lambda p: f(reach(p)) >= value, plain >= stored, ">=", value),
        (lambda p: f(reach(p)) < value, plain < stored, "<", value),
        (lambda p: f(reach(p)).in_([value, other]), plain.in_(more), "in", [value, other]),
        (lambda p: f(reach(p)).not_in([value, other]), plain.not_in(more), "not_in", [value, other]),
        (
            lambda p: f(reach(p)).between(low, high),
            plain.between(store(low), store(high)),
            "between",
            [low, high],
        ),
        (lambda p: f(reach(p)).exists(), plain.exists(), "exists", None),
        (lambda p: f(reach(p)).is_null(), plain.is_null(), "is_null", None),
    ]
    if name in _UNSORTED:
        forms = [form for form in forms if form[2] not in (">=", "<", "between")]
    typed, untyped, op, operand = rng.choice(forms)
    return Condition(typed, untyped, (name, op, operand))


def _text(rng: random.Random) -> Condition:
    name, reach, draw, _ = rng.choice(_TEXTS)
    text = draw(rng)
    pattern = rng.choice((f"{text}%", f"%{text[:1]}%", "_n_", text))
    plain = name_of(name)
    forms: list[tuple[Callable[[Any], Any], Predicate, str, Any]] = [
        (lambda p: f(reach(p)).like(pattern), plain.like(pattern), "like", pattern),
        (lambda p: f(reach(p)).not_like(pattern), plain.not_like(pattern), "not_like", pattern),
        (lambda p: f(reach(p)).ilike(pattern), plain.ilike(pattern), "ilike", pattern),
        (lambda p: f(reach(p)).starts_with(text), plain.starts_with(text), "starts_with", text),
        (lambda p: f(reach(p)).ends_with(text), plain.ends_with(text), "ends_with", text),
        (lambda p: f(reach(p)).contains(text), plain.contains(text), "contains", text),
    ]
    typed, untyped, op, operand = rng.choice(forms)
    return Condition(typed, untyped, (name, op, operand))


def _one_item(rng: random.Random) -> Condition:
    sku, qty = rng.choice("abc"), rng.randrange(4)
    inside = (name_of("sku") == sku) & (name_of("qty") >= qty)
    return Condition(
        lambda p: f(p.items).any(lambda i: (i.sku == sku) & (i.qty >= qty)), name_of("items").any(inside)
    )


async def run(store: Store, *, n: int, seed: int, per_set: int = 50) -> TypedRun:
    """Run n queries on a store, `per_set` on each set of records."""
    ran = TypedRun()
    rng = random.Random(seed)
    async with store.fresh() as db:
        while ran.queries < n:
            people = db.collection(db.collection_name, Person)
            await people.clear()
            written = [person(rng, number) for number in range(rng.randrange(40))]
            await people.create_batch(written)
            for _ in range(min(per_set, n - ran.queries)):
                await _compare(people, written, rng, ran)
                if len(ran.failures) >= 5:
                    return ran
    return ran


async def _compare(people: People, written: list[Person], rng: random.Random, ran: TypedRun) -> None:
    """Compare one query in all its forms, with one group by it."""
    ran.queries += 1
    made = condition(rng)
    name, reach, _, _ = rng.choice([scalar for scalar in _SCALARS if scalar[0] not in _UNSORTED])
    down = rng.choice(("asc", "desc"))
    size = rng.choice((None, 3))
    typed = people.where(made.typed).sort(reach, down)
    plain = Query().filter(made.untyped).sort(name, down)
    if size is not None:
        typed, plain = typed.limit(size), plain.limit(size)
    found = [record.id for record in await people.untyped.search(plain)]
    answers = {"lambda": await _answer(typed, written, ran)}
    if made.named is not None:
        ran.named += 1
        named: TypedQuery[Person, Person] = people.where(*made.named).sort(name, down)
        answers["named"] = await _answer(named if size is None else named.limit(size), written, ran)
    if size is None:
        records = [record for record in await people.untyped.search() if matches(made.untyped, record)]
        answers["evaluator"] = sorted(str(record.id) for record in records)
        answers["untyped"] = sorted(map(str, found))
        if answers["evaluator"] != answers["untyped"]:
            ran.failures.append(
                f"{made.untyped}: evaluator {answers['evaluator']}, untyped {answers['untyped']}"
            )
    for form in ("lambda", "named"):
        if answers.get(form, found) != found:
            ran.failures.append(f"{made.untyped} by {name} {down}: {form} {answers[form]}, untyped {found}")
    await _compare_group(people, made, reach, name, ran)


async def _answer(
    query: TypedQuery[Person, Person], written: list[Person], ran: TypedRun
) -> list[str | None]:
    """Return the ids of a typed answer; a model that is not as it was written is a failure."""
    found = await query.search()
    known = {one.id: one for one in written}
    for one in found:
        if one.model_copy(update={"version": None}) != known[one.id]:
            ran.failures.append(f"{one.id} came back as {one}, written was {known[one.id]}")
    return [one.id for one in found]


async def _compare_group(
    people: People, made: Condition, reach: Callable[[Any], Any], name: str, ran: TypedRun
) -> None:
    """Compare the groups of a field, and their values with those without a model."""
    ran.groups += 1
    rows = await people.where(made.typed).group(lambda p: (maybe(reach(p)), count(), min_(p.age)))
    plain = await people.untyped.aggregate(
        Query().filter(made.untyped), by=name, n="count", least=("min", "age")
    )
    stores = {known: store for known, _, _, store in _SCALARS}
    typed = [(None if key is None else stores[name](key), number, least) for key, number, least in rows]
    if typed != [(row[name], row["n"], row["least"]) for row in plain]:
        ran.failures.append(f"groups of {name} where {made.untyped}: {typed}, without a model {plain}")


def lines(ran: TypedRun) -> list[str]:
    """Return the summary of a run."""
    counts = f"{ran.queries} typed queries, {ran.named} also by name, {ran.groups} groups"
    return [f"{counts}: {len(ran.failures)} differences"]
