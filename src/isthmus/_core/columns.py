"""Declared columns: paths whose values a store keeps apart from the record, typed (docs/how-to/columns)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from isthmus._core.capabilities import Capabilities
from isthmus._index_annotation import Declarations, IndexKind
from isthmus._path import Path, Root, parse_path
from isthmus._value import Value
from isthmus.errors import ConfigError, QueryError, UnsupportedError

ColumnKind: TypeAlias = Literal["number", "text", "bool"]
KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)
COLUMNS_OF: dict[ColumnKind, IndexKind] = {
    "number": "number_columns",
    "text": "text_columns",
    "bool": "bool_columns",
}
"""The key of a model's columns of each kind among its declarations."""
MAX_COLUMNS = 200
"""How many columns a collection has at most: a row whose values fill more does not fit a page of a table."""


class DeclaredColumn(Value):
    """A path, and the type of value that its column holds; other values there make a row odd."""

    path: Path
    kind: ColumnKind

    def __str__(self) -> str:
        return f"{self.path}={self.kind}"


Columns: TypeAlias = Iterable[DeclaredColumn]


class OddRows(Value):
    """How many records there are, and how many have something else than its kind at each column's path."""

    records: int
    odd: Mapping[str, int]
    bytes: int = 0
    """The size of the table, which adding a column rewrites; 0 where it does not."""


def describe_kind(name: str, kind: object) -> str:
    """Return why a kind of column is refused."""
    return f"{name!r} is of kind {kind!r}; a column is number, text or bool"


def columns_of(kinds: Mapping[str, ColumnKind]) -> tuple[DeclaredColumn, ...]:
    """Return the columns of a setting, sorted by path; raises `ConfigError` for what cannot be one."""
    found: dict[Path, DeclaredColumn] = {}
    for name, kind in kinds.items():
        try:
            path = parse_path(name)
        except QueryError as error:
            raise ConfigError(f"columns: {error}") from None
        if path.root is not Root.DATA:
            raise ConfigError(f"columns: {path} is not a field of the data")
        if kind not in KINDS:
            raise ConfigError(f"columns: {describe_kind(name, kind)}")
        found[path] = DeclaredColumn(path, kind)
    return _check_count(found.values())


def columns_in(declared: Declarations) -> tuple[DeclaredColumn, ...]:
    """Return the columns that a model declares."""
    found: dict[str, ColumnKind] = {}
    for kind in KINDS:
        found |= dict.fromkeys(declared.get(COLUMNS_OF[kind], ()), kind)
    return columns_of(found)


def join_columns(
    declared: Iterable[DeclaredColumn], more: Iterable[DeclaredColumn]
) -> tuple[DeclaredColumn, ...]:
    """Return both declarations; raises `ConfigError` where they contradict each other, or are too many."""
    by_path = {column.path: column for column in declared}
    for column in more:
        known = by_path.setdefault(column.path, column)
        if known.kind != column.kind:
            raise contradiction(column.path, known.kind, column.kind)
    return _check_count(by_path.values())


def _check_count(columns: Iterable[DeclaredColumn]) -> tuple[DeclaredColumn, ...]:
    result = tuple(sorted(columns, key=str))
    if len(result) > MAX_COLUMNS:
        raise ConfigError(
            f"columns: {len(result)} are declared, and a collection has at most {MAX_COLUMNS}; declare those"
            " that queries filter, sort or add by"
        )
    return result


def contradiction(path: Path, one: str, other: str) -> ConfigError:
    """Return the error of two kinds of one column that a config and a model declare."""
    return ConfigError(f"columns: {path} is declared as {one} and as {other}; declare one kind")


def check_kinds(
    collection: str, stored: Iterable[DeclaredColumn], declared: Iterable[DeclaredColumn]
) -> None:
    """Raise `ConfigError` for a column that a collection has in another kind than the declared one."""
    kinds = {column.path: column.kind for column in stored}
    for column in declared:
        kind = kinds.get(column.path, column.kind)
        if kind != column.kind:
            raise ConfigError(
                f"the collection {collection!r} has a column of {column.path} as {kind}, and it is"
                f" declared as {column.kind}; declare it as {kind}, or drop the column with"
                f" `isthmus index URL --column {column.path} --drop`"
            )


def refuse_declarations(backend: str, capabilities: Capabilities, declared: Declarations) -> None:
    """Raise `UnsupportedError` if a model declares unique fields or columns, and the backend has none."""
    if "unique" in declared and not capabilities.unique:
        raise UnsupportedError(f"{backend} has no unique fields", capability="unique")
    if not capabilities.columns and not declared.keys().isdisjoint(COLUMNS_OF.values()):
        raise UnsupportedError(f"{backend} has no declared columns", capability="columns")


def missing_text(collection: str, missing: Sequence[DeclaredColumn]) -> str:
    """Return what a handle says once about declared columns that its collection lacks."""
    names = " ".join(f"--column {column}" for column in missing)
    return (
        f"the collection {collection!r} lacks declared columns; queries on them cost what they did without."
        f" Add them with `isthmus index URL {names}`, which says what it costs"
    )


@runtime_checkable
class SupportsColumns(Protocol):
    """A backend with declared columns; the capability `columns` is true."""

    def columns(self, collection: str) -> tuple[tuple[DeclaredColumn, ...], tuple[DeclaredColumn, ...]]:
        """Return the columns that a collection has, and those declared that it lacks; no I/O."""
        ...

    async def count_odd(self, collection: str) -> tuple[int, int]:
        """Return about how many records there are, and how many do not fit the columns; cheap."""
        ...

    async def find_odd(self, collection: str, columns: Sequence[DeclaredColumn]) -> OddRows:
        """Return how many records have something else at the columns' paths; reads all records."""
        ...

    async def add_columns(self, collection: str, columns: Sequence[DeclaredColumn]) -> None:
        """Add the columns that a collection lacks, while others wait; it then has format 2.

        Raises `ConfigError` for a column that it has in another kind, or if it cannot have more.
        """
        ...

    async def drop_columns(self, collection: str, columns: Sequence[Path]) -> None:
        """Drop columns; a missing one is not an error."""
        ...
