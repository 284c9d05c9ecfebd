"""The indexes of a collection: declarations in the config, and the statements that build them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from isthmus._path import Path, Root, parse_path
from isthmus.backends.postgres.collection_settings import Indexes
from isthmus.backends.postgres.sql.columns import INDEX_OF_ODD, StoredColumn
from isthmus.backends.postgres.sql.fields import data_has_nested_list, field_of
from isthmus.backends.postgres.sql.statement import quote
from isthmus.backends.postgres.sql.table import IndexedPaths, is_indexed, is_rare
from isthmus.errors import ConfigError


def paths_to_index(settings: Indexes) -> IndexedPaths:
    """Return the paths that a config declares; raises `ConfigError` for one that cannot be indexed."""
    elements = settings.gin if isinstance(settings.gin, tuple) else ()
    return IndexedPaths(
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


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """One index: its name without the schema, and its definition after `ON table`."""

    name: str
    definition: str
    extension: str | None = None
    """The extension that provides its operators."""


def definitions(
    table: str, indexed: IndexedPaths, columns: Mapping[Path, StoredColumn] = MappingProxyType({})
) -> Iterator[IndexDefinition]:
    """Yield the indexes that a table should have.

    None of them can refuse a row, as a btree on whole values refuses a long text: numbers are short,
    texts are indexed by a prefix, and other values by the name of their type only. A path with a
    declared column of its kind has an index on that, and none on the path.
    """

    def index(kind: str, definition: str, extension: str | None = None) -> IndexDefinition:
        # The name contains a digest of the definition: a new definition is a new index.
        digest = hashlib.blake2b(f"{table}\0{definition}".encode(), digest_size=6).hexdigest()
        head = table.encode()[:30].decode(errors="ignore")
        return IndexDefinition(f"{head}_{kind}_{digest}", definition, extension)

    if columns:
        yield index("odd", INDEX_OF_ODD)
    for stored in sorted(columns.values(), key=lambda column: column.name):
        if is_indexed(indexed, stored):
            yield index("column", stored.index())
    indexed = _without(indexed, frozenset(columns))
    for path in sorted(indexed.numbers, key=str):
        field = field_of(path, row="")
        yield index("number", f"USING btree (({field.value}), id) WHERE {field.kind} = 'number'")
    for path in sorted(indexed.texts, key=str):
        field = field_of(path, row="")
        yield index("text", f"USING btree ({field.text_prefix}, id) WHERE {field.kind} = 'string'")
    for path in sorted(indexed.numbers | indexed.texts | indexed.substrings, key=str):
        field = field_of(path, row="")
        yield index("other", f"USING btree (({field.shape}), id) WHERE {is_rare(field)}")
    for path in sorted(indexed.substrings, key=str):
        field = field_of(path, row="")
        yield index(
            "trigram", f"USING gin ({field.text} gin_trgm_ops) WHERE {field.kind} = 'string'", "pg_trgm"
        )
    for path in sorted(indexed.elements, key=str):
        field = field_of(path, row="")
        yield index("gin", f"USING gin ({field.value} jsonb_path_ops)")
        yield index("nested", f"USING btree (id) WHERE {field.has_list_above} OR {field.has_nested_list}")
    if indexed.every_element:
        yield index("gin", "USING gin (data jsonb_path_ops)")
        yield index("nested", f"USING btree (id) WHERE {data_has_nested_list(row='')}")


def _without(indexed: IndexedPaths, columns: frozenset[Path]) -> IndexedPaths:
    return IndexedPaths(
        indexed.numbers - columns,
        indexed.texts - columns,
        indexed.substrings,
        indexed.elements,
        indexed.every_element,
    )


def create_index(index: IndexDefinition, schema: str, table: str, *, concurrently: bool = True) -> str:
    """Return the statement that builds an index; `concurrently`: while writers go on."""
    how = " CONCURRENTLY" if concurrently else ""
    return (
        f"CREATE INDEX{how} IF NOT EXISTS {quote(index.name)}"
        f" ON {quote(schema)}.{quote(table)} {index.definition}"
    )
