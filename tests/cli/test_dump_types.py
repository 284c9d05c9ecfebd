"""`dump`: Parquet has columns of its own types where that loses nothing; CSV has a choice for nulls."""

from __future__ import annotations

import csv
import datetime as dt
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.breadth import size
from tests.cli.conftest import Cli
from tests.seeds import drawn

pytestmark = pytest.mark.backend("sqlite")

TIME = "2026-01-02T03:04:05.000600Z"


def fill(cli: Cli, tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    """Return the URL of a store with these rows, by ids 00, 01, …."""
    url, file = f"sqlite:///{tmp_path}/x.db", tmp_path / "rows.jsonl"
    lines = [{"id": f"{number:04}", "data": row} for number, row in enumerate(rows)]
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    assert cli("load", url, file, "--records").code == 0
    return url


def test_parquet_has_nested_columns_and_times(cli: Cli, tmp_path: Path) -> None:
    """As another reader sees them."""
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"at": TIME, "tags": ["a", "b"], "place": {"lat": 1.5, "seen": [TIME]}, "n": 1, "s": TIME},
        {"at": TIME, "tags": [], "place": {"lat": 2, "seen": []}, "n": 2, "s": "soon"},
    ]
    url, file = fill(cli, tmp_path, rows), tmp_path / "x.parquet"

    assert cli("dump", url, file).code == 0

    table = pq.read_table(file)
    types = {field.name: str(field.type) for field in table.schema}
    time = "timestamp[us, tz=UTC]"
    assert types["at"] == time
    assert types["s"] == "string"
    assert types["tags"].startswith("list<")
    assert types["place"] == f"struct<lat: double, seen: list<element: {time}>>"
    first = table.to_pylist()[0]
    assert first["at"] == dt.datetime(2026, 1, 2, 3, 4, 5, 600, dt.UTC)
    assert first["place"] == {"lat": 1.5, "seen": [first["at"]]}
    assert cli("query", url, "-o", tmp_path / "q.parquet").code == 0
    assert pq.read_table(tmp_path / "q.parquet").schema == table.schema


def test_what_a_type_would_lose_is_json_text(cli: Cli, tmp_path: Path) -> None:
    """Objects with different keys, mixed types, empty objects, nulls beside absent fields."""
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"ragged": {"a": 1}, "mixed": [1, "x"], "empty": {}, "holes": None, "deep": {"a": {"b": 1}}},
        {"ragged": {"b": 1}, "mixed": [2], "empty": {}, "holes": 1, "deep": {"a": {}}},
        {"ragged": {"a": 1}, "mixed": [], "empty": {}, "deep": {"a": {"b": 2}}},
    ]
    url, file = fill(cli, tmp_path, rows), tmp_path / "x.parquet"

    assert cli("dump", url, file).code == 0

    schema = pq.read_schema(file)
    for name in ("ragged", "mixed", "empty", "holes", "deep"):
        assert schema.field(name).metadata[b"isthmus"] == b"json"


def draw_value(generator: random.Random, depth: int) -> Any:
    kinds = 8 if depth < 3 else 6
    match generator.randrange(kinds):
        case 0:
            return None
        case 1:
            return generator.choice([True, False])
        case 2:
            return generator.choice([0, 1, -7, 2**53 + 1])
        case 3:
            return generator.choice([0.5, -1.25])
        case 4:
            return generator.choice(["", "a", "null", '"x"', "1"])
        case 5:
            return generator.choice([TIME, "0001-01-01T00:00:00.000000Z", "2026-02-30T00:00:00.000000Z"])
        case 6:
            return [draw_value(generator, depth + 1) for _ in range(generator.randrange(3))]
    return {key: draw_value(generator, depth + 1) for key in generator.sample("abc", generator.randrange(3))}


def draw_rows(generator: random.Random) -> list[dict[str, Any]]:
    """Return rows some of whose columns vary around one value, and some around several."""
    columns = {key: [draw_value(generator, 0) for _ in range(generator.choice([1, 1, 2]))] for key in "pqrs"}
    rows = []
    for _ in range(generator.randrange(1, 6)):
        row = {key: generator.choice(values) for key, values in columns.items()}
        rows.append({key: value for key, value in row.items() if generator.random() > 0.1})
    return rows


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_dump_comes_back_equal(cli: Cli, tmp_path: Path, format: str) -> None:
    """Whatever types its columns have."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    generator = random.Random(drawn())
    for number in range(size(5, 40)):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = draw_rows(generator)
        url, file = fill(cli, folder, rows), folder / f"x.{format}"
        assert cli("dump", url, file).code == 0

        assert cli("load", url, file, "-c", "again").code == 0

        loaded = [line["data"] for line in cli("query", url, "-c", "again", "--sort", "_id").lines]
        assert loaded == rows


def test_nulls_in_csv_are_as_wanted(cli: Cli, tmp_path: Path) -> None:
    """`--null` writes nulls and absent fields alike; text that looks the same is a JSON string."""
    rows = [{"a": None, "b": "NA", "c": 1}, {"b": "x", "c": None}]
    url, file = fill(cli, tmp_path, rows), tmp_path / "x.csv"

    assert cli("dump", url, file, "--null", "NA").code == 0

    with file.open(newline="") as opened:
        assert list(csv.reader(opened))[1:] == [["0000", "NA", '"NA"', "1"], ["0001", "NA", "x", "NA"]]
    assert cli("query", url, "--format", "csv", "--null", "").out.splitlines()[1:] == [
        "0000,,NA,1",
        "0001,,x,",
    ]
    assert cli("query", url, "--format", "csv").out.splitlines()[1:] == ["0000,null,NA,1", "0001,,x,null"]
    for option in (["--null", "NA"], ["--plain"]):
        refused = cli("dump", url, tmp_path / "x.jsonl", *option)
        assert refused.code == 2
        assert f"{option[0]} is for CSV" in refused.err
    assert not (tmp_path / "x.jsonl").exists()


def test_plain_csv_has_data_alone(cli: Cli, tmp_path: Path) -> None:
    """Text that looks like a number is as it is, and there are no ids: what other programs expect."""
    rows = [{"zip": "007", "n": 7, "t": "7", "l": [1], "q": 'say "x"'}, {"zip": "", "n": None}]
    url = fill(cli, tmp_path, rows)

    out = cli("query", url, "--format", "csv", "--plain", "--null", "-").out

    assert out.splitlines() == ["zip,n,t,l,q", '007,7,7,[1],"say ""x"""', ",-,-,-,-"]
