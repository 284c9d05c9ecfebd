"""Random tables made by SQL, of many types, keys, collations and indexes, against the evaluator.

The rows are read by asyncpg and turned into JSON here, by other code than the backend's.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO
from uuid import UUID

import asyncpg

from isthmus import AsyncDatabase
from isthmus._record import Record, make_record
from tests.differential.native_tables import (
    Type,
    canonical_or_none,
    compare,
    id_of_key,
    parse_json,
)
from tests.differential.queries import Plan, Report
from tests.differential.tally import Tally

SCHEMA = "native_differential"
_SETUP = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
CREATE TYPE {SCHEMA}.mood AS ENUM ('sad', 'ok', 'Happy', 'é');
CREATE DOMAIN {SCHEMA}.small AS int CHECK (VALUE > -1000);
CREATE DOMAIN {SCHEMA}.label AS varchar(40);
"""
_TEXTS = (
    "",
    "a",
    "A",
    "b",
    "B",
    "ab",
    "Ab",
    "a b",
    "aa",
    "z",
    "Z",
    "é",
    "É",
    "e",
    "💥",
    "_",
    "%",
    "a%",
    "10",
    "9",
    "ß",
    "ss",
    "ﬀ",
    "a\n",
)
_NAMES = (
    "n",
    "name",
    "Name",
    "data",
    "id",
    "t",
    "version",
    'a"b',
    "a.b",
    "é",
    "x y",
    "metadata",
    "created_at",
    "o",
    "v",
)


def _quoted(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple("'" + text.replace("'", "''") + "'" for text in texts)


_COLLATIONS = ("", "", ' COLLATE "C"', ' COLLATE "POSIX"', ' COLLATE "en-x-icu"')
_JSON = (
    *('{"a": 1}', '{"a": [1, 2.5, "x", null]}', "[]", "[[1], []]", '"a"', "7", "true", "null", "{}"),
    *('{"b": {"c": "é"}}', '{"a": 1e300}', '[{"a": 1, "b": "x"}, {"a": 2}]', '[{"b": []}]'),
    *('{"a": 9007199254740993}', '{"a": 0.1}'),
    *('{"a": 0.1234567890123456789012345}', '{"a": 0.12345678901234568}'),
)
TYPES = (
    Type("int2", tuple(map(str, (0, 1, -1, 7, 32767, -32768))), key=True),
    Type("int4", tuple(map(str, (0, 1, 2, 3, 10, 9, -5, 2**31 - 1, -(2**31)))), key=True),
    Type("int8", tuple(map(str, (0, 1, 10, 9, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)))), key=True),
    Type("native_differential.small", tuple(map(str, (0, 1, 5, -999, 30)))),
    Type(
        "numeric",
        ("0", "1", "1.50", "1.5", "0.1", "-2", "1e300", "9007199254740993", "123456.789"),
        rotten=("'NaN'", "0.12345678901234567890123456789012345678901", "1e400", "9223372036854775808.5"),
    ),
    Type("numeric(10,2)", ("0", "1", "1.5", "-2.25", "99999999.99"), key=True, rotten=("'NaN'",)),
    Type(
        "float8",
        ("0", "'-0'", "1", "0.1", "1e300", "9007199254740993", "5e-324", "-1.5"),
        rotten=("'NaN'", "'Infinity'", "'-Infinity'"),
    ),
    Type("float4", ("0", "1", "0.1", "-1.5", "3e38"), rotten=("'NaN'",)),
    Type("bool", ("true", "false"), key=True),
    Type("text", _quoted(_TEXTS), key=True, collations=_COLLATIONS),
    Type("varchar(30)", _quoted(_TEXTS), key=True, collations=_COLLATIONS),
    Type("native_differential.label", _quoted(_TEXTS)),
    Type("char(4)", _quoted(("a", "A", "ab", "b  ", "", "é")), key=True),
    Type("native_differential.mood", _quoted(("sad", "ok", "Happy", "é")), key=True),
    Type("uuid", _quoted(tuple(str(UUID(int=n)) for n in (0, 1, 10, 2**127, 2**128 - 1))), key=True),
    Type(
        "date",
        _quoted(("2024-01-01", "2024-02-29", "1999-12-31", "0001-01-01", "0099-05-05")),
        key=True,
        rotten=_quoted(("infinity", "0044-03-15 BC")),
    ),
    Type(
        "timestamp",
        _quoted(("2024-01-01 00:00:00", "2024-01-01 00:00:00.000001", "0999-12-31 23:59:59.5")),
        key=True,
        rotten=_quoted(("-infinity",)),
    ),
    Type(
        "timestamptz",
        _quoted(("2024-01-01 00:00:00+00", "2024-01-01 02:00:00+02", "2024-07-01 12:30:00.123456-05")),
        key=True,
        rotten=_quoted(("infinity",)),
    ),
    Type("interval", _quoted(("1 day", "02:00:00", "1 year 2 mons", "-00:00:01.5")), key=True),
    Type("bytea", _quoted(("\\x", "\\x00", "\\x00ff10", "\\xfbff")), key=True),
    Type("jsonb", _quoted(_JSON), rotten=_quoted(('{"a": 0.12345678901234567890}',))[:0]),
    Type("json", _quoted(_JSON), rotten=_quoted(('{"a": 1, "a": 2}', '["\\u0000"]'))),
    Type("int4[]", _quoted(("{}", "{1,2}", "{1,NULL}", "{{1,2},{3,4}}", "{7}"))),
    Type("text[]", _quoted(("{}", "{a}", '{"a b","",NULL}', "{A,é,10}", '{"q\\"\\\\"}'))),
    Type("float8[]", _quoted(("{}", "{1.5,2}", "{0.1}")), rotten=_quoted(("{NaN}",))),
    Type("timestamptz[]", _quoted(("{}", '{"2024-01-01 00:00:00+00"}'))),
    Type("time", _quoted(("12:00:00", "00:00:01.5")), key=True),
    Type("inet", _quoted(("10.0.0.1", "::1", "2.0.0.1")), key=True),
)
FANCY = (
    Type("citext", _quoted(("a", "A", "b", "ab", "É", "é")), key=True),
    Type('text COLLATE native_differential."ci"', _quoted(_TEXTS), key=True),
)


