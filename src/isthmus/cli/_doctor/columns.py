"""Checks of declared columns: whether the collection has them, and whether its records fit them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from isthmus._core.columns import SupportsColumns
from isthmus.cli._doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from isthmus import AsyncDatabase

_MAX_ODD = 0.01


async def check_columns(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check the columns of the handle's collection, which exists."""
    backend, name = db._backend, db.collection_name
    if not isinstance(backend, SupportsColumns):
        return
    stored, missing = backend.columns(name)
    if missing:
        paths = ", ".join(str(column.path) for column in missing)
        yield warning(
            "columns",
            f"declared, but the collection has no column of {paths}",
            f"isthmus index URL {' '.join(f'--column {column}' for column in missing)}",
        )
    if not stored:
        return
    records, odd = await backend.count_odd(name)
    if odd > records * _MAX_ODD:
        yield warning(
            "columns",
            f"{odd:,} of about {records:,} records hold something else than the columns can, and are read"
            " in the slow way",
            f"isthmus index URL {' '.join(f'--column {column}' for column in stored)} --check says which;"
            " correct the records, or drop such a column",
        )
    else:
        yield ok("columns", f"{', '.join(map(str, stored))}; {odd:,} records do not fit them")
