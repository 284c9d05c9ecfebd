"""Declared columns of a config or a model: made with the collection, used by each handle."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import logging
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from isthmus import AsyncDatabase, ConfigError, Indexed, Query, UnsupportedError, field
from isthmus._columns import declare_columns
from isthmus._core.columns import MAX_COLUMNS, columns_of
from tests.stores import COLUMNS, KNOWN, discard, store_of

pytestmark = pytest.mark.asyncio

STORES = [pytest.param(name, marks=pytest.mark.backend(name)) for name in COLUMNS]
KINDS = {"n": "number", "t": "text", "done": "bool", "a.x": "number"}


class Color(enum.Enum):
    """Stored as text."""

    RED = "red"


class Place(BaseModel):
    """A part of a record."""

    zip: str = ""
    at: list[float] = []


class City(BaseModel):
    """A model whose scalar fields are columns."""

    id: str | None = None
    name: Annotated[str, Indexed(column=True)]
    population: Annotated[int | None, Indexed(None, column=True)] = None
    founded: dt.date | None = None
    color: Color = Color.RED
    capital: bool = False
    mixed: int | str = 0
    place: Place = Place()
    tags: list[str] = []


class Mixed(BaseModel):
    """A model whose annotated field is not of one kind."""

    value: Annotated[int | str, Indexed(column=True)] = 0


async def _another(db: AsyncDatabase, **settings: Any) -> AsyncDatabase:
    """Return a handle on the same collection with other settings."""
    store = store_of(db.backend)
    given = {
        **store.config,
        **({"url": store.url} if store.url else {}),
        "table": db.collection_name,
        **settings,
    }
    return await AsyncDatabase.create(db.backend, given)


def _stored(db: AsyncDatabase) -> dict[str, str]:
    stored, _ = db._backend.columns(db.collection_name)  # type: ignore[attr-defined]
    return {str(column.path): column.kind for column in stored}


@pytest.mark.parametrize("name", STORES)
async def test_a_new_collection_has_the_columns_of_its_config(name: str) -> None:
    """An empty one gets them too; a handle without the declaration uses them, and explain names them."""
    async with store_of(name).fresh({"columns": KINDS}) as db:
        plain = await _another(db)
        more = await _another(db, columns={**KINDS, "late": "text"})
        try:
            await db.create_batch([{"n": 1, "t": "x"}, {"n": "1"}, {"late": "y"}])

            # Handles of one file share what they know of it.
            assert KINDS.items() <= _stored(db).items()
            assert KINDS.items() <= _stored(plain).items()
            assert _stored(more) == {**KINDS, "late": "text"}
            for handle in (db, plain, more):
                assert await handle.count(field("n") == 1) == 1
                grouped = await handle.explain(by="t", total=("sum", "n"))
                assert (grouped.columns, grouped.aggregate) == (("t", "n"), "in the store")
                assert (await handle.explain(by="other", total=("sum", "n"))).columns == ()
                plan = await handle.explain(Query().filter("n", ">=", 1).sort("t").limit(3))
                assert plan.columns == ("n", "t")
                assert "columns: n, t" in str(plan)
        finally:
            await plain.close()
            await more.close()


@pytest.mark.parametrize("name", STORES)
async def test_concurrent_first_connects_make_them_once(name: str) -> None:
    """Ten handles make the collection and its columns at the same time."""
    async with store_of(name).fresh() as db:
        await discard(db)
        handles = await asyncio.gather(*(_another(db, columns=KINDS) for _ in range(10)))

        await asyncio.gather(*(handle.create({"n": 1}) for handle in handles))

        for handle in handles:
            assert _stored(handle) == KINDS
            assert await handle.count(field("n") == 1) == 10
            await handle.close()


@pytest.mark.parametrize("name", STORES)
async def test_a_collection_with_records_works_without_and_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in the log, and in explain, with the command that adds them."""
    async with store_of(name).fresh() as db:
        await db.create({"n": 1})

        with caplog.at_level(logging.WARNING):
            late = await _another(db, columns={"n": "number"})
            assert await late.count(field("n") == 1) == 1
            assert await late.count(field("n") == 2) == 0
        warned = [record.getMessage() for record in caplog.records if "isthmus index" in record.getMessage()]
        assert len(warned) == 1
        assert "--column n=number" in warned[0]
        plan = await late.explain(field("n") == 1)
        assert (plan.columns, plan.missing_columns) == ((), ("n=number",))
        assert "isthmus index" in str(plan)

        await declare_columns(late, columns_of({"n": "number"}))
        assert (await late.explain(field("n") == 1)).columns == ("n",)
        assert await late.count(field("n") == 1) == await db.count(field("n") == 1) == 1
        await late.close()


