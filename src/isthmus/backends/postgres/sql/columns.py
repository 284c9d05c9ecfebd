"""Declared columns as generated columns of a table.

A row is *odd* if one of the declared paths holds something else than its column can: another type, an
object, or a list at its end or before it. On the other rows a column is the only value at its path, or
NULL where there is none (docs/decisions/0020).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from isthmus._core.columns import DeclaredColumn
from isthmus._path import Path
from isthmus.backends.postgres.sql.fields import PREFIX_LENGTH, ROW, field_of
from isthmus.backends.postgres.sql.leaf import KIND
from isthmus.backends.postgres.sql.statement import quote

ODD = "isthmus_odd"
"""The column that is true in odd rows and NULL in others."""
_TAKEN = frozenset(
    {"id", "data", "metadata", "version", "created_at", "updated_at", ODD}
    | {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}
)
_MAX_NAME = 63
_TYPES = {"number": "numeric", "text": 'text COLLATE "C"', "bool": "boolean"}
IS_ODD = f"{ROW}{ODD}"
"""The condition that a row is odd, as its index has it."""
NOT_ODD = f"{ROW}{ODD} IS NOT TRUE"
"""The condition that it is not."""


def new_columns(columns: Iterable[DeclaredColumn], taken: Iterable[str] = ()) -> dict[Path, StoredColumn]:
    """Return names for columns of a table: those of their paths where these are free."""
    used = {*_TAKEN, *taken}
    found = {}
    for column in columns:
        name = ".".join(column.path.keys)
        if name in used or not 0 < len(name.encode()) <= _MAX_NAME:
            digest = hashlib.blake2b(repr(column.path.keys).encode(), digest_size=6).hexdigest()
            name = f"{name.encode()[:40].decode(errors='ignore')}_{digest}"
        used.add(name)
        found[column.path] = StoredColumn(column, name)
    return found


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A declared column of a table."""

    column: DeclaredColumn
    name: str

    @property
    def sql(self) -> str:
        """Return the column in statements."""
        return ROW + quote(self.name)

    @property
    def text_prefix(self) -> str:
        """Return the first characters of a text, as an index has them."""
        return _prefix(self.sql)

    def definition(self) -> str:
        """Return the definition of the generated column."""
        field = field_of(self.column.path, row="")
        match self.column.kind:
            case "number":
                value = f"CASE WHEN {field.kind} = 'number' THEN {field.value}::numeric END"
            case "text":
                value = f"CASE WHEN {field.kind} = 'string' THEN {field.text} END"
            case "bool":
                value = f"CASE WHEN {field.kind} = 'boolean' THEN {field.value}::boolean END"
            case _:
                assert_never(self.column.kind)
        return f"{quote(self.name)} {_TYPES[self.column.kind]} GENERATED ALWAYS AS ({value}) STORED"

    def index(self) -> str:
        """Return the definition of an index on the column, after `ON table`; it refuses no record."""
        key = _prefix(quote(self.name)) if self.column.kind == "text" else quote(self.name)
        return f"USING btree ({key}, id) WHERE {ODD} IS NOT TRUE"


def _prefix(name: str) -> str:
    return f"(left({name}, {PREFIX_LENGTH}))"  # the column is COLLATE "C"


def odd_definition(columns: Iterable[DeclaredColumn]) -> str:
    """Return the definition of the column that says whether a row is odd."""
    return f"{quote(ODD)} boolean GENERATED ALWAYS AS (CASE WHEN {is_odd(columns)} THEN TRUE END) STORED"


def is_odd(columns: Iterable[DeclaredColumn]) -> str:
    """Return the condition that a row is odd, on the data alone."""
    parts = []
    for column in columns:
        field = field_of(column.path, row="")
        parts.append(f"{field.kind} NOT IN ('{KIND[column.kind]}', 'null')")
        if len(column.path.keys) > 1:
            parts.append(field.has_list_above)
    return " OR ".join(parts)


INDEX_OF_ODD = f"USING btree (id) WHERE {ODD}"
"""The definition of the index by which odd rows are found, after `ON table`."""
