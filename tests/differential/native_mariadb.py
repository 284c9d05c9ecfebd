"""Random tables of MariaDB made by SQL, of many types, keys, collations and indexes, against the evaluator.

The rows are read by the driver and turned into JSON here, by other code than the backend's.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TextIO
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from isthmus import AsyncDatabase, field
from isthmus._record import Record, make_record
from isthmus._values import same
from isthmus.errors import RecordError
from sqlalchemy import exc
from tests.differential.native_tables import (
    NativeCheck,
    Type,
    canonical_or_none,
    compare,
    id_of_key,
    parse_json,
)
from tests.differential.queries import Plan, Report
from tests.differential.tally import Tally

DATABASE = "native_differential"
_URL = "ISTHMUS_NATIVE_MARIADB"
_TEXTS = (
    *(
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
    ),
    *("ß", "ss", "ﬀ", "a\n", "a ", "a  ", "a\t", "A ", "\\", "|", "ch", "c", "'", "a\x01"),
)
_NARROW = tuple(text for text in _TEXTS if text not in ("💥", "ﬀ"))
_NAMES = (
    *(
        "n",
        "name",
        "Data",
        "id",
        "t",
        "version",
        "a`b",
        "a.b",
        "é",
        "x y",
        "metadata",
        "created_at",
        "o",
        "v",
    ),
    *(":p0", "select", 'q"', "50%"),
)


def _quoted(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple("'" + text.replace("\\", "\\\\").replace("'", "''") + "'" for text in texts)


def _numbers(*numbers: object) -> tuple[str, ...]:
    return tuple(map(str, numbers))


_JSON = (
    *('{"a": 1}', '{"a": [1, 2.5, "x", null]}', "[]", "[[1], []]", '"a"', "7", "true", "null", "{}"),
    *('{"b": {"c": "é"}}', '{"a": 1e300}', '[{"a": 1, "b": "x"}, {"a": 2}]', '[{"b": []}]'),
    *('{"a": 9007199254740993}', '{"a": 0.1}', '{"a": 0.12345678901234568}'),
)
_DATES = ("2024-01-01", "2024-02-29", "1999-12-31", "0001-01-01", "0099-05-05", "9999-12-31")
_ZERO_DATES = ("0000-00-00", "2024-00-10", "2024-02-00", "0000-01-01")
_TIMES = tuple(f"{date} {time}" for date in _DATES for time in ("00:00:00", "23:59:59.5", "00:00:00.000001"))
_ZERO_TIMES = tuple(f"{date} 00:00:00" for date in _ZERO_DATES)
# A day within what a TIMESTAMP can hold, in each of the zones below: beyond it the zero date is stored.
_STAMPS = ("2024-01-01 00:00:00", "1970-01-02 00:00:01", "2024-07-01 12:30:00.123456", "2038-01-18 03:14:07")
_COLLATIONS = (
    *("utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_bin", "utf8mb4_nopad_bin", "utf8mb4_czech_ci"),
    *("utf8mb4_unicode_nopad_ci", "utf8mb4_uca1400_ai_ci"),
)
TYPES = (
    Type("TINYINT", _numbers(0, 1, -1, 7, 127, -128), key=True),
    Type("SMALLINT UNSIGNED", _numbers(0, 1, 7, 65535), key=True),
    Type("INT", _numbers(0, 1, 2, 3, 10, 9, -5, 2**31 - 1, -(2**31)), key=True),
    Type("BIGINT", _numbers(0, 1, 10, 9, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)), key=True),
    Type(
        "BIGINT UNSIGNED",
        _numbers(0, 1, 10, 2**53 + 1, 2**63 - 1),
        key=True,
        rotten=_numbers(2**63, 2**64 - 1),
    ),
    Type("YEAR", _numbers(1901, 2024, 2155), key=True),
    Type("BOOLEAN", _numbers(0, 1), rotten=_numbers(2, -1)),
    Type("DECIMAL(10,2)", _numbers(0, 1, 1.5, -2.25, 99999999.99), key=True),
    Type("DECIMAL(10,2) UNSIGNED", _numbers(0, 1, 1.5, 99999999.99)),
    Type("DECIMAL(5,0)", _numbers(0, 1, -99999, 42), key=True),
    Type(
        "DECIMAL(20,4)",
        _numbers(0, 1, "0.1", "-2.5", "123456789.1234", "9007199254740993", "1234567890123456"),
        rotten=_numbers("1234567890123456.7891", "9007199254740993.5"),
    ),
    Type(
        "DECIMAL(40,20)",
        _numbers(0, 1, "0.1", "0.00000000000000000001", "9223372036854775807", "1e19"),
        rotten=_numbers("0.12345678901234567891", "9223372036854775807.5"),
    ),
    Type("DOUBLE", _numbers(0, "-0e0", 1, 0.1, 1e300, 9007199254740993, 5e-324, -1.5, 7.0, 1e17)),
    Type("FLOAT", _numbers(0, 1, 0.1, -1.5, 3e38, 16777217, 1.17e-38)),
    Type("FLOAT(7,2)", _numbers(0, 1.25, -1.5, 12345.67)),
    *(
        Type(f"{kind} COLLATE {collation}", _quoted(_TEXTS), key="VAR" in kind, rotten=("'a\\0b'",))
        for collation in _COLLATIONS
        for kind in ("VARCHAR(30)", "VARCHAR(30)", "TEXT")
    ),
    Type("VARCHAR(30) CHARACTER SET latin1", _quoted(_NARROW), key=True),
    Type("VARCHAR(30) CHARACTER SET utf8mb3", _quoted(_NARROW), key=True),
    Type("TEXT CHARACTER SET ascii", _quoted(("a", "A", "b ", "", "10"))),
    Type("CHAR(4)", _quoted(("a", "A", "ab", "b  ", "", "é")), key=True),
    Type("CHAR(4) COLLATE utf8mb4_bin", _quoted(("a", "A", "ab", "b  ", "", "é")), key=True),
    Type("ENUM('sad','ok','Happy','é','it''s')", _quoted(("sad", "ok", "Happy", "é", "it's")), key=True),
    Type("UUID", _quoted([str(UUID(int=n)) for n in (0, 1, 10, 2**64 + 5, 2**127, 2**128 - 1)]), key=True),
    Type("DATE", _quoted(_DATES), key=True, rotten=_quoted(_ZERO_DATES), read="CAST({0} AS CHAR)"),
    Type("DATETIME(6)", _quoted(_TIMES), key=True, rotten=_quoted(_ZERO_TIMES), read="CAST({0} AS CHAR)"),
    Type("DATETIME", _quoted(_TIMES), rotten=_quoted(_ZERO_TIMES), read="CAST({0} AS CHAR)"),
    Type("TIMESTAMP(6) NULL", _quoted(_STAMPS), rotten=_quoted(_ZERO_TIMES[:1]), read="CAST({0} AS CHAR)"),
    Type("TIMESTAMP NULL", _quoted(_STAMPS), rotten=_quoted(_ZERO_TIMES[:1]), read="CAST({0} AS CHAR)"),
    Type("BINARY(3)", ("X'000000'", "X'616200'", "X'ffffff'"), key=True),
    Type("VARBINARY(40)", ("X''", "X'00'", "X'00ff10'", "X'61'", "X'41'", "X'6120'"), key=True),
    Type("BLOB", ("X''", "X'00'", f"X'{'deadbeef' * 40}'", "X'61'")),
    Type("JSON", _quoted(_JSON), rotten=_quoted(('{"a": 1, "a": 2}', '["\\u0000"]'))),
    Type("TIME", _quoted(("12:00:00", "-01:00:00", "100:00:01")), key=True, read="CAST({0} AS CHAR)"),
    Type("SET('a','b')", _quoted(("a", "a,b", "b")), key=True),
    Type("INET6", _quoted(("::1", "::ffff:10.0.0.1")), key=True),
    Type("BIT(5)", ("b'101'", "b'0'", "b'1010'"), key=True, read="CAST({0} + 0 AS CHAR)"),
)


@dataclass(slots=True)
class MadeTable:
    """A table or view, its columns in order, its key and the statements that make it."""

    name: str
    columns: dict[str, Type]
    key: list[str]
    statements: list[str]
    is_clean: bool
    zone: str
    is_view: bool = False
    is_read_only: bool = False


def generate(rng: random.Random, name: str) -> MadeTable:
    """Return a random table; in one of five there are values without a canonical form."""
    keys = [kind for kind in TYPES if kind.key]
    width = rng.choice((1, 1, 1, 2, 3))
    names = rng.sample(_NAMES, rng.randint(width + 1, 9))
    columns = {n: rng.choice(keys if place < width else TYPES) for place, n in enumerate(names)}
    key = rng.sample(names[:width], width)
    rotten = rng.random() < 0.2
    definitions = [f"{_name(n)} {kind.name}" for n, kind in columns.items()]
    definitions.append(f"PRIMARY KEY ({', '.join(map(_name, key))})")
    for place, n in enumerate(rng.sample(names, min(len(names), 3))):
        if rng.random() < 0.6:
            length = "(10)" if columns[n].name.startswith(("TEXT", "BLOB", "JSON")) else ""
            definitions.append(f"INDEX i{place} ({_name(n)}{length})")
    engine = rng.choice(("InnoDB",) * 8 + ("MyISAM", "Aria"))
    parts = (
        f" PARTITION BY KEY ({_name(key[0])}) PARTITIONS 3"
        if engine == "InnoDB" and rng.random() < 0.1
        else ""
    )
    zone = rng.choice(("+00:00", "+05:30", "-11:00"))
    made = MadeTable(name, columns, key, [f"SET time_zone = '{zone}'"], not rotten, zone)
    made.is_read_only = engine != "InnoDB"
    made.statements.append(f"CREATE TABLE {_name(name)} ({', '.join(definitions)}) ENGINE={engine}{parts}")
    for _ in range(rng.choice((3, 12, 40))):
        row = [_literal(rng, kind, rotten=rotten, is_key=n in key) for n, kind in columns.items()]
        made.statements.append(f"INSERT INTO {_name(name)} VALUES ({', '.join(row)})")
    if rng.random() < 0.15:
        made.statements.append(f"CREATE VIEW {_name(name + 'v')} AS SELECT * FROM {_name(name)}")
        made.name, made.is_view, made.is_read_only = name + "v", True, True
    return made


def _literal(rng: random.Random, kind: Type, *, rotten: bool, is_key: bool) -> str:
    if is_key and kind.name in ("INT", "BIGINT") and rng.random() < 0.7:
        return str(rng.randint(-20, 120))
    if is_key and kind.name.startswith("VARCHAR") and rng.random() < 0.7:
        return _quoted([rng.choice(_NARROW) + rng.choice("xyzX") + rng.choice("aB ")])[0]
    if not is_key and rng.random() < 0.2:
        return "NULL"
    if not is_key and rotten and kind.rotten and rng.random() < 0.2:
        return rng.choice(kind.rotten)
    return rng.choice(kind.literals)


def _name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


async def rows_of(
    connection: AsyncConnection, table: MadeTable
) -> tuple[list[Record], dict[str, tuple[Any, ...]]]:
    """Return the rows as records, values without canonical form left out, and what each id sorts by."""
    selected = ", ".join(
        f"({_name(n)} + 0e0)" if kind.name.startswith("FLOAT") else kind.read.format(_name(n))
        for n, kind in table.columns.items()
    )
    records, ranks = [], {}
    result = await connection.exec_driver_sql(
        f"SELECT {selected} FROM {_name(table.name)}".replace("%", "%%")
    )
    for row in result:
        data: dict[str, Any] = {}
        for (n, kind), value in zip(table.columns.items(), row, strict=True):
            if value is not None and (found := _canonical(kind, value, table)) is not None:
                data[n] = found
        key = [data[n] for n in table.key]
        plain = [int(part) if isinstance(part, float) and part == int(part) else part for part in key]
        id = id_of_key(plain)
        ranks[id] = tuple(key)
        records.append(make_record(id, data, {}, None, None, None))
    return records, ranks


def _canonical(kind: Type, value: Any, table: MadeTable) -> Any:
    if kind.name == "JSON" and not table.is_view:
        value = parse_json(value)
    if kind.name == "BOOLEAN":
        return {0: False, 1: True}.get(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if kind.name.startswith("CHAR("):
        value = value.rstrip(" ")
    if kind.name.startswith(("DATE", "TIMESTAMP")):
        return _time(kind, value, table)
    if isinstance(value, Decimal) and value == int(value) and -(2**63) <= value < 2**63:
        value = int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return canonical_or_none(value)


def _time(kind: Type, value: str, table: MadeTable) -> str | None:
    try:
        found = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    if kind.name == "DATE":
        return value
    if kind.name.startswith("DATETIME"):
        return found.isoformat(timespec="microseconds")
    sign = -1 if table.zone[0] == "-" else 1
    offset = sign * dt.timedelta(hours=int(table.zone[1:3]), minutes=int(table.zone[4:]))
    return (found - offset).isoformat(timespec="microseconds") + "Z"


async def run(url: str, plan: Plan, *, log: TextIO = sys.stderr) -> Report:
    """Run queries on random tables; each comes from the seed and its number."""
    report = Report(Tally())
    engine = create_async_engine(url)
    place, _, _ = url.rpartition("/")
    os.environ[_URL] = f"{place}/{DATABASE}?charset=utf8mb4"  # workers of partitions read it, too
    try:
        async with engine.connect() as connection:
            for statement in (f"CREATE OR REPLACE DATABASE {DATABASE}", f"USE {DATABASE}"):
                await connection.exec_driver_sql(statement)
            for number, wanted in plan.sets():
                rng = random.Random(f"{plan.seed}/native/{number}")
                table = generate(rng, rng.choice((f"t{number}", f"T `{number}: %")))
                report.sets += 1
                failure = await _one_table(connection, table, rng, wanted, report)
                if failure is not None:
                    print(f"difference in table {number} of seed {plan.seed}", file=log)
                    report.failures.append("\n".join([*table.statements, failure]))
                    if len(report.failures) >= plan.stop_after:
                        break
            await connection.exec_driver_sql(f"DROP DATABASE {DATABASE}")
    finally:
        await engine.dispose()
    return report


async def _one_table(
    connection: AsyncConnection, table: MadeTable, rng: random.Random, wanted: int, report: Report
) -> str | None:
    await connection.exec_driver_sql("SET sql_mode = 'ALLOW_INVALID_DATES'")
    for statement in table.statements:
        try:
            await connection.exec_driver_sql(statement.replace("%", "%%"))
        except exc.IntegrityError:  # the key is there
            continue
    await connection.commit()
    records, ranks = await rows_of(connection, table)
    await connection.rollback()
    settings: dict[str, Any] = {"url": os.environ[_URL], "table": table.name, "layout": "native"}
    if table.is_view:
        settings["key"] = table.key
    async with await AsyncDatabase.create("sqlalchemy", settings) as db:
        failure = await _compare(db, table, records, ranks, rng, wanted, report)
        if failure is not None or table.is_read_only:
            return failure
        return await _write(db, connection, table, rng)


async def _compare(
    db: AsyncDatabase,
    table: MadeTable,
    records: list[Record],
    ranks: dict[str, tuple[Any, ...]],
    rng: random.Random,
    wanted: int,
    report: Report,
) -> str | None:
    for record in records:
        other = (record.id or "").swapcase()
        if other and other not in ranks and await db.get(other) is not None:
            return f"get({other!r}) is not None"
    ids = [record.id or "" for record in records]
    some = rng.sample(ids, min(len(ids), 5))
    swapped = [*some, *(id.swapcase() for id in some), "007", "x", "[1]"]
    if await db.count(field("_id").in_(swapped)) != sum(id in swapped for id in ids):
        return f"ids {swapped}"
    return await compare(
        db,
        records,
        ranks,
        rng,
        wanted,
        report,
        is_clean=table.is_clean,
        may_delete=not table.is_read_only,
        kind=MariaDBCheck,
    )


class MariaDBCheck(NativeCheck):
    """A check whose partitions find the URL, which is a secret, in the environment."""

    async def actual(self, db: AsyncDatabase) -> Any:
        """Return the backend's answer."""
        if self.verb != "partitions":
            return await super().actual(db)
        rows = []
        for one in await db.partitions(self.query, self.part, url_from=_URL):
            async with contextlib.aclosing(one.stream()) as records:
                rows += [[r.id, r.data] async for r in records]
        return sorted(rows, key=lambda row: str(row[0])) if self._is_unordered else rows


