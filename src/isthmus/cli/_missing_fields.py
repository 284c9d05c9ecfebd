"""Fields that a command names and no record has: said on standard error, with the nearest name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

from isthmus import Collection, Query, Record
from isthmus._path import Path, Root
from isthmus._query.ast import Exists, leaves
from isthmus.cli._hints import hint_at_nearest
from isthmus.cli._output import print_note
from isthmus.cli._profile import walk_record

_SECONDS = 2.0
"""A field that no record has is looked for in all of them: no longer than this."""
_MAX_FIELDS = 10
_SAMPLE = 100


def collect_paths(query: Query, others: Iterable[Path] = ()) -> list[Path]:
    """Return the paths in data and metadata that a query and the rest of a command name, once each."""
    conditions = [leaf.path for leaf in leaves(query.where)]
    orders = [key.path for key in query.order]
    paths = dict.fromkeys([*conditions, *orders, *(query.fields or ()), *others])
    return [path for path in paths if path.root in (Root.DATA, Root.METADATA) and path.keys]


async def note_missing_fields(source: Collection, paths: Iterable[Path]) -> None:
    """Print a note for each path that no record of the collection has.

    Each costs a search for one record, which reads all records where there is none and no index;
    after 2 seconds the rest is left out.
    """
    sample: list[Record] = []
    try:
        async with asyncio.timeout(_SECONDS):
            for path in islice(paths, _MAX_FIELDS):
                if not await source.search(Query(where=Exists(path)).limit(1)):
                    sample = sample or await source.search(Query().limit(_SAMPLE))
                    print_note(_describe(sample, path))
    except TimeoutError:
        return


def _describe(sample: list[Record], path: Path) -> str:
    """Return the note on a path that no record has, from some records of the collection."""
    if not sample:
        return "the collection has no records"
    known = {name for record in sample for name, _ in walk_record(record)}
    name = str(path)
    if name in known:
        return f"no record has a value other than null in {name!r}"
    return f"no record has {name!r}{hint_at_nearest(name, known)}"
