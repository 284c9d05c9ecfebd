"""Null, missing and empty list: each has no value."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, field
from isthmus.testing.conformance._fixtures import find_ids, id_set, store

RECORDS: dict[str, dict[str, Any]] = {
    "null": {"v": None},
    "missing": {"w": 1},
    "empty_list": {"v": []},
    "nulls": {"v": [None, [None, []]]},
    "empty_text": {"v": ""},
    "zero": {"v": 0},
    "false": {"v": False},
    "empty_object": {"v": {}},
    "value": {"v": [None, 1]},
}
NOTHING = "null missing empty_list nulls"
SOMETHING = "empty_text zero false empty_object value"

CONDITIONS: dict[str, tuple[Any, str]] = {
    "exists": (field("v").exists(), SOMETHING),
    "is_null": (field("v").is_null(), NOTHING),
    "= None": (field("v") == None, NOTHING),  # noqa: E711
    "!= None": (field("v") != None, SOMETHING),  # noqa: E711
    "in [None]": (field("v").in_([None]), NOTHING),
    "not_in [None]": (field("v").not_in([None]), SOMETHING),
    "= []": (field("v") == [], "empty_list"),
    "= {}": (field("v") == {}, "empty_object"),
    "= empty text": (field("v") == "", "empty_text"),
    "= 0": (field("v") == 0, "zero"),
    "= False": (field("v") == False, "false"),  # noqa: E712
    "exists below an empty object": (field("v.x").exists(), ""),
    "like %": (field("v").like("%"), "empty_text"),
    "starts_with nothing": (field("v").starts_with(""), "empty_text"),
    "regex of nothing": (field("v").regex(""), "empty_text"),
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.asyncio
async def test_null_missing_and_empty_list_have_no_value(db: AsyncDatabase, name: str) -> None:
    """Missing, null and `[]` have no value; an empty text, zero, false and `{}` are values (§3)."""
    predicate, expected = CONDITIONS[name]
    await store(db, RECORDS)

    assert await find_ids(db, predicate) == id_set(expected)
    assert await find_ids(db, ~predicate) == set(RECORDS) - id_set(expected)


@pytest.mark.asyncio
async def test_null_is_stored_and_missing_is_not(db: AsyncDatabase) -> None:
    """Queries treat them alike, but the data keeps the difference."""
    await store(db, RECORDS)

    assert {r.id: r.data for r in await db.search()} == RECORDS
