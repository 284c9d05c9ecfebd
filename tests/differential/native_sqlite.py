"""Random tables of SQLite: what a native layout gives, against their rows as the driver reads them."""

from __future__ import annotations

import base64
import math
import random
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import orjson

from isthmus import AsyncDatabase, Query
from isthmus import field as field_of
from isthmus._path import Root
from isthmus._query.ast import SortKey
from isthmus._query.order import cursor_position, sort_key
from isthmus._record import Record
from isthmus._values import same
from isthmus.errors import InvalidRecordError, RecordError
from isthmus.testing.queries import QueryMaker
from isthmus.testing.records import RecordSet
from tests.differential.checks import Check, make
from tests.differential.queries import Plan, Report, compare
from tests.differential.tally import Tally

_NAMES = ("a", "B", "a.b", "é", "select", 'quo"te', "x y", "_id", "data", "n", "rowid")
_TYPES = ("", "INTEGER", "INT", "TEXT", "VARCHAR(5)", "REAL", "NUMERIC", "DECIMAL(10,2)", "BLOB", "BOOLEAN",
          "DATE", "DATETIME", "TEXT", "INTEGER")  # fmt: skip
_STRICT_TYPES = ("INTEGER", "INT", "REAL", "TEXT", "BLOB", "ANY")
_COLLATIONS = ("", "", "", " COLLATE NOCASE", " COLLATE RTRIM")
_KEYS = (
    "INTEGER PRIMARY KEY",
    "TEXT",
    "NUMERIC",
    "",
    "BLOB",
    "REAL",
    "INT",
    "TEXT COLLATE NOCASE",
    "BOOLEAN",
)
_TEXTS = ("", "a", "A", "ab", "AB", "a ", "abcd", "AQI=", "7", "007", "7.0", " 7", "1e3", "true", "é", "É",
          "💥", "\uffff", "%", "_", "[", "\\", "a\nb", "2024-01-31", "x" * 40, "null", "0x10", "9",
          "10")  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 7, 9, 10, 100, 2**31, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 0.0, -0.0, 0.5, 7.0,
            7.5, 1e17, 1e18, 1e300, -1e300, 5e-324, 0.1, 2.0**63, -(2.0**63), 1e16, 3.0)  # fmt: skip
_BLOBS = (b"", b"\x01\x02", b"a", b"abc", b"\xff\xfe", b"7", b"\x00")
_IDS = (
    "007",
    "7",
    "7.0",
    "AQI=",
    "a",
    "A",
    "true",
    "[7]",
    '["a",7]',
    "1e3",
    "1000",
    "💥",
    " 7",
    "null",
    "-0",
)
_INVALID = ("9e999", "-9e999", "CAST(x'ff41' AS TEXT)", "CAST(x'610062' AS TEXT)", "CAST(x'eda080' AS TEXT)")


@dataclass(slots=True)
class MadeTable:
    """A table or view in a file, and its rows as the driver reads them."""

    path: str
    name: str
    key: list[str]
    affinities: dict[str, str]
    """Of each key column `number`, `text` or `none`: how it sorts."""
    booleans: set[str]
    statements: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    is_view: bool = False
    has_invalid: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the settings of a handle."""
        more = {"key": self.key} if self.is_view else {}
        return {"path": self.path, "layout": "native", "table": self.name, **more}

    def rank(self, record: Record) -> tuple[Any, ...]:
        """Return the place of a record among the ids: as the key columns sort (meaning §8)."""
        parts = orjson.loads(record.id) if len(self.key) > 1 else [record.data[self.key[0]]]
        return tuple(self._place(name, part) for name, part in zip(self.key, parts, strict=True))

    def _place(self, name: str, part: Any) -> tuple[Any, ...]:
        affinity = self.affinities[name]
        if isinstance(part, bool):
            return (0, int(part)) if name in self.booleans and affinity == "number" else (1, text_of(part))
        if isinstance(part, int | float) and affinity != "text":
            return (0, part)
        text = text_of(part)
        number = _number(text) if affinity == "none" else None
        return (1, text) if number is None else (0, number)


def text_of(part: Any) -> str:
    """Return the canonical text of a key's part; equal numbers have one."""
    if isinstance(part, float) and part == int(part) and -(2**63) <= part < 2**63:
        part = int(part)
    return part if isinstance(part, str) else orjson.dumps(part).decode()


