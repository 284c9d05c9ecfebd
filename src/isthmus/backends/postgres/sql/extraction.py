"""Sub-selects that extract each path of a statement once for a row.

Every `->` reads the record again, and the planner copies an expression into each of its uses. `LIMIT ALL`
keeps it from that, and unlike `OFFSET 0` leaves room for parallel workers (docs/decisions/0019).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from isthmus._path import Path
from isthmus.backends.postgres.sql.fields import ROW, attribute, column_of
from isthmus.backends.postgres.sql.statement import literal
from isthmus.backends.postgres.sql.unpacking import row_for


@dataclass(frozen=True, slots=True)
class Extracted:
    """The expressions of one path over the columns of an extraction.

    `value` is reached through objects only; it is NULL, and so are the others, where there is none.
    """

    value: str
    """The value as jsonb."""
    text: str
    """The characters of a string."""
    kind: str
    """The type of `value`: `string`, `number` …"""
    has_list: str | None
    """Whether a list is at the end of the path or before it; None if there can be none."""

    @property
    def number(self) -> str:
        """Return a number as numeric; NULL for other types."""
        # The cast is inside a CASE, so it is evaluated for numbers only.
        return f"CASE WHEN {self.kind} = 'number' THEN ({self.value})::numeric END"

    @property
    def string(self) -> str:
        """Return a string, ordered by code point; NULL for other types."""
        return f"(CASE WHEN {self.kind} = 'string' THEN {self.text} END COLLATE \"C\")"


class Extraction:
    """Collects the paths of a statement; then `sql` is the innermost part of its FROM."""

    def __init__(self, paths: Collection[Path]) -> None:
        """Begin with no column; `paths` are those that will be extracted."""
        self._row, self._join = row_for(paths)
        # One sub-select for each depth, from the table outwards: its expressions by column name.
        self._levels: list[dict[str, str]] = [{}]
        self._names: dict[str, str] = {}

    def extract(self, path: Path) -> Extracted:
        """Return a path's expressions, for use outside of the sub-selects."""
        text = attribute(path)
        if text is not None:
            name = self._column(0, text)
            return Extracted(f"to_jsonb({name})", name, "'string'", None)
        value = self._row + column_of(path)
        if not path.keys:
            name = self._column(0, value)
            return Extracted(name, f"{name}::text", f"jsonb_typeof({name})", None)
        lists = []
        # Key by key: `#>` would take "0" for an index into a list.
        for depth, key in enumerate(path.keys):
            value = self._column(depth, f"{value}->{literal(key)}")
            lists.append(f"jsonb_typeof({value}) = 'array'")
        return Extracted(value, f"{value} #>> '{{}}'", f"jsonb_typeof({value})", " OR ".join(lists))

    def carry(self, column: str) -> None:
        """Keep a column of the table, under its own name."""
        row = self._row if column in ("data", "metadata") else ROW
        self._levels[0][column] = f"{row}{column}"

    def _column(self, level: int, expression: str) -> str:
        name = self._names.get(expression)
        if name is None:
            name = self._names[expression] = f"c{len(self._names)}"
            while len(self._levels) <= level:
                self._levels.append({})
            self._levels[level][name] = expression
        return name

    def sql(self, table: str, where: str) -> str:
        """Return the sub-select of all columns over the matching rows of a table."""
        first, *deeper = self._levels
        columns = ", ".join(f"{expression} AS {name}" for name, expression in first.items())
        text = f"(SELECT {columns} FROM {table} AS t{self._join}{where} LIMIT ALL)"
        for number, level in enumerate(deeper):
            columns = "".join(f", {expression} AS {name}" for name, expression in level.items())
            text = f"(SELECT f{number}.*{columns} FROM {text} AS f{number} LIMIT ALL)"
        return text
