"""Aggregates over declared columns: rows that are not odd by their columns, odd rows in the general form."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._query.aggregate import paths_read
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import Bucket, GroupKey, path_of
from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends.postgres.sql.bucket import deciding_value
from isthmus.backends.postgres.sql.column_filter import all_columns, both, by_row
from isthmus.backends.postgres.sql.columns import IS_ODD, NOT_ODD, StoredColumn
from isthmus.backends.postgres.sql.filter import NOTHING
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table


def is_on_columns(table: Table, request: AggregateRequest) -> bool:
    """Return whether each path of the keys and the measures has a column."""
    return all_columns(table, paths_read(request.by, request.measures))


def aggregate_columns(
    table: Table,
    request: AggregateRequest,
    select_odd: Callable[[Table, AggregateRequest, str], str],
    params: Parameters,
) -> Statement:
    """Return the select of each group's keys and states; `select_odd` compiles the general form."""
    usual, odd = by_row(table, request.where, params)
    parts = []
    if usual != NOTHING:
        keys = [_key(key, table.columns[path_of(key)]) for key in request.by]
        columns = [
            text if isinstance(key, Bucket) else f"to_jsonb({text})::text"
            for key, text in zip(request.by, keys, strict=True)
        ]
        for measure in request.measures:
            columns += _states(measure, table)
        # Without keys, no matching row means no group, not one empty group.
        grouped = f" GROUP BY {', '.join(keys)}" if keys else " HAVING count(*) > 0"
        parts.append(
            f"SELECT {', '.join(columns)} FROM {table.sql} AS t WHERE {both(usual, NOT_ODD)}{grouped}"
        )
    parts.append(select_odd(table, request, f" WHERE {both(IS_ODD, odd)}"))
    return Statement(" UNION ALL ".join(parts), params.args)


def _key(key: GroupKey, stored: StoredColumn) -> str:
    """Return the expression to group by."""
    if not isinstance(key, Bucket):
        return stored.sql
    number = stored.sql if stored.column.kind == "number" else "NULL::numeric"
    string = stored.sql if stored.column.kind == "text" else "NULL::text"
    return deciding_value(key, f"to_jsonb({stored.sql})", number=number, string=string)


def _states(measure: Measure, table: Table) -> list[str]:
    """Return the aggregate functions of a measure's state, as the general form has them."""
    if measure.path is None:
        return ["count(*)"]
    stored = table.columns[measure.path]
    column = stored.sql
    match measure.function:
        case Function.COUNT:
            return [f"count({column})"]
        case Function.SUM | Function.AVG:
            if stored.column.kind != "number":
                return ["NULL::text", "0::int8", "NULL::boolean"]
            beyond = f"bool_or({column} NOT BETWEEN {INT_MIN} AND {INT_MAX})"
            return [f"sum({column})::text", f"count({column})", beyond]
        case Function.MIN | Function.MAX:
            return _extremes(stored, largest=measure.function is Function.MAX)
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{measure.function.value} is not pushed down")
        case _:
            assert_never(measure.function)


def _extremes(stored: StoredColumn, *, largest: bool) -> list[str]:
    """Return the columns with the extreme of each type: truth values, numbers, texts, objects."""
    states = {"bool": "NULL::boolean", "number": "NULL::text", "text": "NULL::text"}
    end = "max" if largest else "min"
    match stored.column.kind:
        case "bool":
            states["bool"] = f"{'bool_or' if largest else 'bool_and'}({stored.sql})"
        case "number":
            states["number"] = f"{end}({stored.sql})::text"
        case "text":
            states["text"] = f"{end}({stored.sql})"
        case _:
            assert_never(stored.column.kind)
    return [*states.values(), "NULL::boolean"]