@dataclass(slots=True)
class MadeTable:
    """A table's name, its columns in order, its key and the statements that make it."""

    name: str
    columns: dict[str, Type]
    key: list[str]
    statements: list[str]
    is_clean: bool


def generate(rng: random.Random, name: str, fancy: Sequence[Type]) -> MadeTable:
    """Return a random table; in one of five there are values without a canonical form."""
    types = (*TYPES, *fancy)
    keys = [t for t in types if t.key]
    width = rng.choice((1, 1, 1, 2, 3))
    names = rng.sample(_NAMES, rng.randint(width + 1, min(9, len(_NAMES))))
    columns = {n: rng.choice(keys if place < width else types) for place, n in enumerate(names)}
    key = names[:width]
    rotten = rng.random() < 0.2
    definitions = [
        f"{_name(n)} {t.name}{rng.choice(t.collations or ('',))}{rng.choice(('', '', '', ' NOT NULL'))}"
        for n, t in columns.items()
    ]
    shuffled = rng.sample(key, len(key))
    table = f"{SCHEMA}.{_name(name)}"
    statements = [
        f"CREATE TABLE {table} ({', '.join(definitions)}, PRIMARY KEY ({', '.join(map(_name, shuffled))}))"
    ]
    for _ in range(rng.choice((3, 12, 40))):
        row = []
        for n, t in columns.items():
            if n not in key and rng.random() < 0.2:
                row.append("NULL")
            elif rotten and t.rotten and n not in key and rng.random() < 0.2:
                row.append(rng.choice(t.rotten))
            elif n in key and t.name in ("int4", "int8") and rng.random() < 0.7:
                row.append(str(rng.randint(-20, 120)))
            elif n in key and t.name in ("text", "varchar(30)") and rng.random() < 0.7:
                row.append(_quoted([rng.choice(_TEXTS) + rng.choice(_TEXTS) + rng.choice("xyzX")])[0])
            else:
                row.append(rng.choice(t.literals))
        statements.append(f"INSERT INTO {table} VALUES ({', '.join(row)}) -- may clash")
    for n in rng.sample(names, min(len(names), 3)):
        if columns[n].name not in ("json", "inet") and rng.random() < 0.5:
            kind = "USING gin " if columns[n].name == "jsonb" else ""
            statements.append(f"CREATE INDEX ON {table} {kind}({_name(n)})")
    return MadeTable(name, columns, shuffled, statements, not rotten)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def rows_of(connection: Any, table: MadeTable) -> tuple[list[Record], dict[str, tuple[Any, ...]]]:
    """Return the rows as records, values without canonical form left out, and what each id sorts by."""
    as_text = ("date", "interval", "time", "inet", "json", "jsonb")
    selected = ", ".join(
        f"{_name(n)}::text" if t.name in as_text else _name(n) for n, t in table.columns.items()
    )
    records, ranks = [], {}
    for row in await connection.fetch(f"SELECT {selected} FROM {SCHEMA}.{_name(table.name)}"):
        data: dict[str, Any] = {}
        for (n, t), value in zip(table.columns.items(), row, strict=True):
            if value is not None and (found := _canonical(t, value)) is not None:
                data[n] = found
        key = [data[n] for n in table.key]
        id = id_of_key(key)
        ranks[id] = tuple(key)
        records.append(make_record(id, data, {}, "1", None, None))
    return records, ranks


