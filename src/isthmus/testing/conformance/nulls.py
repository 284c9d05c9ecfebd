"""Null, missing and empty: all are nothing found."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, field
from isthmus.testing.conformance._fixtures import find_ids, id_set, store

KINDS: dict[str, dict[str, Any]] = {
    "null": {"v": None},
    "missing": {"w": 1},
    "emptylist": {"v": []},
    "nulls": {"v": [None, [None, []]]},
    "emptytext": {"v": ""},
    "zero": {"v": 0},
    "false": {"v": False},
    "emptyobject": {"v": {}},
    "value": {"v": [None, 1]},
}
NOTHING = "null missing emptylist nulls"
SOMETHING = "emptytext zero false emptyobject value"

ASKED: dict[str, tuple[Any, str]] = {
    "exists": (field("v").exists(), SOMETHING),
    "is_null": (field("v").is_null(), NOTHING),
    "= None": (field("v") == None, NOTHING),  # noqa: E711
    "!= None": (field("v") != None, SOMETHING),  # noqa: E711
    "in [None]": (field("v").in_([None]), NOTHING),
    "not_in [None]": (field("v").not_in([None]), SOMETHING),
    "= []": (field("v") == [], "emptylist"),
    "= {}": (field("v") == {}, "emptyobject"),
    "= empty text": (field("v") == "", "emptytext"),
    "= 0": (field("v") == 0, "zero"),
    "= False": (field("v") == False, "false"),  # noqa: E712
    "exists below an empty object": (field("v.x").exists(), ""),
    "like %": (field("v").like("%"), "emptytext"),
    "starts_with nothing": (field("v").starts_with(""), "emptytext"),
    "regex of nothing": (field("v").regex(""), "emptytext"),
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.asyncio
async def test_null_missing_and_empty_are_told_apart_only_where_said(db: AsyncDatabase, name: str) -> None:
    """Missing, null and `[]` yield nothing; an empty text, zero, false and `{}` are values (§3)."""
    predicate, expected = ASKED[name]
    await store(db, KINDS)

    assert await find_ids(db, predicate) == id_set(expected)
    assert await find_ids(db, ~predicate) == set(KINDS) - id_set(expected)


@pytest.mark.asyncio
async def test_null_is_stored_and_missing_is_not(db: AsyncDatabase) -> None:
    """A query does not tell them apart, the data does."""
    await store(db, KINDS)

    assert {r.id: r.data for r in await db.search()} == KINDS
