"""Integers beyond 64 bits are refused by name wherever JSON text enters, and printed exactly."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import orjson
import pytest

from isthmus.cli._json import format_json, parse_json
from tests.cli.conftest import Cli, build_command

pytestmark = pytest.mark.backend("sqlite")

BEYOND = [2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63) - 1, -(2**64), 10**30, int("9" * 200)]
REFUSAL = "an integer beyond 64 bits"


def test_a_record_with_a_long_integer_is_refused_by_line_and_path(cli: Cli, tmp_path: Path) -> None:
    """The lines around it are loaded with --on-error skip; nothing is rounded."""
    lines = [line for n in BEYOND for line in ('{"n": 1}', f'{{"deep": [{{"n" : {n}}}]}}')]
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(lines))
    url = f"sqlite:///{tmp_path}/x.db"

    stopped = cli("load", url, file)
    assert stopped.code == 6
    assert f"{file}:2: data.deep[0].n: {REFUSAL}" in stopped.err
    skipped = cli("load", url, file, "--on-error", "skip", "--json")
    assert [error["line"] for error in skipped.json["errors"]] == [2 * i + 2 for i in range(len(BEYOND))]
    # The first line was written by both loads.
    assert cli("count", url, "n=1").out == f"{len(BEYOND) + 1}\n"
    assert cli("count", url).out == f"{len(BEYOND) + 1}\n"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_an_argument_with_a_long_integer_is_refused(cli: Cli, people: str, number: int) -> None:
    """In put, update, their metadata, a JSON query and a filter; from standard input too."""
    document = f'{{"n": {number}}}'
    for arguments in (
        ["put", people, "x", document],
        ["put", people, "x", "{}", "--metadata", document],
        ["update", people, "p001", document],
        ["update", people, "p001", "{}", "--metadata", document],
    ):
        ran = cli(*arguments)
        assert (ran.code, ran.err.count("\n")) == (6, 1), ran.err
        assert REFUSAL in ran.err
    for text in (f'{{"field": "age", "op": "=", "value": {number}}}', f"age = {number}"):
        for command in ("query", "count"):
            ran = cli(command, people, text)
            assert ran.code == 2
            assert REFUSAL in ran.err
    piped = subprocess.run(
        build_command("put", people, "x", "-"), input=document.encode(), capture_output=True, check=False
    )
    assert piped.returncode == 6
    assert REFUSAL.encode() in piped.stderr
    assert cli("get", people, "x").code == 1


def test_a_cell_of_many_digits_is_text(cli: Cli, tmp_path: Path) -> None:
    """As for every cell that no number holds; inside a JSON cell the integer is refused."""
    file = tmp_path / "cells.csv"
    file.write_text(f'_id,code\na,{10**39}\nb,{2**64}\nc,"[{2**64}]"\n')
    url = f"sqlite:///{tmp_path}/x.db"

    ran = cli("load", url, file, "--on-error", "skip")

    assert f"{file}:4: data.code[0]: {REFUSAL}" in ran.err
    found = {line["id"]: line["data"]["code"] for line in cli("query", url).lines}
    assert found == {"a": str(10**39), "b": str(2**64)}
    assert cli("dump", url, tmp_path / "again.csv").code == 0
    assert cli("load", url, tmp_path / "again.csv", "-c", "again").code == 0
    assert {line["id"]: line["data"]["code"] for line in cli("query", url, "-c", "again").lines} == found


def test_parquet_refuses_what_64_bits_do_not_hold(cli: Cli, tmp_path: Path) -> None:
    """An unsigned column, and JSON text in a column that a dump made."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    json_field = pa.field("j", pa.string(), metadata={"isthmus": "json", "isthmus.key": "j"})
    schema = pa.schema([pa.field("u", pa.uint64()), json_field])
    rows = {"u": [1, 2**64 - 1, 3], "j": ["1", "2", f"[{2**64}]"]}
    pq.write_table(pa.table(rows, schema=schema), tmp_path / "long.parquet")

    url = f"sqlite:///{tmp_path}/x.db"
    ran = cli("load", url, tmp_path / "long.parquet", "--on-error", "skip", "--json")

    assert [(e["line"], e["message"].split(":")[0]) for e in ran.json["errors"]] == [
        (2, "column 'u'"),
        (3, "data.j[0]"),
    ]


def test_an_id_may_not_be_rounded(cli: Cli, tmp_path: Path) -> None:
    """An id that comes from a field is its digits, or the line is refused."""
    file = tmp_path / "ids.jsonl"
    file.write_text(f'{{"key": {2**63 - 1}}}\n{{"key": {2**64}}}\n')
    url = f"sqlite:///{tmp_path}/x.db"

    ran = cli("load", url, file, "--id", "key", "--on-error", "skip")

    assert f"{file}:2: data.key: {REFUSAL}" in ran.err
    assert [line["id"] for line in cli("query", url).lines] == [str(2**63 - 1)]


def test_a_sum_beyond_64_bits_is_printed_exactly(cli: Cli, tmp_path: Path) -> None:
    """In a table and as JSON: a sum of integers has any size."""
    url = f"sqlite:///{tmp_path}/x.db"
    for id in "ab":
        cli("put", url, id, f'{{"n": {2**63 - 1}}}')

    assert cli("agg", url, "-a", "sum:n", "--json").out == f'[{{"sum_n":{2**64 - 2}}}]\n'
    assert str(2**64 - 2) in cli("agg", url, "-a", "sum:n").out


def test_parsing_differs_from_orjson_only_for_long_integers() -> None:
    """Random documents give the same value and type; long integers give theirs, at any offset."""
    generator = random.Random(24)

    def draw(depth: int) -> object:
        match generator.randrange(7 if depth < 4 else 5):
            case 0:
                return generator.choice([None, True, False, "", "é" * generator.randrange(9), "1" * 40])
            case 1:
                return generator.randrange(-(2**63), 2**63)
            case 2:
                return generator.choice([0.1, 1e300, 123456789012345.67, 2.0**70, -0.0, generator.random()])
            case 3 | 4:
                return generator.randrange(10 ** generator.randrange(1, 60)) * generator.choice([1, -1])
            case 5:
                return [draw(depth + 1) for _ in range(generator.randrange(4))]
            case _:
                return {str(draw(9)): draw(depth + 1) for _ in range(generator.randrange(4))}

    for _ in range(3_000):
        value = draw(0)
        text = json.dumps(value, ensure_ascii=generator.random() < 0.5, indent=generator.choice([None, 1]))
        parsed = parse_json(text.encode() if generator.random() < 0.5 else text)
        assert json.dumps(parsed) == json.dumps(value)
        assert json.loads(format_json(parsed)) == value


@pytest.mark.parametrize("text", ["[" * 1_010 + str(2**64) + "]" * 1_010, '{"a": 1e999}', "NaN", "{"])
def test_a_document_that_cannot_be_parsed_is_one_error(text: str) -> None:
    """Too deep, beyond the floats, or no JSON at all: never a bare RecursionError or ValueError."""
    with pytest.raises(orjson.JSONDecodeError):
        parse_json(text)
