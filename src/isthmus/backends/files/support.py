"""What the files backend can do, and what it evaluates while it reads."""

from __future__ import annotations

from isthmus._core.capabilities import Capabilities
from isthmus._query.ast import RANKED, Leaf, Measure, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown

CAPABILITIES = Capabilities(writes=False, consistent_stream=True)


class FilesSupport:
    """Every condition is evaluated exactly, in the thread that reads; the order is that of the files."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT, but NONE where only a search engine has an answer."""
        return Pushdown.NONE if isinstance(leaf, RANKED) else Pushdown.EXACT

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether this is the order by id."""
        return not order

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return True: groups are counted while the files are read."""
        return True
