"""The indexes of one collection: which statements may lean on them, and what makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus._path import Path, Root, parse_path
from isthmus.backends.postgres.config import Indexes
from isthmus.backends.postgres.sql.fields import Field, field_of, nested_anywhere
from isthmus.backends.postgres.sql.statement import quoted
from isthmus.errors import ConfigError

# The two kinds that have an index of their own; all else is rare in an indexed field.
MAIN = "('number', 'string')"


@dataclass(frozen=True, slots=True)
class Declared:
    """Which paths of a collection are indexed, and how."""

    numbers: frozenset[Path] = frozenset()
    texts: frozenset[Path] = frozenset()
    substrings: frozenset[Path] = frozenset()
    elements: frozenset[Path] = frozenset()
    every_element: bool = False

    def __or__(self, other: Declared) -> Declared:
        """Return the indexes of both."""
        return Declared(
            self.numbers | other.numbers,
            self.texts | other.texts,
            self.substrings | other.substrings,
            self.elements | other.elements,
            self.every_element or other.every_element,
        )

    def others(self, path: Path) -> bool:
        """Return whether the rows that hold neither a number nor a text there are indexed."""
        return path in self.numbers or path in self.texts or path in self.substrings


def declared(settings: Indexes) -> Declared:
    """Return the indexes that a config declares; raises `ConfigError` for what cannot be indexed."""
    elements = settings.gin if isinstance(settings.gin, tuple) else ()
    return Declared(
        numbers=_paths(settings.indexes),
        texts=_paths((*settings.indexes, *settings.prefix)),
        substrings=_paths(settings.substring),
        elements=_paths(elements),
        every_element=settings.gin is True,
    )


def _paths(names: tuple[str, ...]) -> frozenset[Path]:
    paths = frozenset(map(parse_path, names))
    for path in paths:
        if path.root not in (Root.DATA, Root.METADATA) or not path.keys:
            raise ConfigError(f"postgres: {path} cannot be indexed; name a field of the data or the metadata")
    return paths


def other_shape(field: Field) -> str:
    """Return the condition of the index of rows with neither a number nor a text, as statements repeat it."""
    return f"{field.shape} NOT IN {MAIN}"


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its name without a schema, and its definition after `ON table`."""

    name: str
    definition: str
    needs: str | None = None
    """The extension that it needs."""


def indexes(table: str, given: Declared) -> Iterator[Index]:
    """Yield the indexes to be there.

    None of them can refuse a row: numbers are short, texts are cut, and the rest has its type's
    name only (a btree on the values themselves refuses a long text).
    """

    def index(kind: str, definition: str, needs: str | None = None) -> Index:
        # What the index is made of is in its name: another definition is another index.
        digest = hashlib.blake2b(f"{table}\0{definition}".encode(), digest_size=6).hexdigest()
        head = table.encode()[:30].decode(errors="ignore")
        return Index(f"{head}_{kind}_{digest}", definition, needs)

    for path in sorted(given.numbers, key=str):
        field = field_of(path, row="")
        yield index("number", f"USING btree (({field.value}), id) WHERE {field.kind} = 'number'")
    for path in sorted(given.texts, key=str):
        field = field_of(path, row="")
        yield index("text", f"USING btree ({field.cut}, id) WHERE {field.kind} = 'string'")
    for path in sorted(given.numbers | given.texts | given.substrings, key=str):
        field = field_of(path, row="")
        yield index("other", f"USING btree (({field.shape}), id) WHERE {other_shape(field)}")
    for path in sorted(given.substrings, key=str):
        field = field_of(path, row="")
        yield index(
            "trigram", f"USING gin ({field.text} gin_trgm_ops) WHERE {field.kind} = 'string'", "pg_trgm"
        )
    for path in sorted(given.elements, key=str):
        field = field_of(path, row="")
        yield index("gin", f"USING gin ({field.value} jsonb_path_ops)")
        yield index("nested", f"USING btree (id) WHERE {field.above} OR {field.nested}")
    if given.every_element:
        yield index("gin", "USING gin (data jsonb_path_ops)")
        yield index("nested", f"USING btree (id) WHERE {nested_anywhere(row='')}")


def created(index: Index, schema: str, table: str) -> str:
    """Return the statement that builds an index without stopping writers."""
    return (
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {quoted(index.name)}"
        f" ON {quoted(schema)}.{quoted(table)} {index.definition}"
    )
