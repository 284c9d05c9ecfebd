"""Batches of the lines of a load: rows as columns and single lines, in the order of the files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus import Record
from isthmus._core.mutation_batch import EncodedRecords
from isthmus.cli._formats.input_line import EncodedLines, InputLine, LineBatches
from tests.cli.conftest import Cli
from tests.seeds import drawn

pytestmark = pytest.mark.backend("sqlite")


def make_parts(rng: random.Random) -> list[InputLine | EncodedLines]:
    """Return parts of a few files: columns of some lines, records and refused lines."""
    parts: list[InputLine | EncodedLines] = []
    number = 1
    for _ in range(rng.randrange(1, 12)):
        file = rng.choice(["a.csv", "b.csv"])
        count = rng.choice([1, 2, 7, 30])
        kind = rng.random()
        if kind < 0.7:
            ids = [f"k{number + n}" for n in range(count)]
            records = EncodedRecords(ids, [f'{{"n":{number + n}}}' for n in range(count)])
            parts.append(EncodedLines(records, [(0, file, number)]))
        elif kind < 0.9:
            parts.append(InputLine(file, number, Record({"n": number}, id=f"k{number}")))
            count = 1
        else:
            parts.append(InputLine(file, number, error="3 cells under 2 headings"))
            count = 1
        number += count
    return parts


def flatten(parts: list[InputLine | EncodedLines]) -> Iterator[InputLine]:
    for part in parts:
        yield from [part] if isinstance(part, InputLine) else part


@pytest.mark.parametrize("size", [1, 4, 10, 1_000])
def test_batches_have_all_lines_in_order_and_one_size(size: int) -> None:
    """A journal's batches are to be the same on resuming, wherever the blocks of a file end."""
    rng = random.Random(drawn())
    for _ in range(30):
        parts = make_parts(rng)
        batches = LineBatches(iter(parts), size)
        read = list(iter(batches.read, []))

        lines = [line for batch in read for line in batch]
        assert lines == list(flatten(parts))
        assert all(len(batch) == size for batch in read[:-1])
        for batch in read:
            assert [batch[index] for index in range(len(batch))] == list(batch)


def test_a_clash_in_rows_of_csv_is_reported_at_its_line(cli: Cli, tmp_path: Path) -> None:
    """Also behind the first block of a file, and in the second of two files."""
    note = "x" * 200
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("code,note\n" + "".join(f"a{n},{note}\n" for n in range(9_000)))
    second.write_text("code,note\n" + "".join(f"b{n},{note}\n" for n in range(50)) + f"a8500,{note}\n")

    options = ("--id", "code", "--on-clash", "fail", "--on-error", "skip", "--json")
    loaded = cli("load", f"sqlite:///{tmp_path}/x.db", first, second, *options)

    assert loaded.json["created"] == 9_050
    assert [(Path(error["file"]).name, error["line"]) for error in loaded.json["errors"]] == [("b.csv", 52)]
