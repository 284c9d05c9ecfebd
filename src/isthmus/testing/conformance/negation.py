"""Negation: complements match the records that lack the field."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, field
from isthmus.testing.conformance._fixtures import find_ids, id_set, store_people

# `city` is Paris, null, missing, Berlin, paris.
NEGATED: dict[str, tuple[Any, str]] = {
    "!= text": (field("city") != "Paris", "bob carol dan eve"),
    "not (= text)": (~(field("city") == "Paris"), "bob carol dan eve"),
    "!= number": (field("age") != 30, "bob carol dan eve"),
    "not_in": (field("city").not_in(["Paris", "Berlin"]), "bob carol eve"),
    "not_in nothing": (field("city").not_in([]), "alice bob carol dan eve"),
    "not_like": (field("city").not_like("P%"), "bob carol dan eve"),
    "not_between": (field("age").not_between(5, 30), "carol eve"),
    "not regex": (~field("city").regex("aris"), "bob carol dan"),
    "not <": (~(field("age") < 10), "alice carol dan eve"),
    "not (number = text)": (~(field("age") == "30"), "alice bob carol dan eve"),
    "!= on a list": (field("tags") != "red", "bob dan"),
    "not of and": (~((field("age") > 9) & (field("city") == "Paris")), "bob carol dan eve"),
    "not of or": (~((field("age") > 9) | (field("city") == "Paris")), "bob eve"),
    "double negation": (~~(field("city") == "Paris"), "alice"),
    "not exists": (~field("city").exists(), "bob carol"),
    "!= on a missing path": (field("address.zip") != "75001", "bob carol dan eve"),
}


@pytest.mark.parametrize("name", NEGATED)
@pytest.mark.asyncio
async def test_a_complement_includes_null_and_missing(db: AsyncDatabase, name: str) -> None:
    """`!=`, `not_in`, `not_like` and `not_between` are exact complements (§3)."""
    predicate, expected = NEGATED[name]
    await store_people(db)

    assert await find_ids(db, predicate) == id_set(expected)