def _canonical(type: Type, value: Any) -> Any:
    if type.name in ("json", "jsonb"):
        value = parse_json(value)
    if type.name.startswith("char("):
        value = value.rstrip(" ")
    if type.name == "date":
        return None if "BC" in value or value == "infinity" else value
    if value in (dt.datetime.max, dt.datetime.min):  # asyncpg's infinities
        return None
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return f"{value.isoformat(timespec='microseconds')}"
    if isinstance(value, dt.datetime) and value.replace(tzinfo=None) in (dt.datetime.max, dt.datetime.min):
        return None
    return canonical_or_none(value)


async def run(url: str, plan: Plan, *, driver: str = "asyncpg", log: TextIO = sys.stderr) -> Report:
    """Run queries on random tables; each comes from the seed and its number."""
    report = Report(Tally())
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_SETUP)
        fancy = await _extras(connection)
        for number, wanted in plan.sets():
            rng = random.Random(f"{plan.seed}/native/{number}")
            table = generate(rng, rng.choice((f"t{number}", f'T "{number}"')), fancy)
            report.sets += 1
            failure = await _one_table(connection, url, driver, table, rng, wanted, report)
            if failure is not None:
                print(f"difference in table {number} of seed {plan.seed}", file=log)
                report.failures.append("\n".join([*table.statements, failure]))
                if len(report.failures) >= plan.stop_after:
                    break
        await connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    finally:
        await connection.close()
    return report


async def _extras(connection: Any) -> list[Type]:
    """Return types that ignore case; a server without the extension or without ICU lacks some."""
    extras = []
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"
    if await connection.fetchval(available):
        await connection.execute("CREATE EXTENSION IF NOT EXISTS citext")
        extras.append(FANCY[0])
    with contextlib.suppress(asyncpg.FeatureNotSupportedError):
        await connection.execute(
            f"CREATE COLLATION {SCHEMA}.ci"
            " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
        extras.append(FANCY[1])
    return extras


async def _one_table(
    connection: Any, url: str, driver: str, table: MadeTable, rng: random.Random, wanted: int, report: Report
) -> str | None:
    for statement in table.statements:
        try:
            await connection.execute(statement)
        except (asyncpg.UniqueViolationError, asyncpg.NotNullViolationError):
            continue
        except (asyncpg.UndefinedObjectError, asyncpg.FeatureNotSupportedError) as error:
            if "x-icu" not in statement:
                raise error
            await connection.execute(statement.replace(' COLLATE "en-x-icu"', ""))
    records, ranks = await rows_of(connection, table)
    settings = {"url": url, "schema": SCHEMA, "table": table.name, "layout": "native", "driver": driver}
    async with await AsyncDatabase.create("postgres", settings) as db:
        return await compare(db, records, ranks, rng, wanted, report, is_clean=table.is_clean)
