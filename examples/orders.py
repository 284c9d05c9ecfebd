"""A typed order service: `uvicorn examples.orders:app`; ISTHMUS_URL is a store that has transactions.

Stock never goes below zero, e-mail addresses are unique, and an order is written with its audit record
and its message in one transaction. Every query is a lambda over the model, so that a type checker
reads it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import os
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Annotated, NamedTuple

from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel, Field

from isthmus import AsyncDatabase, ConflictError, Indexed, NotFoundError, Transaction, field
from isthmus.integrations.fastapi import (
    Database,
    ModelPage,
    SearchParameters,
    add_health,
    answer_errors,
    lifespan,
)
from isthmus.typed import TypedCollection, TypedQuery, Version, count, each, f, max_, not_, sum_

URL = os.environ.get("ISTHMUS_URL", "memory://")


class State(enum.Enum):
    """Where an order is."""

    OPEN = "open"
    PAID = "paid"
    SHIPPED = "shipped"


class Article(BaseModel):
    """What is sold; its id is the stock-keeping unit."""

    stock: int = Field(default=0, ge=0)
    sold: int = 0


class Customer(BaseModel):
    """Somebody who orders; no two have one e-mail address."""

    id: str = ""
    email: Annotated[str, Indexed(unique=True)]
    name: str


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
    deleted_at: dt.datetime | None = None


class OrderPatch(BaseModel):
    """What a customer may change about an order."""

    due: dt.date | None = None
    note: str | None = None


class Entry(BaseModel):
    """What was done to an order, and when."""

    order: Annotated[str, Indexed()]
    action: str
    at: dt.datetime


class Message(BaseModel):
    """A message that is to be sent, once its order is committed."""

    id: str = ""
    to: str
    text: str
    taken_at: dt.datetime | None = None


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


@contextlib.asynccontextmanager
async def start(app: FastAPI) -> AsyncGenerator[None]:
    """Connect, and make all collections: one that a transaction uses first takes a second connection."""
    async with lifespan(URL.split("://", 1)[0], {"url": URL})(app):
        db: AsyncDatabase = app.state.isthmus
        for collection in (articles_of(db), customers_of(db), orders_of(db), outbox_of(db), audit_of(db)):
            await collection.exists("none")
        yield


app = FastAPI(title="orders", lifespan=start)
answer_errors(app)
add_health(app)

OrderSearch = Annotated[SearchParameters, Depends(SearchParameters.of(Order))]


def orders_of(db: AsyncDatabase | Transaction) -> TypedCollection[Order]:
    """Return the collection of orders, deleted ones included."""
    return db.collection("orders", Order)


def articles_of(db: AsyncDatabase | Transaction) -> TypedCollection[Article]:
    """Return the collection of articles."""
    return db.collection("articles", Article)


def customers_of(db: AsyncDatabase) -> TypedCollection[Customer]:
    """Return the collection of customers."""
    return db.collection("customers", Customer)


def outbox_of(db: AsyncDatabase | Transaction) -> TypedCollection[Message]:
    """Return the messages that are to be sent."""
    return db.collection("outbox", Message)


def audit_of(db: AsyncDatabase | Transaction) -> TypedCollection[Entry]:
    """Return what was done to orders."""
    return db.collection("audit", Entry)


def current(db: AsyncDatabase) -> TypedQuery[Order, Order]:
    """Return the orders that are not deleted."""
    return orders_of(db).where(lambda o: f(o.deleted_at).is_null())


def now() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


async def log(tx: Transaction, order: str, action: str) -> None:
    """Write an audit record, in the transaction of what it tells about."""
    await audit_of(tx).create(Entry(order=order, action=action, at=now()))


# Articles and customers


@app.put("/articles/{sku}")
async def stock(db: Database, sku: str, article: Article) -> Article:
    """Create or replace an article."""
    await articles_of(db).upsert(sku, article)
    return await articles_of(db).require(sku)


@app.get("/articles/{sku}")
async def article(db: Database, sku: str) -> Article:
    """Return an article."""
    return await articles_of(db).require(sku)


@app.post("/customers", status_code=201)
async def register(db: Database, customer: Customer) -> Customer:
    """Register a customer; 409 if another one has the e-mail address."""
    return await customers_of(db).require(await customers_of(db).create(customer))


@app.put("/customers/{id}/email")
async def change_email(db: Database, id: str, email: str) -> Customer:
    """Change a customer's e-mail address; 409 if another one has it."""
    await customers_of(db).modify(id, lambda c: f(c.email).set(email))
    return await customers_of(db).require(id)


@app.get("/customers")
async def customers(db: Database) -> list[Turnover]:
    """Return what each customer ordered, shipped or not."""
    return await current(db).group(lambda o: Turnover(o.customer, count(), sum_(o.total), max_(o.due)))


@app.delete("/customers/{customer}/orders")
async def forget(db: Database, customer: str) -> dict[str, int]:
    """Delete a customer's orders that are not under way."""
    done = orders_of(db).where(lambda o: (o.customer == customer) & not_(o.state == State.PAID))
    return {"deleted": await done.delete()}


# Orders


