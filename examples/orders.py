"""A typed order service on any store: `uvicorn examples.orders:app`; ISTHMUS_URL is the store.

Every query is a lambda over the model, so that a type checker reads it.
"""

from __future__ import annotations

import datetime as dt
import enum
import os
from decimal import Decimal
from typing import Annotated, NamedTuple

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

from isthmus import AsyncDatabase, ConflictError, Indexed
from isthmus.integrations.fastapi import (
    Database,
    ModelPage,
    SearchParameters,
    add_health,
    answer_errors,
    lifespan,
)
from isthmus.typed import TypedCollection, Version, count, each, f, max_, not_, sum_

URL = os.environ.get("ISTHMUS_URL", "memory://")


class State(enum.Enum):
    """Where an order is."""

    OPEN = "open"
    PAID = "paid"
    SHIPPED = "shipped"


class Line(BaseModel):
    """One article of an order."""

    sku: str
    quantity: int = Field(ge=1)
    price: Decimal = Field(ge=0)


class Order(BaseModel):
    """An order; `version` is the record's, for compare-and-set."""

    id: str = ""
    version: Annotated[str | None, Version()] = None
    customer: Annotated[str, Indexed()]
    state: State = State.OPEN
    due: dt.date
    total: Decimal = Decimal(0)
    lines: list[Line] = []
    note: str | None = None


class Brief(BaseModel):
    """What a list of orders shows."""

    id: str
    customer: str
    total: Decimal


class Turnover(NamedTuple):
    """What a customer ordered."""

    customer: str
    orders: int
    total: Decimal | None
    last_due: dt.date | None


app = FastAPI(title="orders", lifespan=lifespan(URL.split("://", 1)[0], {"url": URL}))
answer_errors(app)
add_health(app)

OrderSearch = Annotated[SearchParameters, Depends(SearchParameters.of(Order))]


def orders_of(db: AsyncDatabase) -> TypedCollection[Order]:
    """Return the collection of orders."""
    return db.collection("orders", Order)


@app.post("/orders", status_code=201)
async def create(db: Database, order: Order) -> Order:
    """Create an order; its total is computed from its lines."""
    total = sum((line.quantity * line.price for line in order.lines), Decimal(0))
    id = await orders_of(db).create(order.model_copy(update={"total": total}))
    return await orders_of(db).require(id)


@app.get("/orders")
async def search(db: Database, search: OrderSearch) -> ModelPage[Order]:
    """Return one page of orders: `?filter={"field":"due","op":"<=","value":"2026-12-31"}&sort=-total`."""
    return await search.page(orders_of(db))


@app.get("/orders/overdue")
async def overdue(db: Database, today: dt.date) -> list[Brief]:
    """Return what should have been paid by a day, the largest first."""
    late = orders_of(db).where(lambda o: (o.due < today) & (o.state == State.OPEN))
    return await late.sort(lambda o: o.total, "desc").select(Brief).search()


@app.get("/orders/with-article")
async def with_article(db: Database, sku: str, noted: bool = False) -> list[Brief]:
    """Return the orders of an article; with `noted` only those with a note."""
    found = orders_of(db).where(lambda o: each(o.lines).sku == sku)
    if noted:
        found = found.where(lambda o: f(o.note).exists())
    return await found.select(Brief).search()


@app.get("/customers")
async def customers(db: Database) -> list[Turnover]:
    """Return what each customer ordered, shipped or not."""
    return await orders_of(db).group(lambda o: Turnover(o.customer, count(), sum_(o.total), max_(o.due)))


@app.post("/orders/{id}/pay")
async def pay(db: Database, id: str) -> Order:
    """Mark an open order as paid; 409 if it is not open or is being changed."""
    order = await orders_of(db).require(id)
    if order.state is not State.OPEN:
        raise ConflictError(f"order {id!r} is {order.state.value}", record_id=id)
    await orders_of(db).replace(id, order.model_copy(update={"state": State.PAID}))
    return await orders_of(db).require(id)


@app.delete("/customers/{customer}/orders")
async def forget(db: Database, customer: str) -> dict[str, int]:
    """Delete a customer's orders that are not under way."""
    done = orders_of(db).where(lambda o: (o.customer == customer) & not_(o.state == State.PAID))
    return {"deleted": await done.delete()}
