"""A model of three schemas, which the command line imports."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from isthmus.typed import upgrade


class Person(BaseModel):
    """Schema 1 has `name` and `age` as text; 2 splits the name; 3 has a city and an age that is a number."""

    first: str
    last: str
    city: str
    age: int
    n: int = 0

    @staticmethod
    @upgrade(1)
    def split_name(data: dict[str, Any]) -> dict[str, Any]:
        """Turn schema 1 into 2."""
        first, _, last = data.pop("name").partition(" ")
        return {**data, "first": first, "last": last}

    @staticmethod
    @upgrade(2)
    def add_city(data: dict[str, Any]) -> dict[str, Any]:
        """Turn schema 2 into 3."""
        return {"city": "unknown", **data, "age": int(data["age"])}