async def take(tx: Transaction, line: Line) -> None:
    """Take a line's pieces off stock; `ConflictError` if there are too few of them."""
    await articles_of(tx).modify(
        line.sku,
        lambda a: (f(a.stock).inc(-line.quantity), f(a.sold).inc(line.quantity)),
        where=lambda a: a.stock >= line.quantity,
    )


async def put_back(tx: Transaction, line: Line) -> None:
    """Put a line's pieces back on stock."""
    await articles_of(tx).modify(
        line.sku, lambda a: (f(a.stock).inc(line.quantity), f(a.sold).inc(-line.quantity))
    )


def in_one_order(lines: list[Line]) -> list[Line]:
    """Return lines by article, so that two orders do not wait for each other in a circle."""
    return sorted(lines, key=lambda line: line.sku)


@app.post("/orders", status_code=201)
async def create(db: Database, order: Order) -> Order:
    """Create an order; its total is computed from its lines. 409 if an article is sold out."""
    total = sum((line.quantity * line.price for line in order.lines), Decimal(0))
    async with db.transaction() as tx:
        for line in in_one_order(order.lines):
            await take(tx, line)
        id = await orders_of(tx).create(order.model_copy(update={"total": total, "deleted_at": None}))
        await log(tx, id, "created")
        await outbox_of(tx).create(Message(to=order.customer, text=f"order {id} is on its way"))
    return await orders_of(db).require(id)


@app.get("/orders")
async def search(db: Database, search: OrderSearch) -> ModelPage[Order]:
    """Return one page of orders: `?filter={"field":"due","op":"<=","value":"2026-12-31"}&sort=-total`."""
    search.query = search.query.filter(~field("deleted_at").exists())
    return await search.page(orders_of(db))


@app.get("/orders/overdue")
async def overdue(db: Database, today: dt.date) -> list[Brief]:
    """Return what should have been paid by a day, the largest first."""
    late = current(db).where(lambda o: (o.due < today) & (o.state == State.OPEN))
    return await late.sort(lambda o: o.total, "desc").select(Brief).search()


@app.get("/orders/with-article")
async def with_article(db: Database, sku: str, noted: bool = False) -> list[Brief]:
    """Return the orders of an article; with `noted` only those with a note."""
    found = current(db).where(lambda o: each(o.lines).sku == sku)
    if noted:
        found = found.where(lambda o: f(o.note).exists())
    return await found.select(Brief).search()


@app.get("/orders/{id}")
async def order(db: Database, id: str) -> Order:
    """Return an order; its `version` goes into `If-Match` of a change."""
    found = await orders_of(db).require(id)
    if found.deleted_at is not None:
        raise NotFoundError(f"order {id!r} is deleted", record_id=id)
    return found


@app.patch("/orders/{id}")
async def change(
    db: Database, id: str, patch: OrderPatch, if_match: Annotated[str | None, Header()] = None
) -> Order:
    """Change what the body names; 409 if the order is no longer at the version of `If-Match`."""
    await order(db, id)
    return await orders_of(db).update(id, if_version=if_match, **patch.model_dump(exclude_unset=True))


@app.post("/orders/{id}/pay")
async def pay(db: Database, id: str) -> Order:
    """Mark an open order as paid; 409 if it is not open."""
    async with db.transaction() as tx:
        await orders_of(tx).modify(
            id,
            lambda o: f(o.state).set(State.PAID),
            where=lambda o: (o.state == State.OPEN) & f(o.deleted_at).is_null(),
        )
        await log(tx, id, "paid")
    return await orders_of(db).require(id)


@app.delete("/orders/{id}", status_code=204)
async def cancel(db: Database, id: str) -> None:
    """Delete an open order softly, and put its articles back on stock; 409 if it is not open."""
    async with db.transaction() as tx:
        await orders_of(tx).modify(
            id,
            lambda o: f(o.deleted_at).set(now()),
            where=lambda o: (o.state == State.OPEN) & f(o.deleted_at).is_null(),
        )
        for line in in_one_order((await orders_of(tx).require(id)).lines):
            await put_back(tx, line)
        await log(tx, id, "deleted")


@app.get("/orders/{id}/audit")
async def audit(db: Database, id: str) -> list[Entry]:
    """Return what was done to an order, the oldest first."""
    entries = audit_of(db).where(lambda e: e.order == id)
    return await entries.sort(lambda e: e.at).search()


# Jobs, which run now and then


@app.post("/jobs/expire")
async def expire(db: Database, before: dt.datetime) -> dict[str, int]:
    """Remove the orders that were deleted before a time."""
    return {"removed": await orders_of(db).where(lambda o: f(o.deleted_at) < before).delete()}


@app.post("/jobs/deliver")
async def deliver(db: Database) -> list[Message]:
    """Take the messages that wait, and return those to send: each is given to one caller.

    One that dies before it sends them leaves none to the next: a mailer would first send, and then
    remove what it has taken.
    """
    taken: list[Message] = []
    outbox = outbox_of(db)
    async for message in outbox.where(lambda m: f(m.taken_at).is_null()).stream():
        try:
            await outbox.modify(
                message.id, lambda m: f(m.taken_at).set(now()), where=lambda m: f(m.taken_at).is_null()
            )
        except (ConflictError, NotFoundError):
            continue  # another caller was faster
        taken.append(message)
    await outbox.delete_batch([message.id for message in taken])
    return taken
