"""A row's documents, unpacked once for the many leaves of a condition (docs/decisions/0024).

Every `->` unpacks the document again and copies a value out of it, and the server frees the copies only
after the row: 15 MB for each leaf on a document of 5 MB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from isthmus._path import Path
from isthmus.backends.postgres.sql.fields import ROW, FieldSQL, column_of, field_at
from isthmus.backends.postgres.sql.statement import literal

# A sub-select has at most 1,664 columns, and each shared value takes two.
_MOST_SHARED = 800
# The sort keys or measures that may each unpack the document.
_MOST_EXPRESSIONS = 4
_UNPACKED = "SELECT t.data || '{}'::jsonb AS data, t.metadata || '{}'::jsonb AS metadata OFFSET 0"


def row_for(paths: Collection[Path]) -> tuple[str, str]:
    """Return what stands before the columns that the expressions of some paths read, and its join with `t`.

    The documents are unpacked if there are many paths.
    """
    if len(paths) <= _MOST_EXPRESSIONS:
        return ROW, ""
    return "u.", f" CROSS JOIN LATERAL ({_UNPACKED}) AS u"


class UnpackedRow:
    """A sub-select `u` of one row, whose columns are its documents and the values that several paths share.

    A value on one path only is not among them: it would be copied though no leaf may look at it.
    """

    def __init__(self, paths: Collection[Path], row: str) -> None:
        uses = Counter(prefix for path in paths for prefix in _prefixes(path))
        # Those of most uses, the shorter one first; so where a path has a column, its prefixes have one.
        shared = sorted(
            (prefix for prefix in uses if uses[prefix] > 1), key=lambda p: (-uses[p], len(p.keys))
        )
        self._names = {prefix: f"v{number}" for number, prefix in enumerate(shared[:_MOST_SHARED])}
        self._shared = {(f"u.{column_of(path)}", path.keys) for path in self._names}
        self._lists: dict[tuple[str, tuple[str, ...]], tuple[FieldSQL, list[str]]] = {}
        documents = sorted({column_of(path) for path in uses})
        # `||` with an empty object returns the document as it is, unpacked.
        columns = [f"{row}{document} || '{{}}'::jsonb AS {document}" for document in documents]
        # OFFSET 0 keeps the planner from copying an expression into each of its uses.
        self.sql = f"(SELECT {', '.join(columns)} OFFSET 0)"
        for depth in range(1, max((len(prefix.keys) for prefix in self._names), default=0) + 1):
            found = [prefix for prefix in self._names if len(prefix.keys) == depth]
            columns = [f"{self._steps(prefix)[-2]}->{literal(prefix.keys[-1])}" for prefix in found]
            self._add(
                [f"{value} AS {self._names[prefix]}" for prefix, value in zip(found, columns, strict=True)]
            )
        texts = [
            f"CASE WHEN jsonb_typeof(u.{name}) = 'string' THEN u.{name} #>> '{{}}' END AS {name}_text"
            for name in self._names.values()
        ]
        if texts:
            self._add(texts)

    def is_shared(self, field: FieldSQL) -> bool:
        """Return whether other leaves read the same path, or paths below it."""
        return (field.column, field.keys) in self._shared

    def any_value(self, field: FieldSQL, condition: str) -> str:
        """Return the condition that one of the values in a list satisfies a condition on `e.v`.

        All such conditions on one path are evaluated together, value by value: each alone would copy the
        whole list.
        """
        place = (field.column, field.keys)
        _, conditions = self._lists.setdefault(place, (field, []))
        conditions.append(condition)
        return f"l{list(self._lists).index(place)}.b{len(conditions) - 1}"

    def source(self) -> str:
        """Return the sub-select as `u`, joined with those of the lists; once all conditions are compiled."""
        joins = [f"{self.sql} AS u"]
        for number, (field, conditions) in enumerate(self._lists.values()):
            found = (f"COALESCE(bool_or({one}), FALSE) AS b{n}" for n, one in enumerate(conditions))
            columns = ", ".join(found)
            joins.append(f"(SELECT {columns} FROM {field.values()} AS e WHERE {field.has_list}) AS l{number}")
        return " CROSS JOIN LATERAL ".join(joins)

    def _add(self, columns: list[str]) -> None:
        self.sql = f"(SELECT u.*, {', '.join(columns)} FROM {self.sql} AS u OFFSET 0)"

    def _steps(self, path: Path) -> list[str]:
        """Return the expressions of a path's document and of the value at each key."""
        steps = [f"u.{column_of(path)}"]
        for prefix in _prefixes(path):
            name = self._names.get(prefix)
            steps.append(f"u.{name}" if name else f"{steps[-1]}->{literal(prefix.keys[-1])}")
        return steps

    def field(self, path: Path) -> FieldSQL:
        """Return the expressions of one of the paths; `text` is NULL for other types where it is a column."""
        steps, name = self._steps(path), self._names.get(path)
        if name is not None:
            return field_at(path, steps, f"u.{name}_text")
        return field_at(path, steps, f"({steps[-2]}->>{literal(path.keys[-1])})")


def _prefixes(path: Path) -> list[Path]:
    """Return the paths to the value at each key of a path."""
    return [Path(path.root, path.keys[: depth + 1]) for depth in range(len(path.keys))]