async def _write(
    db: AsyncDatabase, connection: AsyncConnection, table: MadeTable, rng: random.Random
) -> str | None:
    """Write random values: what is accepted reads as it was given, what is refused changes nothing."""
    for _ in range(8):
        data = {n: _value(rng) for n in table.columns if n in table.key or rng.random() < 0.7}
        before = await _digest(connection, table)
        try:
            id = await db.create(data)
        except RecordError:
            if await _digest(connection, table) != before:
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
        if await _digest(connection, table) != before:
            return f"the deletion of {id!r} took more"
    return None


async def _digest(connection: AsyncConnection, table: MadeTable) -> list[Any]:
    return (await connection.exec_driver_sql(f"CHECKSUM TABLE {_name(table.name)}".replace("%", "%%"))).all()[
        0
    ][1:]  # type: ignore[return-value]


_VALUES = (
    *(
        0,
        1,
        -1,
        7,
        2024,
        0.5,
        0.1,
        1e300,
        2**31,
        2**63 - 1,
        1.25,
        12.34,
        123.456,
        True,
        False,
        "sad",
        "HAPPY",
    ),
    *(
        "2024-01-31",
        "2024-02-30",
        "2024-01-31T00:00:00.000000",
        "2024-01-31T00:00:00.120000Z",
        "AAAA",
        "AQI=",
    ),
    *(str(UUID(int=77)), [1], {"a": 1}, "x" * 31, "💥" * 30),
)


def _value(rng: random.Random) -> Any:
    if rng.random() < 0.1:
        return None
    return rng.choice(_TEXTS) if rng.random() < 0.3 else rng.choice(_VALUES)
