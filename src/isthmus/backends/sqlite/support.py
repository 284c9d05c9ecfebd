"""What SQLite can do, and what a query may leave to it."""

from __future__ import annotations

from isthmus._core.capabilities import Capabilities
from isthmus._query.aggregate import holds_values
from isthmus._query.ast import RANKED, Leaf, Measure, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown

CAPABILITIES = Capabilities(
    durable=True,
    transactions=True,
    savepoints=True,
    # One writer at a time, and a reader sees one snapshot: no weaker level exists here.
    isolation=frozenset({"serializable"}),
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
    # A row is at most 1,000,000,000 bytes (SQLITE_MAX_LENGTH); the rest is for id and metadata.
    max_record_bytes=900_000_000,
)
# A cursor's condition compares each sort key twice for each later one.
_MAX_SORT_KEYS = 16
# A SELECT has at most 2,000 columns; a measure takes up to four of them, a group two.
_MAX_MEASURES, _MAX_GROUPS = 200, 50


class SQLiteSupport:
    """Everything is exact on SQLite, except for relevance and vectors."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT; NONE for a leaf that ranks."""
        return Pushdown.NONE if isinstance(leaf, RANKED) else Pushdown.EXACT

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether the keys are at most sixteen."""
        return len(order) <= _MAX_SORT_KEYS

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return whether one SELECT has room for them; integers are summed exactly, floats rounded once."""
        fits = len(measures) <= _MAX_MEASURES and len(by) <= _MAX_GROUPS
        return fits and not holds_values(measures)


SUPPORT = SQLiteSupport()
