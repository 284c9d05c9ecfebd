"""The questions asked by hand: SQL on JSON, on typed columns, in DuckDB, and loops over dicts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.questions.asked import NAMES, PATTERN

QUOTED_NAMES = ", ".join("'" + name.replace("'", "''") + "'" for name in NAMES)


def conditions(column: Callable[[str], str], regex: str, member: str) -> dict[str, str]:
    """Return the conditions of the counts in a dialect, by question."""
    name, population, country = column("name"), column("population"), column("countrycode")
    return {
        "count by range": f"{population} >= 100000",
        "count by like": f"{name} LIKE 'San %'",
        "count by in": f"{name} IN ({QUOTED_NAMES})",
        "count by three conditions": f"{population} >= 20000 AND {country} = 'US' AND {name} LIKE 'S%'",
        "count by list membership": member,
        "count by regex": regex,
    }


def statements(
    table: str, column: Callable[[str], str], regex: str, member: str, *, fence: str = "", row: str = "id"
) -> dict[str, str]:
    """Return the statements of all questions in a dialect.

    `fence` is what keeps the planner from extracting a value for each of its uses; `row` are the columns
    of a record.
    """
    counts = {
        name: f"SELECT count(*) FROM {table} WHERE {condition}"
        for name, condition in conditions(column, regex, member).items()
    }
    country, zone, population = column("countrycode"), column("timezone"), column("population")
    return {
        **counts,
        "sum": f"SELECT sum({population}) FROM {table}",
        "group by one path": (
            "SELECT k, count(*), sum(p), max(p) FROM"
            f" (SELECT {country} AS k, {population} AS p FROM {table}{fence}) AS x GROUP BY 1"
        ),
        "group by two paths": (
            "SELECT k, z, count(*) FROM"
            f" (SELECT {country} AS k, {zone} AS z FROM {table}{fence}) AS x GROUP BY 1, 2"
        ),
        "sort + limit 20": (
            f"SELECT {row} FROM (SELECT id AS i, {population} AS p FROM {table}"
            f" ORDER BY 2 DESC, 1 LIMIT 20) AS x JOIN {table} ON id = i ORDER BY p DESC, i"
        ),
        "distinct": f"SELECT DISTINCT {zone} FROM {table}",
        "sorted stream": f"SELECT {row} FROM {table} ORDER BY {population} DESC, id",
    }


def answer_of(question: str, rows: Sequence[Any], name_of: Callable[[Any], Any]) -> Any:
    """Return the answer as `asked` gives it; `name_of` takes the name from a record's row."""
    match question:
        case "sum":
            return int(rows[0][0])
        case "group by one path" | "group by two paths":
            return sorted(tuple(int(v) if i > 1 else v for i, v in enumerate(row)) for row in rows)
        case "sort + limit 20":
            return [name_of(row) for row in rows]
        case "distinct":
            return sorted(row[0] for row in rows)
        case "sorted stream":
            raise AssertionError("a stream is read row by row")
        case _:
            return rows[0][0]


def loop(question: str, records: Mapping[str, dict[str, Any]]) -> Any:
    """Return the answer by a loop over dicts of one type a field."""
    data = records.values()
    match question:
        case "count by range":
            return sum(d["population"] >= 100_000 for d in data)
        case "count by like":
            return sum(d["name"].startswith("San ") for d in data)
        case "count by in":
            names = frozenset(NAMES)
            return sum(d["name"] in names for d in data)
        case "count by three conditions":
            return sum(
                d["population"] >= 20_000 and d["countrycode"] == "US" and d["name"].startswith("S")
                for d in data
            )
        case "count by list membership":
            return sum("London" in d["alternatenames"] for d in data)
        case "count by regex":
            search = re.compile(PATTERN).search
            return sum(search(d["name"]) is not None for d in data)
        case "sum":
            return sum(d["population"] for d in data)
        case "group by one path":
            found: dict[str, list[int]] = defaultdict(list)
            for d in data:
                found[d["countrycode"]].append(d["population"])
            return sorted((key, len(group), sum(group), max(group)) for key, group in found.items())
        case "group by two paths":
            pairs = Counter((d["countrycode"], d["timezone"]) for d in data)
            return sorted((*key, count) for key, count in pairs.items())
        case "distinct":
            return sorted({d["timezone"] for d in data})
        case _:
            ordered = sorted(records, key=lambda name: (-records[name]["population"], name))
            if question == "sorted stream":
                return len(ordered), ordered[0], ordered[-1]
            return [records[id]["name"] for id in ordered[:20]]
