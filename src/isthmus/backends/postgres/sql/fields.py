"""Where a path's values are in a row, as SQL expressions (semantics §2 and §3)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import orjson

from isthmus._path import Path, Root
from isthmus._values import MAX_DEPTH
from isthmus.backends.postgres.sql.statement import literal, path_key

# How many characters of a text an index holds; a btree refuses rows above 2,704 bytes.
CUT = 100

# What every statement calls the row; an index's definition names the columns alone.
ROW = "t."
PLAIN = "t.id, t.data, t.metadata, t.version, t.created_at, t.updated_at"
# The last three as 24 bytes: drivers take a microsecond a row to make datetimes that few look at.
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


def attribute(path: Path) -> str | None:
    """Return the text expression of a record attribute; None for a path into data or metadata."""
    return _ATTRIBUTES.get(path.root)


@dataclass(frozen=True, slots=True)
class Field:
    """The expressions of one path into data or metadata.

    A row has either one value at `value`, or a list on the way (`listed`), in which case the
    values are behind `way`, and behind `deep_values` if a list there holds a list.
    """

    column: str
    keys: tuple[str, ...]
    value: str
    """The value reached through objects only, as jsonb; NULL if there is none."""
    text: str
    """The same as text: of a string its characters."""
    cut: str
    """The first characters of `text`, ordered by code point: what an index holds."""
    kind: str
    """The type of `value`: `string`, `number` …; NULL if there is none."""
    listed: str
    """Whether a list is on the way or at the end."""
    shape: str
    """`kind`, but `array` where `listed` is true and `null` where there is nothing; never NULL."""
    way: str
    """The jsonpath, in lax mode, that enters one level of lists after each key."""
    deep: str
    """The jsonpath, in lax mode, that enters lists as deep as they can be stored.

    To what is no list an `[*]` more does nothing. It costs a step each, and is for the few rows
    where `nested` is true; a recursive query would cost the planner half a millisecond for every leaf.
    """
    nested: str
    """Whether a list on the way holds a list, so that `way` does not reach everything."""
    above: str
    """Whether a list is on the way before the last key."""

    def deep_values(self) -> str:
        """Return a subselect with every value found at any depth, in the column `v`."""
        return self._behind(self.deep)

    def first_values(self) -> str:
        """Return a subselect with the values that `way` reaches, in the column `v`."""
        return self._behind(self.way)

    def _behind(self, way: str) -> str:
        return (
            f"(SELECT p.v FROM jsonb_path_query({self.column}, {literal('lax ' + way)}) AS p(v)"
            " WHERE jsonb_typeof(p.v) NOT IN ('null', 'array'))"
        )

    def values(self) -> str:
        """Return a subselect with every value found, at the cost that the row's depth calls for."""
        # A row without nested lists pays for the cheap half only: the guards are one-time filters.
        return (
            f"(SELECT f.v FROM {self.first_values()} AS f WHERE {self.nested} IS NOT TRUE"
            f" UNION ALL SELECT d.v FROM {self.deep_values()} AS d WHERE {self.nested})"
        )


def within(keys: tuple[str, ...], value: Any) -> Any:
    """Return the object that holds a value at the end of these keys, and nothing else."""
    for key in reversed(keys):
        value = {key: value}
    return value


def nested_anywhere(row: str = ROW) -> str:
    """Return whether some list of the data holds a list itself."""
    path = 'strict $.** ? (@.type() == "array")[*] ? (@.type() == "array")'
    return f"({row}data @? {literal(path)}::jsonpath)"


@functools.lru_cache(maxsize=4096)
def field_of(path: Path, row: str = ROW) -> Field:
    """Return the expressions of a path into data or metadata; `row` stands before the column's name."""
    column = row + ("data" if path.root is Root.DATA else "metadata")
    # One step after the other: `#>` would take "0" for a place in a list.
    steps = [column]
    for key in path.keys:
        steps.append(f"{steps[-1]}->{literal(key)}")
    value = f"({steps[-1]})"
    text = f"({steps[-2]}->>{literal(path.keys[-1])})" if path.keys else f"({column}::text)"
    lists = [f"jsonb_typeof({step}) = 'array'" for step in steps[1:]]
    above = " OR ".join(lists[:-1])
    # Any list contains the empty one. To a row without a list, as most are, this is a fifth of the
    # price of taking the value out and asking for its type.
    ways_down = [path.keys[: i + 1] for i in range(len(path.keys))]
    empty = [literal(orjson.dumps(within(keys, [])).decode()) for keys in ways_down]
    listed = " OR ".join(f"{column} @> {shape}::jsonb" for shape in empty)
    nothing = f"CASE WHEN {above} THEN 'array' ELSE 'null' END" if above else "'null'"
    ways = ["$" + "".join(path_key(k) + "[*]" for k in path.keys[: i + 1]) for i in range(len(path.keys))]
    deep = "$" + "".join(path_key(key) + "[*]" * MAX_DEPTH for key in path.keys)
    nested = " || ".join(f'{way}.type() == "array"' for way in ways)
    return Field(
        column=column,
        keys=path.keys,
        value=value,
        text=text,
        cut=f"""(left({text}, {CUT}) COLLATE "C")""",
        kind=f"jsonb_typeof({value})",
        listed=f"({listed})" if listed else "FALSE",
        shape=f"COALESCE(jsonb_typeof({value}), {nothing})",
        way=ways[-1] if ways else "$",
        deep=deep,
        above=f"({above})" if above else "FALSE",
        nested=f"({column} @@ {literal('lax ' + nested)}::jsonpath)" if ways else "FALSE",
    )
