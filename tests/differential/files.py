"""Random folders: formats, dialects, types of columns and damage, against a model written plainly."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow

from isthmus import AsyncDatabase
from isthmus._record import Record
from isthmus._values import canonical, same
from isthmus.errors import IsthmusError
from isthmus.testing import values
from isthmus.testing.queries import QueryMaker
from isthmus.testing.records import RecordSet
from tests.differential.checks import make
from tests.differential.queries import Plan, Report, differs
from tests.differential.tally import Tally

_NAMES = ("n", "name", "zip", "a.b", "é", "_id", "x y", "")
_TEXTS = (
    "",
    "a",
    "A",
    "0150",
    "1.10",
    "1e5",
    "true",
    "null",
    "NA",
    'say "hi"',
    "a,b;c\td|e",
    "two\nlines",
    "é💥",
    " 1",
)
_ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")


@dataclass(slots=True)
class Folder:
    """Files with their contents, the settings to read them by, and the rows that they hold."""

    settings: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    cells: dict[str, list[dict[str, Any] | None]] = field(default_factory=dict)
    """The rows of each file; cells of CSV as text, None for a damaged row."""

    def records(self) -> list[Record]:
        """Return the records that a reader must find."""
        kinds = self._kinds()
        found = []
        for key in sorted(self.cells, key=lambda key: f"{key}#"):
            for number, row in enumerate(self.cells[key]):
                if row is None:
                    continue
                data = {k: self._value(v, kinds[k]) for k, v in row.items()} if _is_csv(key) else row
                found.append(Record(canonical(data), id=f"{key}#{number:012d}"))
        return found

    def _kinds(self) -> dict[str, str]:
        columns: dict[str, list[str]] = {}
        for key, rows in self.cells.items():
            if _is_csv(key):
                for row in rows:
                    for name, cell in (row or {}).items():
                        columns.setdefault(name, []).append(cell)
        types = self.settings.get("types", {})
        return {
            name: "text" if types == "text" else types.get(name) or self._kind(cells)
            for name, cells in columns.items()
        }

    def _kind(self, cells: list[str]) -> str:
        filled = [cell for cell in cells if cell and cell not in self.settings.get("null", ())]
        if filled and all(cell in ("true", "false") for cell in filled):
            return "bool"
        return "number" if filled and all(map(_is_number, filled)) else "text"

    def _value(self, cell: str, kind: str) -> Any:
        if cell in self.settings.get("null", ()):
            return None
        if kind == "text":
            return cell
        return json.loads(cell) if cell else None


def _is_csv(key: str) -> bool:
    return ".csv" in key or ".tsv" in key


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number in the one form in which it is written."""
    if not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d{1,3})?", cell, re.ASCII):
        return False
    value = json.loads(cell)
    if isinstance(value, int):
        return str(value) == cell and -(2**63) <= value < 2**63
    if cell == "-0.0" or value in (float("inf"), float("-inf")) or 2**53 <= abs(value) < 2**63:
        return False
    digits, _, power = repr(value).partition("e")
    given, _, exponent = cell.partition("e")
    return digits == given and int(power or 0) == int(exponent or 0) and ("e" in cell) == (power != "")


def generate(rng: random.Random) -> Folder:
    """Return a random folder."""
    settings: dict[str, Any] = {"on_invalid": "skip"}
    if rng.random() < 0.3:
        settings["null"] = ("NA", "null")
    if rng.random() < 0.15:
        settings["types"] = rng.choice(("text", {"zip": "text", "n": "text"}))
    if rng.random() < 0.15:
        settings["encoding"] = "latin-1"
    folder = Folder(settings)
    columns = {name: _column(rng) for name in rng.sample(_NAMES, rng.randint(1, 5))}
    for number in range(rng.randint(1, 4)):
        suffix = rng.choice(("csv", "csv", "tsv", "jsonl", "json"))
        compression = rng.choice(("", "", ".gz", ".zst"))
        key = f"{rng.choice(('', 'sub/', 'é/'))}{rng.choice('ab#')}{number}.{suffix}{compression}"
        rows = [
            {name: make_cell() for name, make_cell in columns.items()}
            for _ in range(rng.choice((0, 1, 5, 20)))
        ]
        if suffix in ("csv", "tsv"):
            content, kept = _csv(rng, rows, settings, list(columns), tabs=suffix == "tsv")
        else:
            content, kept = _json(rng, rows, lines=suffix == "jsonl")
        folder.cells[key] = kept
        folder.files[key] = _compress(rng, content, compression)
    return folder


