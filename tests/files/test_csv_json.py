"""Rows of CSV that Arrow makes JSON of are, byte by byte, what the core makes of their values."""

from __future__ import annotations

import csv
import io
import random
import struct
from pathlib import Path

import pyarrow
import pytest

from isthmus._values import encode
from isthmus.backends.files.catalog import Catalog
from isthmus.backends.files.config import FilesConfig
from isthmus.backends.files.formats.arrow_chunk import ArrowChunk
from isthmus.backends.files.formats.column_kinds import find_kind
from isthmus.backends.files.formats.csv_blocks import _are_plain_numbers, find_column_kind
from isthmus.backends.files.formats.dialect import Dialect
from isthmus.backends.files.local import LocalStorage
from isthmus.backends.files.reader import FileReader
from isthmus.cli._json import format_json
from tests.seeds import drawn

NUMBERS = [
    "0",
    "7",
    "-12",
    "0.5",
    "-0.25",
    "3.0",
    "0.0",
    "123456789012345678",
    "0.0001",
    "1e5",
    "-0.0",
    "1.10",
]
NUMBERS += [
    "9007199254740993",
    "12345678901234.5",
    "0.00001",
    "1e-07",
    "99999999999999999999",
    "007",
    "-0",
    "+1",
]
TEXTS = [
    "a",
    "Ann Lee",
    "é",
    "\U0001f600",
    'say "hi"',
    "back\\slash",
    "a\tb",
    "NA",
    "",
    "null",
    "true",
    "\x7f",
]
BOOLS = ["true", "false"]


def write(path: Path, generator: random.Random) -> None:
    """Write a file whose columns are of one kind each, with an odd cell here and there."""
    columns = []
    rows = generator.randrange(1, 30)
    for _ in range(generator.randrange(1, 5)):
        pool = generator.choice(
            [NUMBERS[:7], NUMBERS, TEXTS[:4], TEXTS, BOOLS, [""], [*BOOLS, ""], ["1", "NA"]]
        )
        pool = generator.sample(pool, generator.randrange(1, len(pool) + 1))
        columns.append([generator.choice(pool) for _ in range(rows)])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["a", 'b "quoted"', "c\\d", "é", "e"][: len(columns)])
    writer.writerows(zip(*columns, strict=True))
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


@pytest.mark.backend("files")
def test_json_of_cells_is_that_of_their_values(tmp_path: Path) -> None:
    """Numbers, booleans, text and nulls; ids of one and of several columns too."""
    generator = random.Random(drawn())
    encoded_rows = 0
    for number in range(400):
        path = tmp_path / f"{number}.csv"
        write(path, generator)
        null = generator.choice([{}, {"null": ["NA"]}])
        dialect = Dialect.of(FilesConfig.load({"location": str(path), **null}))
        reader = FileReader(LocalStorage(str(path)), dialect, "csv")
        files = reader.storage.list_files()
        kinds = reader.find_kinds(Catalog(files))
        for chunk in reader.chunks(files[0], kinds):
            encoded = chunk.encode() if isinstance(chunk, ArrowChunk) else None
            if encoded is None:
                continue
            assert isinstance(chunk, ArrowChunk)
            rows = [row for row in chunk.rows() if isinstance(row, dict)]
            encoded_rows += len(rows)
            assert encoded.objects() == list(map(encode, rows)), path.read_text()
            names = list(rows[0])[: generator.randrange(1, 3)]
            ids = encoded.ids(names)
            cells = [[row[name] for name in names] for row in rows]
            if any(None in row for row in cells):
                assert ids is None
            elif len(names) == 1:
                texts = [
                    value if isinstance(value, str) else format_json(value).decode() for [value] in cells
                ]
                assert ids == texts
            else:
                assert ids == [format_json(row).decode() for row in cells]
    assert encoded_rows > 1_000


@pytest.mark.backend("files")
def test_arrow_finds_the_type_of_each_cell_that_the_core_finds() -> None:
    """Floats of every size, their shortest digits and others, and odd cells."""
    generator = random.Random(drawn())
    cells = [
        *NUMBERS,
        *TEXTS[:6],
        "1.",
        ".5",
        "nan",
        "inf",
        "-inf",
        "0x1F",
        " 1",
        "1 ",
        "1e16",
        "1e+16",
        "1.0e5",
    ]
    for _ in range(2_000):
        [any_bits] = struct.unpack("d", struct.pack("Q", generator.getrandbits(64)))
        usual = round(generator.uniform(-1e6, 1e6), generator.randrange(1, 17))
        for value in (any_bits, usual, usual * 10.0 ** generator.randrange(-12, 12)):
            cells += [repr(value), repr(value) + "0", f"{value:.17g}", f"{value:.3f}"]

    for cell in filter(None, cells):
        assert find_column_kind(pyarrow.array([cell]), frozenset()) == find_kind([cell]), cell


@pytest.mark.backend("files")
@pytest.mark.parametrize(
    "cells", [["1.5", "-12.25", "3"], ["0.1234567890123456"], ["7", "-12"], ["1.0", "0.0"]]
)
def test_usual_numbers_are_known_without_a_value_of_python(cells: list[str]) -> None:
    """Python would read all cells of the block again, one by one."""
    assert _are_plain_numbers(pyarrow.array(cells))
