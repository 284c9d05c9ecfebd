"""Unique fields that a config or a model declares: made with the collection, and binding every handle."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from isthmus import (
    AlreadyExistsError,
    AsyncDatabase,
    BatchError,
    ConfigError,
    Indexed,
    InvalidRecordError,
    Record,
    UnsupportedError,
    field,
)
from tests.stores import KNOWN, discard, store_of

pytestmark = pytest.mark.asyncio

SHARED = [
    pytest.param("sqlite", marks=pytest.mark.backend("sqlite")),
    pytest.param("postgres", marks=pytest.mark.backend("postgres")),
    pytest.param("s3-log", marks=pytest.mark.backend("s3")),
    pytest.param("sqlalchemy-mariadb", marks=pytest.mark.backend("sqlalchemy")),
    pytest.param("sqlalchemy-postgres", marks=pytest.mark.backend("sqlalchemy")),
    pytest.param("sqlalchemy-sqlite", marks=pytest.mark.backend("sqlalchemy")),
]
"""Stores with unique fields that several handles share."""
UNIQUE = [pytest.param("memory", marks=pytest.mark.backend("memory")), *SHARED]


class User(BaseModel):
    """A model with a unique field."""

    email: Annotated[str, Indexed(unique=True)]
    name: str = ""


async def _another(name: str, db: AsyncDatabase, **settings: Any) -> AsyncDatabase:
    """Return a handle on the same collection with other settings."""
    store = store_of(name)
    given = {
        **store.config,
        **({"url": store.url} if store.url else {}),
        **({"prefix": db.config.prefix} if db.backend == "s3" else {"table": db.collection_name}),
        **settings,
    }
    return await AsyncDatabase.create(db.backend, given)


@pytest.mark.parametrize("name", SHARED)
async def test_a_handle_without_the_declaration_is_bound_by_it(name: str) -> None:
    """One that was opened before it was made too."""
    async with store_of(name).fresh() as plain:
        declaring = await _another(name, plain, unique=[["tenant", "email"], "name"])
        await declaring.create(Record({"tenant": 1, "email": "x", "name": "n"}, id="a"))
        late = await _another(name, plain)

        for db in (plain, late):
            with pytest.raises(AlreadyExistsError) as clash:
                await db.create({"tenant": 1, "email": "x"})
            assert clash.value.record_id == "a"
            with pytest.raises(AlreadyExistsError) as clash:
                await db.upsert("b", {"name": "n"})
            assert clash.value.field == "name"
            with pytest.raises(BatchError):
                await db.create_batch([{"name": str(number % 120)} for number in range(150)])
            with pytest.raises(InvalidRecordError):
                await db.create({"name": ["n"]})
            assert await db.count() == 1
        await declaring.close()
        await late.close()


@pytest.mark.parametrize("name", SHARED)
async def test_concurrent_first_connects_declare_once(name: str) -> None:
    """Ten handles make the collection and its unique field at the same time."""
    async with store_of(name).fresh() as db:
        await discard(db)
        handles = await asyncio.gather(*(_another(name, db, unique=["email"]) for _ in range(10)))

        results = await asyncio.gather(
            *(handle.create({"email": "x"}) for handle in handles), return_exceptions=True
        )

        assert sum(isinstance(result, str) for result in results) == 1
        assert sum(isinstance(result, AlreadyExistsError) for result in results) == 9
        for handle in handles:
            await handle.close()


@pytest.mark.parametrize("name", SHARED)
async def test_a_collection_with_records_is_not_changed_by_connecting(name: str) -> None:
    """The error names the command that declares the field; a model is refused in the same way."""
    async with store_of(name).fresh() as db:
        await db.create({"email": "x"})

        with pytest.raises(ConfigError, match="isthmus index"):
            await _another(name, db, unique=["email"])
        with pytest.raises(ConfigError, match="isthmus index"):
            await db.collection(db.collection_name, User).create(User(email="y"))
        other = await _another(name, db)
        await other.create({"email": "x"})
        await other.close()


@pytest.mark.parametrize("name", UNIQUE)
async def test_a_model_declares_unique_fields(name: str) -> None:
    """Its collection is made with them; the error comes from the typed methods too."""
    async with store_of(name).fresh() as db:
        users = db.collection(f"{db.collection_name}_users", User)
        try:
            first = await users.create(User(email="x"))
            await users.create(User(email="y"))

            with pytest.raises(AlreadyExistsError) as clash:
                await users.create(User(email="x"))
            assert (clash.value.field, clash.value.record_id) == ("email", first)
            with pytest.raises(AlreadyExistsError):
                await users.modify(first, field("email").set("y"))
            with pytest.raises(AlreadyExistsError):
                await users.update(first, email="y")
        finally:
            await db.drop_collection(users.collection_name)


@pytest.mark.parametrize(
    "setting",
    [
        ["_id"],
        ["_metadata.x"],
        [["a", "a"]],
        [[]],
        1,
        [list("abcdefghi")],
        [[".".join("k" * 21), "a." * 19 + "b"]],
    ],
)
@pytest.mark.parametrize("backend", ["memory", "sqlite", "postgres", "sqlalchemy"])
async def test_a_declaration_without_meaning_is_refused(backend: str, setting: Any) -> None:
    """When the handle is made."""
    with pytest.raises(ConfigError):
        AsyncDatabase(backend, {"unique": setting})


@pytest.mark.parametrize("backend", sorted({backend for backend, _, _ in KNOWN.values()}))
async def test_a_backend_without_unique_fields_refuses_the_setting(backend: str) -> None:
    """When the handle is made, and never later."""
    if backend in ("memory", "sqlite", "postgres", "sqlalchemy"):
        return
    needed = {"bucket": "unused"} if backend == "s3" else {}  # whose layout is `object` unless told
    with pytest.raises(UnsupportedError) as refused:
        AsyncDatabase(backend, {"unique": ["email"], **needed})
    assert refused.value.capability == "unique"


async def test_a_model_with_unique_fields_is_refused_where_there_are_none() -> None:
    """When its collection is made."""
    with pytest.raises(UnsupportedError) as refused:
        AsyncDatabase("s3", {"bucket": "unused"}).collection("users", User)
    assert refused.value.capability == "unique"
