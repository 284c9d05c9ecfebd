"""The models of the typed programs."""

import datetime as dt
import enum
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

from pydantic import AnyUrl, BaseModel

from isthmus.typed import TypedCollection, Version


class Color(enum.Enum):
    """An enum by value."""

    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    """A model in a list."""

    sku: str
    qty: int
    note: str | None = None


class Address(BaseModel):
    """A nested model."""

    city: str
    zip: str | None = None


class Person(BaseModel):
    """A model with every kind of field."""

    id: str = ""
    version: Annotated[str | None, Version()] = None
    name: str
    age: int
    nick: str | None = None
    height: float | None = None
    years: int | None = None
    active: bool = True
    born: dt.date = dt.date(2000, 1, 2)
    at: dt.datetime = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    takes: dt.timedelta = dt.timedelta(minutes=3)
    price: Decimal = Decimal("1.5")
    color: Color = Color.RED
    kind: Literal["guest", "member"] = "guest"
    key: UUID = UUID(int=7)
    folder: Path = Path("/tmp")
    link: AnyUrl = AnyUrl("https://example.com/a")
    tags: list[str] = []
    items: list[Item] = []
    scores: list[float] = []
    labels: dict[str, str] = {}
    address: Address = Address(city="Oslo")
    home: Address | None = None


class Summary(BaseModel):
    """A smaller model of the same records."""

    name: str
    age: int


class Foreign(BaseModel):
    """A model with a field that a person lacks."""

    name: str
    salary: int


class ByCity(NamedTuple):
    """A row of a group."""

    city: str
    people: int
    oldest: int | None


People = TypedCollection[Person]