@pytest.mark.parametrize("name", STORES)
async def test_another_kind_than_the_stored_one_is_refused(name: str) -> None:
    """With the kind that the collection has."""
    async with store_of(name).fresh({"columns": {"n": "number"}}) as db:
        with pytest.raises(ConfigError, match="as number"):
            await _another(db, columns={"n": "text"})
        with pytest.raises(ConfigError, match="as number"):
            await declare_columns(db, columns_of({"n": "bool"}))


@pytest.mark.parametrize("name", STORES)
async def test_a_model_declares_columns(name: str) -> None:
    """The annotated fields, or with `columns="model"` every field of one scalar kind."""
    async with store_of(name).fresh() as db:
        cities = db.collection(f"{db.collection_name}_cities", City)
        every = await _another(db, columns="model", collections={f"{db.collection_name}_all": {}})
        all_cities = every.collection(db.collection_name, City)
        try:
            await cities.create(City(name="Oslo", population=700_000))
            await all_cities.create(City(name="Oslo"))

            assert await cities.count(lambda c: c.name == "Oslo") == 1
            stored, _ = db._backend.columns(cities.collection_name)  # type: ignore[attr-defined]
            assert sorted(map(str, stored)) == ["name=text", "population=number"]
            assert await all_cities.count(lambda c: c.name == "Oslo") == 1
            assert _stored(every) == {
                "capital": "bool",
                "color": "text",
                "founded": "text",
                "name": "text",
                "place.zip": "text",
                "population": "number",
            }
        finally:
            await db.drop_collection(cities.collection_name)
            await every.close()


@pytest.mark.parametrize("backend", COLUMNS)
async def test_declarations_that_contradict_each_other_are_refused(backend: str) -> None:
    """A config and a model, and a model whose field is not of one kind; before any I/O."""
    db = AsyncDatabase(backend, {"columns": {"name": "number"}})
    with pytest.raises(ConfigError, match="number and as text"):
        db.collection(db.collection_name, City)
    with pytest.raises(ConfigError, match="cannot be a column"):
        db.collection("mixed", Mixed)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["population"], '"population": "number"'),
        ("population", '"population": "number"'),
        ({"population": "integer"}, "columns"),
        ({"population": 1}, "columns"),
        ({"_id": "text"}, "not a field of the data"),
        ({"_metadata.x": "text"}, "not a field of the data"),
        ({f"c{number}": "text" for number in range(MAX_COLUMNS + 1)}, str(MAX_COLUMNS)),
    ],
)
@pytest.mark.parametrize("backend", COLUMNS)
async def test_a_declaration_without_meaning_is_refused(backend: str, setting: Any, message: str) -> None:
    """When the handle is made, with what to write in its place."""
    with pytest.raises(ConfigError) as refused:
        AsyncDatabase(backend, {"columns": setting})
    assert message in str(refused.value)


@pytest.mark.parametrize("backend", COLUMNS)
async def test_a_url_declares_columns(backend: str) -> None:
    """Each by its path; a dot leads into an object."""
    scheme = "sqlite:///x.db" if backend == "sqlite" else "postgres://localhost/x"
    db = AsyncDatabase.open(f"{scheme}?columns.population=number&columns.place.zip=text", lazy=True)
    opened = await db
    assert opened.config.columns == {"population": "number", "place.zip": "text"}  # type: ignore[attr-defined]
    await opened.close()


@pytest.mark.parametrize("backend", sorted({backend for backend, _, _ in KNOWN.values()} - set(COLUMNS)))
async def test_a_backend_without_columns_refuses_the_setting(backend: str) -> None:
    """When the handle is made, and never later; so does a model with columns."""
    with pytest.raises(UnsupportedError) as refused:
        AsyncDatabase(backend, {"columns": {"n": "number"}})
    assert refused.value.capability == "columns"
    if backend == "memory":
        with pytest.raises(UnsupportedError):
            AsyncDatabase(backend).collection("cities", City)


@pytest.mark.parametrize("name", STORES)
async def test_the_largest_number_of_columns_refuses_no_record(name: str) -> None:
    """Long and short texts and numbers in each of them, and one record that fits none."""
    kinds = {f"c{number}": "text" if number % 2 else "number" for number in range(MAX_COLUMNS)}
    async with store_of(name).fresh({"columns": kinds}) as db:
        for length in (1, 30, 130, 5_000):
            await db.create(
                {key: "é" * length if kind == "text" else 1 / 3 + length for key, kind in kinds.items()}
            )
        await db.create({key: [key] for key in kinds})

        assert await db.count(field("c1").starts_with("é")) == 4
        assert await db.count(field("c0") > 30) == 3
        assert await db.count(field("c198") == "c198") == 1
