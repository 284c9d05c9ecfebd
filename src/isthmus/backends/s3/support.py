"""What each layout pushes down."""

from __future__ import annotations

from isthmus._query.ast import Leaf, Measure, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown
from isthmus.backends.s3.log.filter import is_exact
from isthmus.backends.s3.object.byte_filter import pushdown


class S3Support:
    """Pushes down the order by id, leaves about the id, and for leaves about text a search of bytes."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT where the id decides, SUPERSET where the bytes of the JSON rule out some records."""
        return pushdown(leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether this is the order by id, in which keys are listed."""
        return not order

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return False: S3 aggregates nothing."""
        return False


class LogSupport(S3Support):
    """Pushes down all leaves but those on whole lists: layout `log` evaluates them on its state."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT where the values at the path decide, else NONE."""
        return Pushdown.EXACT if is_exact(leaf) else Pushdown.NONE
