"""`any`: what is refused when it is built, its forms as JSON and text, its superset, and models."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from isthmus import AsyncDatabase, Query, Record, field, match, nearest
from isthmus._query.ast import FALSE, And, AnyObject, Exists, Not, Or, Predicate
from isthmus._query.codec import from_json, text, to_json
from isthmus._query.normalize import normalize
from isthmus._query.split import positive_part
from isthmus.errors import QueryError
from isthmus.integrations.fastapi import SearchParameters

ITEMS, SKU, QTY = field("items"), field("sku"), field("qty")


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (field("_id") == "a", "begins at the object"),
        (field("_metadata.x") == 1, "begins at the object"),
        (match("text", "a"), "about records"),
        (nearest("v", [1.0]), "about records"),
        ((SKU == "a") & match("text", "a"), "about records"),
        ("sku", "needs a predicate"),
        (Query().filter("sku", "=", "a"), "needs a predicate"),
    ],
)
def test_what_is_not_about_one_object_is_refused_when_built(inside: Any, reason: str) -> None:
    """Paths inside are data paths; `match()` and `nearest()` rank records."""
    with pytest.raises(QueryError, match=reason):
        ITEMS.any(inside)
    with pytest.raises(QueryError, match=reason):
        Query().filter("items", "any", inside)


def test_nesting_and_size_are_bounded() -> None:
    """A chain of `any` counts as depth, its conditions as conditions."""
    deep: Predicate = SKU == "a"
    with pytest.raises(QueryError, match="at most 200 levels"):
        for _ in range(201):
            deep = ITEMS.any(deep)
    with pytest.raises(QueryError, match=r"at most 10000|at most 10,000|10000 conditions"):
        ITEMS.any(Or(tuple(field(f"f{n}") == n for n in range(10_001))))


def test_json_and_text_read_back() -> None:
    """The JSON form nests the predicate as its value; the text form is the command line's."""
    query = Query().filter(~ITEMS.any((SKU == "a") & field("parts").any(QTY >= 2)))

    assert from_json(to_json(query)) == query
    assert text(ITEMS.any(SKU == "a")) == "items any (sku = 'a')"
    assert text(ITEMS.any((SKU == "a") & (QTY >= 2))) == "items any (sku = 'a' and qty >= 2)"
    with pytest.raises(QueryError, match=r"query.value"):
        from_json({"field": "items", "op": "any", "value": 3})


@pytest.mark.parametrize(
    ("inside", "superset"),
    [
        (SKU == "a", field("items.sku") == "a"),
        ((SKU == "a") & (QTY != 1), field("items.sku") == "a"),
        (SKU != "a", ITEMS.exists()),
        ((SKU == "a") | (QTY != 1), ITEMS.exists()),
        (field("tags") == ["x"], ITEMS.exists()),
        (field("b").any((SKU == "a") & ~(QTY == 1)), field("items.b.sku") == "a"),
        (field("b").any(SKU.is_null()), field("items.b").exists()),
    ],
)
def test_the_superset_is_the_positive_part_on_paths_from_the_record(
    inside: Predicate, superset: Predicate
) -> None:
    """Each `not` inside is true; whole lists do not pass through the list; else an object exists."""
    leaf = ITEMS.any(inside)
    assert isinstance(leaf, AnyObject)

    assert positive_part(leaf) == superset


def test_an_any_that_cannot_hold_is_a_constant() -> None:
    """Attributes are texts, and no object satisfies false; but true asks for an object."""
    assert normalize(field("_id").any(SKU == "a")) == FALSE
    assert normalize(ITEMS.any(SKU.in_([]))) == FALSE
    assert normalize(ITEMS.any(And(()))) == ITEMS.any(And(()))
    assert normalize(Not(Not(ITEMS.any(~~Exists(SKU.path))))) == ITEMS.any(SKU.exists())


class Item(BaseModel):
    """An item of an order."""

    sku: str
    qty: int = 1


class Order(BaseModel):
    """An order, whose id is the record's."""

    id: str
    items: list[Item]


@pytest.mark.asyncio
async def test_a_typed_collection_checks_the_names_inside() -> None:
    """The names inside are those of the element's model; its `id` would be a field of the element."""
    async with await AsyncDatabase.create("memory") as db:
        orders = db.collection("orders", Order)
        await orders.create(Order(id="1", items=[Item(sku="a", qty=2)]))

        assert [o.id for o in await orders.search(ITEMS.any((SKU == "a") & (QTY == 2)))] == ["1"]
        with pytest.raises(QueryError, match=r"Item has no field 'quantity'.*qty"):
            await orders.search(ITEMS.any(field("quantity") == 2))


def test_a_search_of_strangers_checks_the_operators_inside() -> None:
    """What a client may not use, it may not use inside of `any` either."""
    params = SearchParameters.limited(fields=["items"])
    shape = {"field": "items", "op": "any", "value": {"field": "sku", "op": "=", "value": "a"}}
    hidden = {"field": "items", "op": "any", "value": {"field": "sku", "op": "regex", "value": "a"}}

    assert params(filter=orjson.dumps(shape).decode()).query.where == ITEMS.any(SKU == "a")
    with pytest.raises(QueryError, match="regex is not allowed"):
        params(filter=orjson.dumps(hidden).decode())
    with pytest.raises(QueryError, match="other"):
        params(filter=orjson.dumps(shape | {"field": "other"}).decode())


@pytest.mark.asyncio
async def test_explain_grades_it() -> None:
    """`any` is EXACT on SQLite."""
    async with await AsyncDatabase.open("sqlite://") as db:
        await db.create(Record({"items": [{"sku": "a"}]}))
        plan = await db.explain(~ITEMS.any(SKU == "a"))

    assert plan.exact
    assert "items any (sku = 'a')" in str(plan)
