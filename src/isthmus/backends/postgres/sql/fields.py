"""The values that a path reaches in a row, as SQL expressions (meaning §2 and §3)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import orjson

from isthmus._path import Path, Root
from isthmus._values import MAX_DEPTH
from isthmus.backends.postgres.sql.statement import jsonpath_key, literal

# The number of characters of a text in an index; a btree refuses rows above 2,704 bytes.
PREFIX_LENGTH = 100

# Each key doubles the shapes of lists and objects that a value can be in. Up to here `@>` for each of
# them costs a third of a jsonpath.
MOST_CONTAINED_KEYS = 2

# Every statement names the row `t`; an index's definition has bare column names.
ROW = "t."
PLAIN_COLUMNS = "t.id, t.data, t.metadata, t.version, t.created_at, t.updated_at"
# The last three as 24 bytes: drivers take a microsecond a row to make datetimes that are seldom read.
COLUMNS = (
    "t.id, t.data, t.metadata,"
    " int8send(t.version) || timestamptz_send(t.created_at) || timestamptz_send(t.updated_at)"
)

_TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_ATTRIBUTES = {
    Root.ID: "t.id",
    Root.VERSION: "t.version::text",
    Root.CREATED_AT: _TIME.format("t.created_at"),
    Root.UPDATED_AT: _TIME.format("t.updated_at"),
}


def moment_text(value: str) -> str:
    """Return the text of a timestamptz that every session reads as the same moment."""
    return _TIME.format(value)


def attribute(path: Path) -> str | None:
    """Return the text expression of a record attribute; None for a path into data or metadata."""
    return _ATTRIBUTES.get(path.root)


@dataclass(frozen=True, slots=True)
class FieldSQL:
    """The expressions of one path into data or metadata.

    A row has either one value, `value`, or a list at or before the path's end (`has_list`). Then
    `jsonpath` reaches the values, or `deep_jsonpath` if a list contains a list.
    """

    column: str
    keys: tuple[str, ...]
    value: str
    """The value reached through objects only, as jsonb; NULL if there is none."""
    text: str
    """The same as text; of a string its characters."""
    text_prefix: str
    """The first characters of `text`, ordered by code point, as an index has them."""
    kind: str
    """The type of `value`: `string`, `number` …; NULL if there is none."""
    has_list: str
    """Whether a list is at the end of the path or before it."""
    shape: str
    """`kind`, but `array` where `has_list` is true and `null` where there is no value; never NULL."""
    jsonpath: str
    """The jsonpath, in lax mode, that enters one level of lists after each key."""
    deep_jsonpath: str
    """The jsonpath, in lax mode, that enters lists as deep as they can be stored.

    Each `[*]` costs a step and has no effect on a value that is not a list. Only the few rows where
    `has_nested_list` is true need it; a recursive query would cost half a millisecond of planning.
    """
    has_nested_list: str
    """Whether a list at or before the path's end contains a list, so that `jsonpath` misses values."""
    has_list_above: str
    """Whether a list is before the last key."""

    def deep_values(self) -> str:
        """Return a subselect of all values at any depth of lists, in the column `v`."""
        return self._values_at(self.deep_jsonpath)

    def first_values(self) -> str:
        """Return a subselect of the values that `jsonpath` reaches, in the column `v`."""
        return self._values_at(self.jsonpath)

    def _values_at(self, jsonpath: str) -> str:
        return (
            f"(SELECT p.v FROM jsonb_path_query({self.column}, {literal('lax ' + jsonpath)}) AS p(v)"
            " WHERE jsonb_typeof(p.v) NOT IN ('null', 'array'))"
        )

    def values(self) -> str:
        """Return a subselect of all values, in the column `v`."""
        # The guards are one-time filters: a row without nested lists costs the cheap half only.
        return (
            f"(SELECT f.v FROM {self.first_values()} AS f WHERE {self.has_nested_list} IS NOT TRUE"
            f" UNION ALL SELECT d.v FROM {self.deep_values()} AS d WHERE {self.has_nested_list})"
        )


