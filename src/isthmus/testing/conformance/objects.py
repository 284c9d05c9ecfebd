"""`any`: one object found satisfies the whole condition, and negation is its exact complement."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, Record, field
from isthmus.testing.conformance._fixtures import find_ids, id_set, put, store

BASKETS: dict[str, dict[str, Any]] = {
    "two": {"items": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 5}]},
    "one": {"items": [{"sku": "a", "qty": 2, "tags": ["x", "y"]}]},
    "single": {"items": {"sku": "a", "qty": 7}},
    "nested": {"items": [[{"sku": "c", "parts": [{"n": 1, "ok": True}, {"n": 2, "ok": False}]}]]},
    "scalars": {"items": ["a", 2]},
    "empty": {"items": []},
    "blank": {"items": [{}]},
    "none": {"other": 1},
}
ITEMS, SKU, QTY = field("items"), field("sku"), field("qty")
OK = field("ok").in_([True])
ANY_CONDITIONS: dict[str, tuple[Any, str]] = {
    "one object has to satisfy both": (ITEMS.any((SKU == "a") & (QTY >= 2)), "one single"),
    "two objects may satisfy one each without any": (
        (field("items.sku") == "a") & (field("items.qty") >= 2),
        "two one single",
    ),
    "or": (ITEMS.any((SKU == "c") | (QTY == 5)), "two nested"),
    "a complement inside": (ITEMS.any(SKU != "a"), "two nested blank"),
    "not inside, of both": (ITEMS.any(~((SKU == "a") & (QTY >= 2))), "two nested blank"),
    "is_null inside": (ITEMS.any(QTY.is_null()), "nested blank"),
    "a condition and a complement": (ITEMS.any((SKU == "a") & (QTY != 1)), "one single"),
    "membership inside": (ITEMS.any(field("tags") == "x"), "one"),
    "a whole list inside": (ITEMS.any(field("tags") == ["x", "y"]), "one"),
    "not the whole list inside": (ITEMS.any((SKU == "a") & (field("tags") != ["x", "y"])), "two single"),
    "any in any": (ITEMS.any(field("parts").any((field("n") == 1) & OK)), "nested"),
    "any in any, of two objects": (
        ITEMS.any(field("parts").any((field("n") == 1) & ~OK)),
        "",
    ),
    "not any in any": (ITEMS.any(~field("parts").any(field("n") == 1)), "two one single blank"),
    "a path through the list": (
        field("items.parts").any((field("n") == 2) & ~OK),
        "nested",
    ),
    "text operators": (ITEMS.any(SKU.starts_with("a") & SKU.like("_") & QTY.between(2, 5)), "one"),
    "regex and ilike": (ITEMS.any(SKU.regex("^[ab]$") & SKU.ilike("B")), "two"),
    "in": (ITEMS.any(SKU.in_(["a", "c"]) & QTY.not_in([1, 2])), "single nested"),
    "any and a plain condition": (ITEMS.any(SKU == "a") & (field("items.qty") == 5), "two"),
    "any or any": (ITEMS.any(SKU == "c") | ITEMS.any(QTY == 7), "single nested"),
}


@pytest.mark.parametrize("name", ANY_CONDITIONS)
@pytest.mark.asyncio
async def test_any_finds_records_in_which_one_object_satisfies_all(db: AsyncDatabase, name: str) -> None:
    """`any` holds if one object at the path satisfies the whole predicate (§3), under `not` if none does."""
    predicate, expected = ANY_CONDITIONS[name]
    await store(db, BASKETS)

    assert await find_ids(db, predicate) == id_set(expected)
    assert await find_ids(db, ~predicate) == set(BASKETS) - id_set(expected)
    assert await find_ids(db, ~predicate & (field("items.sku") == "a")) == (
        id_set("two one single") - id_set(expected)
    )


@pytest.mark.asyncio
async def test_any_decides_what_is_deleted(db: AsyncDatabase) -> None:
    """`delete_where` deletes exactly the records that a search finds, complements included."""
    await store(db, BASKETS)

    assert await db.delete_where(~ITEMS.any(SKU == "a")) == 5
    assert await db.delete_where(ITEMS.any((SKU == "a") & (QTY >= 2))) == 2
    assert await find_ids(db, ITEMS.exists()) == id_set("two")


@pytest.mark.asyncio
async def test_any_reaches_metadata_and_keys_of_every_kind(db: AsyncDatabase) -> None:
    """The path may lead into the metadata, and keys may have dots or be empty."""
    await put(
        db,
        [
            Record({"a.b": {"": [{"c.d": 1, "e": 2}, {"c.d": 3}]}}, id="keys"),
            Record({}, id="meta", metadata={"log": [{"by": "ann", "n": 1}, {"by": "bob", "n": 2}]}),
        ],
    )

    deep = field(["a.b", ""])
    assert await find_ids(db, deep.any((field(["c.d"]) == 1) & (field("e") == 2))) == id_set("keys")
    assert await find_ids(db, deep.any((field(["c.d"]) == 3) & (field("e") == 2))) == set()
    log = field("_metadata.log")
    assert await find_ids(db, log.any((field("by") == "bob") & (field("n") == 2))) == id_set("meta")
    assert await find_ids(db, ~log.any((field("by") == "bob") & (field("n") == 1))) == id_set("keys meta")
    assert await find_ids(db, field("_id").any(field("x").is_null())) == set()
