"""The capabilities of the backend, and what it can push down."""

from __future__ import annotations

from isthmus._core.capabilities import Capabilities
from isthmus._path import Root
from isthmus._query.aggregate import holds_values, paths_read
from isthmus._query.ast import Leaf, Measure, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown
from isthmus.backends.postgres.sql.leaf import pushdown

CAPABILITIES = Capabilities(
    durable=True,
    transactions=True,
    savepoints=True,
    isolation=frozenset({"read committed", "repeatable read", "serializable"}),
    for_update=True,
    atomic_batch=True,
    conditional_create=True,
    compare_and_set=True,
    delete_where=True,
    modify=True,
    consistent_stream=True,
    unique=True,
    changes=True,
    indexes=True,
    columns=True,
    drop=True,
    row_security=True,
)


class PostgresSupport:
    """The same for every collection: indexes change the speed only."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT for all but some regular expressions, which are a SUPERSET."""
        return pushdown(leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return true: any order of stored values is exact; there is no `_score`."""
        return all(key.path.root is not Root.SCORE for key in order)

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return true for all stored paths; no for measures that need all values."""
        return all(path.root is not Root.SCORE for path in paths_read(by, measures)) and not holds_values(
            measures
        )


SUPPORT = PostgresSupport()
