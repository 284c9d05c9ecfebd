"""Modifications: changes of part of a record, and the optional part of the seam for native ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from isthmus._core.executor import ItemResult, Mutation
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.changes import FieldChange


class Modification(Mutation):
    """The changes of one record, made if it is at `if_version` and `where` holds for it."""

    __slots__ = ("changes", "where")

    def __init__(
        self,
        id: str,
        changes: tuple[FieldChange, ...],
        where: Predicate = TRUE,
        if_version: str | None = None,
    ) -> None:
        super().__init__(id, None, None, if_version)
        self.changes = changes
        self.where = where


@runtime_checkable
class SupportsModifyBatch(Protocol):
    """An executor that applies several modifications natively.

    Of a store without versions (`compare_and_set`) that has the capability `modify` this is required:
    the core has nothing to write under. `where` has EXACT leaves only.
    """

    async def modify_batch(
        self, collection: str, modifications: Sequence[Modification], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply modifications as `modify_in_order` does and return one result for each.

        With `atomic` all or none, as of `Executor.write`.
        """
        ...


@runtime_checkable
class SupportsModify(Protocol):
    """An executor that modifies records natively; the capability `modify` is true.

    Optional, for speed: what it does not do, the core does by reading records and writing each
    under the version that was read. `where` has EXACT leaves only.
    """

    async def modify(self, collection: str, modification: Modification) -> ItemResult | None:
        """Apply a modification as `modify_in_order` does and return its result.

        Returns None, and changes nothing, where the store cannot do that exactly or where it only
        knows that the modification is refused: the core then finds the reason.
        """
        ...

    async def modify_where(
        self, collection: str, where: Predicate, changes: tuple[FieldChange, ...]
    ) -> int | None:
        """Change all matching records and return how many.

        Returns None, and changes nothing, where the store cannot do that exactly or a record does
        not admit a change.
        """
        ...
