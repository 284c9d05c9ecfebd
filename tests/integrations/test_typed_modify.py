"""Modifications of typed collections: names, kinds of changes and values are those of the model."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Annotated, Any

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from isthmus import (
    AsyncDatabase,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    QueryError,
    UsageError,
    field,
)
from isthmus._query.changes import FieldChange
from isthmus._typed import TypedCollection

pytestmark = pytest.mark.asyncio


class State(enum.Enum):
    """An enum by value."""

    OPEN = "open"
    SENT = "sent"


class Line(BaseModel):
    """A model in a list, and inside another one."""

    sku: str
    qty: int = 1


class Order(BaseModel):
    """A model with a number, a date, an enum, lists and an alias."""

    id: str | None = None
    stock: Annotated[int, Field(ge=0, le=100)]
    price: Decimal = Decimal(1)
    state: State = State.OPEN
    due: dt.datetime | None = None
    tags: list[str] = []
    lines: list[Line] = []
    first: Line | None = None
    notes: dict[str, Any] = {}
    name: str = Field(default="x", alias="Name")


@pytest_asyncio.fixture
async def orders() -> Any:
    """Yield a typed collection with one order, `a`."""
    async with AsyncDatabase("memory") as db:
        typed = db.collection("orders", Order)
        await typed.create(Order(id="a", stock=3, first=Line(sku="s")))
        yield typed


async def test_changes_of_every_kind(orders: TypedCollection[Order]) -> None:
    """What Python has is stored as JSON has it, and comes back as the model's types."""
    due = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    version = await orders.modify(
        "a",
        field("stock").inc(-1),
        field("price").inc(Decimal("0.5")),
        field("state").set(State.SENT),
        field("due").max(due),
        field("tags").push("x", "y"),
        field("tags").pull("x"),
        field("lines").add(Line(sku="t")),
        field("first.qty").set(4),
        field("notes.any.thing").set([1, "x"]),
        field("Name").set("by alias"),
        where=(field("state") == State.OPEN) & (field("Name") == "x"),
    )

    record = await orders.untyped.require("a")
    order = await orders.require("a")
    assert record.version == version
    assert (order.stock, order.price, order.state, order.due) == (2, Decimal("1.5"), State.SENT, due)
    assert (order.tags, order.lines, order.name) == (["y"], [Line(sku="t")], "by alias")
    assert order.first == Line(sku="s", qty=4)
    assert order.notes == {"any": {"thing": [1, "x"]}}
    assert "Name" not in record.data


@pytest.mark.parametrize(
    "change",
    [
        field("stok").inc(1),
        field("id").set("b"),
        field("state").inc(1),
        field("stock").inc(0.5),
        field("stock").push(1),
        field("stock").unset(),
        field("first.sku").unset(),
        field("first.qti").set(1),
        field("stock.n").set(1),
    ],
    ids=str,
)
async def test_names_and_kinds_that_the_model_lacks_are_refused(
    orders: TypedCollection[Order], change: FieldChange
) -> None:
    """A misspelt field would be stored beside the real one."""
    with pytest.raises(QueryError):
        await orders.modify("a", field("stock").inc(1), change)

    assert (await orders.require("a")).stock == 3


@pytest.mark.parametrize(
    "change",
    [
        field("stock").set("5"),
        field("stock").set(-1),
        field("stock").max(101),
        field("price").set("cheap"),
        field("state").set("gone"),
        field("due").set("tomorrow"),
        field("tags").push("x", 1),
        field("tags").set("x"),
        field("lines").push({"qty": 1}),
        field("first").set({"sku": 1}),
    ],
    ids=str,
)
async def test_values_that_do_not_match_their_field_are_refused(
    orders: TypedCollection[Order], change: FieldChange
) -> None:
    """With the path and the id; nothing is changed."""
    with pytest.raises(InvalidRecordError) as refused:
        await orders.modify("a", change)

    assert refused.value.record_id == "a"
    assert refused.value.path == "data." + ".".join(change.path.keys)
    assert (await orders.require("a")).stock == 3


async def test_batches_and_queries(orders: TypedCollection[Order]) -> None:
    """With the same checks, and the errors of `Collection`."""
    await orders.create(Order(id="b", stock=1))

    versions = await orders.modify_batch({"a": field("stock").inc(1), "b": [field("stock").inc(1)]})
    count = await orders.update_where(field("Name") == "x", field("Name").set("y"))

    assert len(versions) == count == 2
    assert [order and (order.stock, order.name) for order in await orders.get_batch(["a", "b"])] == [
        (4, "y"),
        (2, "y"),
    ]
    assert await orders.update_where(lambda o: o.stock > 3, field("tags").push("big")) == 1
    await orders.modify("a", field("stock").inc(1), where=lambda o: o.state == State.OPEN)
    with pytest.raises(NotFoundError):
        await orders.modify("c", field("stock").inc(1))
    with pytest.raises(ConflictError):
        await orders.modify("a", field("stock").inc(-1), where=field("stock") > 10)
    with pytest.raises(QueryError):
        await orders.update_where(field("nam") == "x", field("stock").inc(1))
    with pytest.raises(QueryError):
        await orders.modify_batch({"a": field("stok").inc(1)})
    with pytest.raises(QueryError):
        await orders.modify("a")
    with pytest.raises(UsageError):
        await orders.modify_batch(["a"])  # type: ignore[list-item]