def nest(keys: tuple[str, ...], value: Any) -> Any:
    """Return the object that has a value at the end of these keys, and nothing else."""
    for key in reversed(keys):
        value = {key: value}
    return value


def shapes_of(keys: tuple[str, ...], value: Any) -> list[Any]:
    """Return the objects that contain a value at a path, with and without a list at each key; plain first."""
    shapes = [value]
    for key in reversed(keys):
        shapes = [{key: inner} for shape in shapes for inner in (shape, [shape])]
    return shapes


def _contains_list(column: str, keys: tuple[str, ...], jsonpaths: list[str]) -> str:
    """Return the condition that a list at or before the end of some keys contains a list."""
    if not keys:
        return "FALSE"
    if len(keys) <= MOST_CONTAINED_KEYS:
        # Any list contains the empty one, so [[]] is in a list that contains a list.
        prefixes = [keys[: i + 1] for i in range(len(keys))]
        shapes = [shape for p in prefixes for shape in shapes_of(p[:-1], {p[-1]: [[]]})]
        found = [f"{column} @> {literal(orjson.dumps(shape).decode())}::jsonb" for shape in shapes]
        return f"({' OR '.join(found)})"
    nested = " || ".join(f'{jsonpath}.type() == "array"' for jsonpath in jsonpaths)
    return f"({column} @@ {literal('lax ' + nested)}::jsonpath)"


def data_has_nested_list(row: str = ROW) -> str:
    """Return the condition that some list in the data contains a list."""
    path = 'strict $.** ? (@.type() == "array")[*] ? (@.type() == "array")'
    return f"({row}data @? {literal(path)}::jsonpath)"


@functools.lru_cache(maxsize=4096)
def field_of(path: Path, row: str = ROW) -> FieldSQL:
    """Return the expressions of a path into data or metadata; `row` is put before the column's name."""
    column = row + column_of(path)
    # Key by key: `#>` would take "0" for an index into a list.
    steps = [column]
    for key in path.keys:
        steps.append(f"{steps[-1]}->{literal(key)}")
    text = f"({steps[-2]}->>{literal(path.keys[-1])})" if path.keys else f"({column}::text)"
    return field_at(path, steps, text)


def column_of(path: Path) -> str:
    """Return the column that a path into data or metadata begins in."""
    return "data" if path.root is Root.DATA else "metadata"


def field_at(path: Path, steps: list[str], text: str) -> FieldSQL:
    """Return the expressions of a path from those of its column, the value at each key, and its text."""
    column, value = steps[0], f"({steps[-1]})"
    lists = [f"jsonb_typeof({step}) = 'array'" for step in steps[1:]]
    has_list_above = " OR ".join(lists[:-1])
    # Any list contains the empty one. On a row without a list, as most are, this costs a fifth of
    # extracting the value to get its type.
    prefixes = [path.keys[: i + 1] for i in range(len(path.keys))]
    empty = [literal(orjson.dumps(nest(keys, [])).decode()) for keys in prefixes]
    has_list = " OR ".join(f"{column} @> {shape}::jsonb" for shape in empty)
    nothing = f"CASE WHEN {has_list_above} THEN 'array' ELSE 'null' END" if has_list_above else "'null'"
    jsonpaths = ["$" + "".join(jsonpath_key(key) + "[*]" for key in prefix) for prefix in prefixes]
    deep_jsonpath = "$" + "".join(jsonpath_key(key) + "[*]" * MAX_DEPTH for key in path.keys)
    return FieldSQL(
        column=column,
        keys=path.keys,
        value=value,
        text=text,
        text_prefix=f"""(left({text}, {PREFIX_LENGTH}) COLLATE "C")""",
        kind=f"jsonb_typeof({value})",
        has_list=f"({has_list})" if has_list else "FALSE",
        shape=f"COALESCE(jsonb_typeof({value}), {nothing})",
        jsonpath=jsonpaths[-1] if jsonpaths else "$",
        deep_jsonpath=deep_jsonpath,
        has_list_above=f"({has_list_above})" if has_list_above else "FALSE",
        has_nested_list=_contains_list(column, path.keys, jsonpaths),
    )