def _number(text: str) -> int | float | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or text_of(found) != text:
        return None
    return found


class _Text(bytes):
    """A text cell as its bytes."""


def _read(cell: Any, *, boolean: bool) -> tuple[Any, bool]:
    """Return the canonical value of a cell, None if it has none, and whether it is invalid."""
    if isinstance(cell, _Text):
        try:
            text = cell.decode()
        except UnicodeDecodeError:
            return None, True
        return (None, True) if "\0" in text else (text, False)
    if isinstance(cell, bytes):
        return base64.b64encode(cell).decode(), False
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return None, True
        is_whole = 2**53 <= abs(cell) < 2.0**63 or cell == -(2.0**63)
        return (int(cell) if is_whole else cell + 0.0), False
    if boolean and cell in (0, 1) and cell is not None:
        return bool(cell), False
    return cell, False


def _literal(rng: random.Random, *, invalid: bool) -> str:
    """Return a random cell as SQL."""
    chance = rng.random()
    if invalid and chance < 0.06:
        return rng.choice(_INVALID)
    if chance < 0.15:
        return "NULL"
    if chance < 0.5:
        number = rng.choice(_NUMBERS) if rng.random() < 0.7 else rng.randint(-20, 20)
        return "-9223372036854775808" if number == -(2**63) and isinstance(number, int) else repr(number)
    if chance < 0.9:
        return "'" + rng.choice(_TEXTS).replace("'", "''") + "'"
    return f"x'{rng.choice(_BLOBS).hex()}'"


