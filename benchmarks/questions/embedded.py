"""The sides by hand of the embedded stores: SQLite on JSON text and on typed columns, and DuckDB."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import orjson

from benchmarks.questions.by_hand import answer_of, statements
from benchmarks.questions.data import COLUMNS
from benchmarks.questions.servers import typed_rows

_MEMBER = "EXISTS (SELECT 1 FROM json_each({}) WHERE value = 'London')"
NAIVE_SQL = statements(
    "naive",
    lambda column: f"json_extract(data, '$.{column}')",
    "json_extract(data, '$.name') REGEXP '^San (Jo|Ma)'",
    _MEMBER.format("data, '$.alternatenames'"),
    fence=" LIMIT -1",
    row="id, data",
)
_TYPED_ROW = "id, name, countrycode, timezone, population, alternatenames, rest"
TYPED_SQL = statements(
    "typed",
    lambda column: column,
    "name REGEXP '^San (Jo|Ma)'",
    _MEMBER.format("alternatenames"),
    row=_TYPED_ROW,
)
DUCKDB_SQL = statements(
    "typed",
    lambda column: column,
    "regexp_matches(name, '^San (Jo|Ma)')",
    "list_contains(alternatenames, 'London')",
    row=_TYPED_ROW,
)


def open_sqlite(path: Path, records: Mapping[str, dict[str, Any]]) -> sqlite3.Connection:
    """Return a connection to a new file with both tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("REGEXP", 2, _regexp, deterministic=True)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE naive (id TEXT PRIMARY KEY, data TEXT NOT NULL)")
    connection.execute(
        "CREATE TABLE typed (id TEXT PRIMARY KEY, name TEXT, countrycode TEXT, timezone TEXT,"
        " population INTEGER, alternatenames TEXT, rest TEXT NOT NULL)"
    )
    naive = ((id, orjson.dumps(data).decode()) for id, data in records.items())
    connection.executemany("INSERT INTO naive VALUES (?, ?)", naive)
    places = ", ".join("?" * (len(COLUMNS) + 2))
    rows = ((*row[:5], orjson.dumps(row[5]).decode(), row[6]) for row in typed_rows(records))
    connection.executemany(f"INSERT INTO typed VALUES ({places})", rows)
    connection.execute("COMMIT")
    connection.execute("ANALYZE")
    return connection


def _regexp(pattern: str, text: Any) -> bool:
    return isinstance(text, str) and re.search(pattern, text) is not None


def open_duckdb(path: Path, lines: Path, records: Mapping[str, dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """Return a connection to a new file with the typed table, by way of a file of JSON lines."""
    with lines.open("wb") as file:
        for row in typed_rows(records):
            file.write(orjson.dumps(dict(zip(("id", *COLUMNS, "rest"), row, strict=True))) + b"\n")
    connection = duckdb.connect(str(path))
    types = {"id": "VARCHAR", "name": "VARCHAR", "countrycode": "VARCHAR", "timezone": "VARCHAR"}
    types |= {"population": "BIGINT", "alternatenames": "VARCHAR[]", "rest": "VARCHAR"}
    columns = ", ".join(f"{name}: '{type}'" for name, type in types.items())
    connection.execute(
        f"CREATE TABLE typed AS SELECT * FROM read_json('{lines}', format='newline_delimited',"
        f" columns={{{columns}}})"
    )
    return connection


def ask(connection: sqlite3.Connection | duckdb.DuckDBPyConnection, question: str, sql: str) -> Any:
    """Return the answer of a statement; a stream is read through a cursor."""
    cursor = connection.execute(sql)
    if question == "sorted stream":
        count, first, last = 0, None, None
        while rows := cursor.fetchmany(1_000):
            first, last, count = first or rows[0][0], rows[-1][0], count + len(rows)
        return count, first, last
    return answer_of(question, cursor.fetchall(), _name)


def _name(row: Any) -> Any:
    return orjson.loads(row[1])["name"] if row[1].startswith("{") else row[1]
