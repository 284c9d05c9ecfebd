"""Field names: any key can be a field, dots separate the keys of a path, attributes have reserved names."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import find_ids, put_one, store
from isthmus.testing.values import KEYS


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.asyncio
async def test_every_key_is_a_field(db: AsyncDatabase, key: str) -> None:
    """It can be stored, filtered by, sorted by and selected, at the top level and nested (§1)."""
    await store(db, {"x": {key: 2, "in": {key: "t"}}, "y": {key: 1}, "z": {"in": {}}, "l": {key: [3, [4]]}})

    assert (await db.require("x")).data == {key: 2, "in": {key: "t"}}
    assert await find_ids(db, field([key]) == 2) == {"x"}
    assert await find_ids(db, field([key]) == 4) == {"l"}
    assert await find_ids(db, field([key]) == [3, [4]]) == {"l"}
    assert await find_ids(db, field([key]).exists()) == {"x", "y", "l"}
    assert await find_ids(db, field(["in", key]) == "t") == {"x"}
    assert [r.id for r in await db.search(Query().sort([key]))] == ["y", "x", "l", "z"]
    [selected] = await db.search(Query().filter(field("_id") == "x").select([key]))
    assert selected.data == {key: 2}


@pytest.mark.asyncio
async def test_a_key_with_a_dot_is_not_a_path(db: AsyncDatabase) -> None:
    """`"a.b"` is a path, `["a.b"]` a single key; a record may have both."""
    await store(db, {"key": {"a.b": 1}, "path": {"a": {"b": 1}}, "both": {"a.b": 2, "a": {"b": 1}}})

    assert await find_ids(db, field("a.b") == 1) == {"path", "both"}
    assert await find_ids(db, field(["a.b"]) == 1) == {"key"}
    assert await find_ids(db, field(["a.b"]).exists()) == {"key", "both"}
    assert [r.id for r in await db.search(Query().sort(["a.b"], "desc"))] == ["both", "key", "path"]


@pytest.mark.asyncio
async def test_a_field_may_be_a_number_in_one_record_and_an_object_in_another(db: AsyncDatabase) -> None:
    """No store may lose or refuse such records (§1)."""
    data: dict[str, dict[str, Any]] = {
        "number": {"v": 1},
        "object": {"v": {"k": 1}},
        "deep": {"v": {"k": {"l": 1}}},
        "text": {"v": "1"},
        "list": {"v": [1, {"k": 1}]},
    }
    for id, one in data.items():
        await put_one(db, Record(one, id=id))

    assert {r.id: r.data for r in await db.search()} == data
    assert await find_ids(db, field("v") == 1) == {"number", "list"}
    assert await find_ids(db, field("v.k") == 1) == {"object", "list"}
    assert await find_ids(db, field("v.k.l") == 1) == {"deep"}
    assert await find_ids(db, field("v.k").exists()) == {"object", "deep", "list"}


@pytest.mark.asyncio
async def test_many_keys_in_one_record(db: AsyncDatabase) -> None:
    """A record with 3,000 keys is stored, and its last key can be queried."""
    await put_one(db, Record({f"k{n:04}": n for n in range(3_000)}, id="wide"))
    await put_one(db, Record({"k0000": 5}, id="narrow"))

    assert len((await db.require("wide")).data) == 3_000
    assert await find_ids(db, field("k2999") == 2_999) == {"wide"}
    assert await find_ids(db, field("k0000") == 5) == {"narrow"}


@pytest.mark.asyncio
async def test_metadata_and_times_are_fields(db: AsyncDatabase) -> None:
    """`_metadata.<path>`, `_created_at` and `_updated_at` can be compared like data (§2)."""
    await put_one(db, Record({"n": 1}, id="a", metadata={"source": "web", "tags": ["x"]}))
    await put_one(db, Record({"n": 2}, id="b", metadata={"source": "file"}))
    await put_one(db, Record({"n": 3}, id="c"))
    created_at = (await db.require("b")).created_at
    assert created_at is not None

    assert await find_ids(db, field("_metadata.source") == "web") == {"a"}
    assert await find_ids(db, field("_metadata.source") != "web") == {"b", "c"}
    assert await find_ids(db, field("_metadata.tags") == "x") == {"a"}
    assert await find_ids(db, field("_metadata.source").exists()) == {"a", "b"}
    assert [r.id for r in await db.search(Query().sort("_metadata.source"))] == ["b", "a", "c"]
    assert "b" in await find_ids(db, field("_created_at") == created_at)
    assert await find_ids(db, field("_created_at") > created_at + dt.timedelta(minutes=1)) == set()
    assert len(await find_ids(db, field("_updated_at") >= created_at - dt.timedelta(minutes=1))) == 3


@pytest.mark.parametrize("name", ["_id.x", "_created_at.year", [], [1], 5, None, "a\0b", ["\ud800"]])
@pytest.mark.asyncio
async def test_an_invalid_field_name_is_refused(db: AsyncDatabase, name: Any) -> None:
    """It raises QueryError when the query is built."""
    with pytest.raises(QueryError):
        await db.search(Query().filter(name, "=", 1))
