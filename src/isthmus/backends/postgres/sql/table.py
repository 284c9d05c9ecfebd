"""The table of a collection, and which of its paths are indexed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus._core.columns import DeclaredColumn
from isthmus._core.unique import Unique
from isthmus._path import Path
from isthmus._query.plan_cache import PlanCache
from isthmus.backends.postgres.sql.columns import StoredColumn
from isthmus.backends.postgres.sql.fields import FieldSQL
from isthmus.backends.postgres.sql.statement import quote

# The two types with an index of their own; values of other types are rare in an indexed field.
_COMMON_TYPES = "('number', 'string')"
ORDER_COLUMN = "change_order"
"""The column of a table that keeps its changes: a number that is greater for each later write of a row."""


@dataclass(frozen=True, slots=True)
class IndexedPaths:
    """The paths of a collection that are indexed, by kind of index."""

    numbers: frozenset[Path] = frozenset()
    texts: frozenset[Path] = frozenset()
    substrings: frozenset[Path] = frozenset()
    elements: frozenset[Path] = frozenset()
    every_element: bool = False

    def __or__(self, other: IndexedPaths) -> IndexedPaths:
        """Return the paths that either indexes."""
        return IndexedPaths(
            self.numbers | other.numbers,
            self.texts | other.texts,
            self.substrings | other.substrings,
            self.elements | other.elements,
            self.every_element or other.every_element,
        )

    def has(self, path: Path) -> bool:
        """Return whether an index may serve some condition on a path."""
        return self.every_element or path in self.elements or self.has_rare_types(path)

    def has_rare_types(self, path: Path) -> bool:
        """Return whether the rows that hold neither a number nor a text at a path are indexed."""
        return path in self.numbers or path in self.texts or path in self.substrings


@dataclass(frozen=True, slots=True)
class Table:
    """The table that holds a collection."""

    schema: str
    name: str
    indexed: IndexedPaths
    json_array: str = "jsonb[]"
    """The type of a parameter that holds several JSON texts, cast to jsonb[] if it is another one."""
    unique: frozenset[Unique] = frozenset()
    """The unique fields that the config or a model declares."""
    has_unique: bool = False
    """Whether the table has unique fields, as far as is known: a statement of a transaction may fail."""
    declared: tuple[DeclaredColumn, ...] = ()
    """The columns that the config or a model declares."""
    columns: Mapping[Path, StoredColumn] = field(default_factory=dict, hash=False)
    """The declared columns that the table has, as far as is known."""
    has_changes: bool = False
    """Whether the table keeps its changes, as far as is known: then our updates draw a row's order."""
    sql: str = field(init=False)
    """The table's name in statements."""
    plans: PlanCache = field(default_factory=PlanCache, init=False, compare=False, repr=False)
    """The statements of known shapes; they depend on all of the above, and go with it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sql", f"{quote(self.schema)}.{quote(self.name)}")

    @property
    def touch(self) -> str:
        """The assignments that every UPDATE has, apart from those of the data and the version."""
        # Drawn under the row's lock. A handle that does not know of the changes leaves it to a trigger.
        return f"updated_at = now(), {ORDER_COLUMN} = DEFAULT" if self.has_changes else "updated_at = now()"


def is_rare(field: FieldSQL) -> str:
    """Return the condition of the index on rows that hold neither a number nor a text.

    A statement has to repeat it for the planner to use that index.
    """
    return f"{field.shape} NOT IN {_COMMON_TYPES}"


def is_indexed(indexed: IndexedPaths, stored: StoredColumn) -> bool:
    """Return whether a declared column has an index of its own."""
    path = stored.column.path
    return path in indexed.numbers or (stored.column.kind == "text" and path in indexed.texts)