def quoted(name: str) -> str:
    """Return a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _affinity(declared: str, *, strict: bool) -> str:
    name = declared.upper()
    if "INT" in name or any(part in name for part in ("REAL", "NUMERIC", "BOOLEAN", "DATE", "DECIMAL")):
        return "number"
    return "text" if "TEXT" in name or "CHAR" in name else "none"


def make_table(rng: random.Random, path: str) -> MadeTable:
    """Make a table with rows, sometimes with a view over it, by SQL."""
    strict = rng.random() < 0.2 and sqlite3.sqlite_version_info >= (3, 37)
    names = rng.sample(_NAMES, rng.randint(1, 5))
    width = rng.choice((1, 1, 1, 2, 3))
    keys = [f"k{number}" for number in range(width)]
    alone = _KEYS if not strict else ("INTEGER PRIMARY KEY", "TEXT", "INT", "REAL", "ANY", "BLOB")
    declared = {name: rng.choice(alone) for name in keys}
    if width > 1:
        declared = {name: kind.replace("INTEGER PRIMARY KEY", "INTEGER") for name, kind in declared.items()}
    single = width == 1 and "PRIMARY" in declared[keys[0]]
    types = {name: rng.choice(_STRICT_TYPES if strict else _TYPES) for name in names}
    columns = [f"{quoted(name)} {kind}" for name, kind in declared.items()]
    columns += [f"{quoted(name)} {kind}{rng.choice(_COLLATIONS)}" for name, kind in types.items()]
    if rng.random() < 0.3:
        columns.append(
            f"gen {'ANY' if strict else ''} AS (coalesce({quoted(names[0])}, 5)) {rng.choice(('', 'STORED'))}"
        )
    rng.shuffle(columns)
    if not single:
        columns.append(f"PRIMARY KEY ({', '.join(keys)})")
    options = [word for word, wanted in (("WITHOUT ROWID", rng.random() < 0.3), ("STRICT", strict)) if wanted]
    statements = [f"CREATE TABLE t ({', '.join(columns)}) {', '.join(options)}"]
    for number, name in enumerate(names):
        if rng.random() < 0.5:
            collation = rng.choice(("", "", " COLLATE NOCASE", " COLLATE BINARY"))
            more = f", {quoted(rng.choice(names))}" if rng.random() < 0.3 else ""
            part = f" WHERE {quoted(name)} IS NOT NULL" if rng.random() < 0.2 else ""
            direction = rng.choice(("", " DESC"))
            statements.append(
                f"CREATE INDEX i{number} ON t ({quoted(name)}{collation}{direction}{more}){part}"
            )
    made = MadeTable(
        path,
        "t",
        keys,
        {name: _affinity(kind, strict=strict) for name, kind in declared.items()},
        {name for name, kind in (declared | types).items() if kind == "BOOLEAN"},
        statements,
    )
    _fill(rng, made, [*keys, *names], invalid=rng.random() < 0.25)
    return made


def _make_indexes(rng: random.Random, names: list[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        if rng.random() < 0.5:
            collation = rng.choice(("", "", " COLLATE NOCASE", " COLLATE BINARY"))
            more = f", {quoted(rng.choice(names))}" if rng.random() < 0.3 else ""
            part = f" WHERE {quoted(name)} IS NOT NULL" if rng.random() < 0.2 else ""
            direction = rng.choice(("", " DESC"))
            yield f"CREATE INDEX i{number} ON t ({quoted(name)}{collation}{direction}{more}){part}"


def _fill(rng: random.Random, made: MadeTable, names: list[str], *, invalid: bool) -> None:
    with _connection(made.path) as connection:
        for statement in made.statements:
            connection.execute(statement)
        for _ in range(rng.choice((0, 1, 5, 20, 40))):
            cells = ", ".join(_literal(rng, invalid=invalid and name not in made.key) for name in names)
            statement = f"INSERT INTO t ({', '.join(map(quoted, names))}) VALUES ({cells})"
            connection.execute("SAVEPOINT one")
            try:
                connection.execute(statement)
                read_records(made, connection)
            except (sqlite3.IntegrityError, NoIdError):
                connection.execute("ROLLBACK TO one")
            else:
                made.statements.append(statement)
            connection.execute("RELEASE one")
        if rng.random() < 0.15:
            made.statements.append("CREATE VIEW v AS SELECT * FROM t")
            connection.execute(made.statements[-1])
            made.name, made.is_view = "v", True
            # What a view declares is what its columns are declared.
        made.records = read_records(made, connection)
        connection.commit()


class NoIdError(Exception):
    """A row has no id, or that of another."""


def _connection(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = _Text
    connection.execute("BEGIN")
    return connection


def read_records(made: MadeTable, connection: sqlite3.Connection) -> list[Record]:
    """Return the rows as records, in the order of their ids; values without canonical form are left out."""
    cursor = connection.execute(f"SELECT * FROM {made.name}")
    names = [part[0].decode() if isinstance(part[0], bytes) else part[0] for part in cursor.description]
    found: dict[str, Record] = {}
    made.has_invalid = False
    for row in cursor:
        data = {}
        cells = dict(zip(names, row, strict=True))
        for name, cell in cells.items():
            value, is_invalid = _read(cell, boolean=name in made.booleans)
            made.has_invalid |= is_invalid
            if value is not None:
                data[name] = value
        for name in made.key:
            is_bytes = type(cells[name]) is bytes and made.affinities[name] != "none"
            if name not in data or is_bytes or (name in made.booleans and not isinstance(data[name], bool)):
                raise NoIdError
        parts = [data[name] for name in made.key]
        whole = [_plain(part) for part in parts]
        id = text_of(parts[0]) if len(parts) == 1 else orjson.dumps(whole).decode()
        if not id or id in found:
            raise NoIdError
        found[id] = Record(data, id=id)
    return sorted(found.values(), key=made.rank)


def _plain(part: Any) -> Any:
    return part if isinstance(part, str | bool) else orjson.loads(text_of(part))


def sorter(made: MadeTable) -> Callable[[Sequence[Record], tuple[SortKey, ...]], list[Record]]:
    """Return the function that sorts records, by id last, as the key columns sort."""
    places = {record.id: f"{place:09d}" for place, record in enumerate(made.records)}

    def sort(records: Sequence[Record], order: tuple[SortKey, ...]) -> list[Record]:
        placed = []
        for record in records:
            position = list(cursor_position(record, order))
            position[-1] = places[record.id]
            for index, key in enumerate(order):
                if key.path.root is Root.ID:
                    position[index] = (2, places[record.id])
            placed.append((tuple(position), record))
        key = sort_key(order)
        return [record for _, record in sorted(placed, key=lambda pair: key(pair[0]))]

    return sort


async def run(plan: Plan, *, log: TextIO = sys.stderr) -> Report:
    """Run on random tables; a failure has the statements that make the table."""
    report = Report(Tally())
    for number, wanted in plan.sets():
        rng = random.Random(f"native/{plan.seed}/{number}")
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            made = make_table(rng, f"{folder}/theirs.db")
            report.sets += 1
            before = Path(made.path).read_bytes()
            try:
                failure = await _ask(rng, made, wanted, report)
                if failure is None and Path(made.path).read_bytes() != before:
                    failure = "reading changed the file"
                if failure is None and not made.is_view:
                    failure = await _write(rng, made)
            except Exception:
                failure = traceback.format_exc()
        if failure is not None:
            print(f"difference in table {number} of seed {plan.seed}", file=log)
            report.failures.append("\n".join([*made.statements, failure]))
            if len(report.failures) >= plan.stop_after:
                break
    return report


async def _ask(rng: random.Random, made: MadeTable, wanted: int, report: Report) -> str | None:
    db = await AsyncDatabase.create("sqlite", made.settings())
    try:
        maker = QueryMaker(rng, RecordSet(tuple(made.records), everyday=False), made.records)
        support = db._backend.support(db.collection_name)
        sort = sorter(made)
        for record in () if made.has_invalid else made.records:
            found = await db.get(record.id or "")
            if found is None or not same(found.data, record.data):
                return f"get {record!r}: {found!r}"
        if (wrong := await _by_ids(rng, made, db)) is not None:
            return wrong
        for _ in range(wanted):
            generated = maker.generate()
            check = make(rng, maker, generated)
            if made.has_invalid and check.verb not in ("count", "exists", "aggregate"):
                check = Check("count", Query(where=generated.predicate))
            report.tally.add(check.verb, generated, len(made.records), support, everyday=False)
            answers = await compare(db, made.records, check, generated.matching, sort=sort)
            if answers is not None:
                expected, actual = answers
                return f"{check}\nexpected {expected!r}\nactual {actual!r}"
    finally:
        await db.close()
    return None


async def _by_ids(rng: random.Random, made: MadeTable, db: AsyncDatabase) -> str | None:
    """Look up some ids and texts that are none: conditions on `_id` compare canonical text."""
    known = [record.id or "" for record in made.records]
    for _ in range(4):
        ids = rng.sample(known, min(len(known), rng.randint(0, 5))) + rng.sample(_IDS, rng.randint(0, 4))
        expected = sum(id in ids for id in known)
        asked = [field_of("_id").in_(ids), ~field_of("_id").in_(ids)]
        found = [await db.count(predicate) for predicate in asked]
        if found != [expected, len(known) - expected]:
            return f"ids {ids!r}: {found}, expected {expected} of {len(known)}"
    return None


async def _write(rng: random.Random, made: MadeTable) -> str | None:
    """Write random values: what is accepted reads as it was given, what is refused changes nothing."""
    db = await AsyncDatabase.create("sqlite", made.settings())
    try:
        for _ in range(20):
            data = {name: _value(rng) for name in _some(rng, made)}
            with _connection(made.path) as connection:
                before = connection.execute("SELECT * FROM t").fetchall()
            try:
                id = await db.create(data)
            except (RecordError, InvalidRecordError):
                with _connection(made.path) as connection:
                    if connection.execute("SELECT * FROM t").fetchall() != before:
                        return f"a refused record was written: {data!r}"
                continue
            record = await db.get(id)
            if record is None:
                return f"wrote {data!r} as {id!r}, which is missing"
            given = {name: value for name, value in data.items() if value is not None}
            if not all(same(record.data.get(name), value) for name, value in given.items()):
                return f"wrote {data!r}, read {record!r}"
            if not await db.delete(id) or await db.get(id) is not None:
                return f"{id!r} was not deleted"
    finally:
        await db.close()
    return None


def _some(rng: random.Random, made: MadeTable) -> Iterator[str]:
    with _connection(made.path) as connection:
        infos = connection.execute("PRAGMA table_info(t)").fetchall()
    for info in infos:
        name = info[1].decode()
        if name in made.key or rng.random() < 0.7:
            yield name


def _value(rng: random.Random) -> Any:
    chance = rng.random()
    if chance < 0.1:
        return None
    if chance < 0.5:
        number = rng.choice(_NUMBERS)
        return int(number) if 2**53 <= abs(number) < 2**63 else number
    return rng.choice((True, False)) if chance < 0.6 else rng.choice(_TEXTS)