def _column(rng: random.Random) -> Any:
    pool: list[Any] = rng.choice(
        (
            [values.integer(rng) for _ in range(6)],
            [values.real(rng) for _ in range(6)],
            [True, False],
            list(rng.sample(_TEXTS, 6)),
            [1, 2.5, "", "x"],
            [1, "", 3],
            ["", "true", "false"],
            ["1", "2.5", "1e-07", "NA"],
            [""],
        )
    )
    return lambda: rng.choice(pool)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _csv(
    rng: random.Random, rows: list[dict[str, Any]], settings: dict[str, Any], names: list[str], *, tabs: bool
) -> tuple[bytes, list[dict[str, Any] | None]]:
    encoding = settings.get("encoding") or rng.choice(_ENCODINGS[:-1])
    delimiter = "\t" if tabs else ","
    lines: list[str] = []
    kept: list[dict[str, Any] | None] = []

    def line(cells: list[str]) -> str:
        text = io.StringIO(newline="")
        quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerow(cells)
        return text.getvalue()

    end = rng.choice(("\n", "\r\n"))
    lines.append(line(names))
    for row in rows:
        cells = [_cell(value) for value in row.values()]
        if encoding == "latin-1":
            cells = [cell.encode("latin-1", "replace").decode("latin-1") for cell in cells]
        lines.append(line(cells))
        kept.append(dict(zip(names, cells, strict=True)))
        if rng.random() < 0.05:
            lines.append(rng.choice((f'"x"y{delimiter}{end}', delimiter.join("1" * (len(names) + 1)) + end)))
            kept.append(None)
        if rng.random() < 0.05:
            lines.append(end)
    text = "".join(lines)
    if encoding == "latin-1":
        text = text.encode("latin-1", "replace").decode("latin-1")
        kept = [row and {_latin(k): v for k, v in row.items()} for row in kept]
    return text.encode(encoding), kept


def _latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1")


def _json(
    rng: random.Random, rows: list[dict[str, Any]], *, lines: bool
) -> tuple[bytes, list[dict[str, Any] | None]]:
    kept: list[dict[str, Any] | None] = []
    texts: list[str] = []
    for row in rows:
        if rng.random() < 0.3:
            row = {**row, "more": values.value(rng)}
        kept.append(row)
        texts.append(json.dumps(row, ensure_ascii=rng.random() < 0.5))
        if lines and rng.random() < 0.05:
            texts.append(
                rng.choice(("[1]", '{"a":', '{"a": NaN}', '{"a": "\\u0000"}', '{"a": 9223372036854775808}'))
            )
            kept.append(None)
        elif rng.random() < 0.05:
            texts.append(rng.choice(("[1]", "7", '{"a": "\\u0000"}')))
            kept.append(None)
    blank = rng.choice(("", "\n", " \n\t"))
    text = "\n".join(texts) + rng.choice(("", "\n")) if lines else f"[{blank}" + f",{blank}".join(texts) + "]"
    return text.encode(), kept


def _compress(rng: random.Random, content: bytes, compression: str) -> bytes:
    if compression == ".gz":
        return gzip.compress(content)
    return pyarrow.compress(content, "zstd", asbytes=True) if compression == ".zst" else content


async def run(plan: Plan, *, log: TextIO = sys.stderr) -> Report:
    """Run queries on random folders; each folder comes from the seed and its number."""
    report = Report(Tally())
    for number, wanted in plan.sets():
        rng = random.Random(f"{plan.seed}/files/{number}")
        folder = generate(rng)
        report.sets += 1
        try:
            failure = await _one_folder(folder, rng, wanted, report)
        except IsthmusError:
            failure = traceback.format_exc()
        if failure is not None:
            print(f"difference in folder {number} of seed {plan.seed}", file=log)
            report.failures.append(
                f"folder {number} of seed {plan.seed}: {failure}\n{folder.files}\n{folder.settings}"
            )
            if len(report.failures) >= plan.stop_after:
                break
    return report


async def _one_folder(folder: Folder, rng: random.Random, wanted: int, report: Report) -> str | None:
    place = Path(tempfile.mkdtemp(prefix="isthmus-files-test-"))
    try:
        for key, content in folder.files.items():
            (place / key).parent.mkdir(parents=True, exist_ok=True)
            (place / key).write_bytes(content)
        db = await AsyncDatabase.create("files", {"location": str(place), **folder.settings})
        try:
            return await _compare(db, folder.records(), rng, wanted, report)
        finally:
            await db.close()
    finally:
        shutil.rmtree(place)


async def _compare(
    db: AsyncDatabase, expected: list[Record], rng: random.Random, wanted: int, report: Report
) -> str | None:
    stored = await db.search()
    if [r.id for r in stored] != [r.id for r in expected]:
        return f"ids: {[r.id for r in stored]}\nexpected {[r.id for r in expected]}"
    for one, other in zip(stored, expected, strict=True):
        if not same(one.data, other.data):
            return f"{one.id}: {one.data}\nexpected {other.data}"
        if await db.get(one.id or "") != other:
            return f"get({one.id!r}) differs"
    if not stored:
        return None
    maker = QueryMaker(rng, RecordSet(tuple(expected), everyday=False), stored)
    support = db._backend.support(db.collection_name)
    for _ in range(wanted):
        made = maker.generate()
        check = make(rng, maker, made)
        report.tally.add(check.verb, made, len(stored), support, everyday=False)
        seen = await differs(db, stored, check, made.matching)
        if seen is not None:
            return f"{check}\nexpected {seen[0]}\nactual {seen[1]}"
    return None
