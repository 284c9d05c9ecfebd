"""The memory backend: a store that exists as long as its handle."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus._core.executor import ItemResult, Mutation, PoolStats, TransactionOptions, WriteKind
from isthmus._query.ast import Predicate
from isthmus._record import Record
from isthmus.backends.memory.committed import Committed
from isthmus.backends.memory.executor import MemoryExecutor
from isthmus.backends.memory.transaction import MemoryTransaction
from isthmus.errors import UnsupportedError

if TYPE_CHECKING:
    from isthmus.backends.memory.config import MemoryConfig


class MemoryBackend(MemoryExecutor):
    """A store that exists as long as its handle; may be used from any loop and thread."""

    name = "memory"

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.default_collection = config.table
        self._committed = Committed(config.timeout)

    def _table(self, collection: str) -> Mapping[str, Record]:
        return self._committed.table(collection)

    def _record(self, collection: str, id: str) -> Record | None:
        return self._committed.table(collection).get(id)

    async def close(self) -> None:
        """Do nothing: the records exist as long as the handle."""

    async def collections(self) -> list[str]:
        """Return the names of the tables with records, sorted."""
        return sorted(name for name, table in self._committed.tables.items() if table)

    async def drop(self, collection: str) -> None:
        """Delete a table once nobody writes its records; the next write creates it again."""
        async with self.begin(TransactionOptions()) as transaction:
            await transaction.lock_table(collection)
            self._committed.drop(collection)

    def stats(self) -> PoolStats:
        """Return zeros: there is no pool."""
        return PoolStats()

    async def native(self) -> Any:
        """Raise `UnsupportedError`: memory has no native client."""
        raise UnsupportedError("memory has no native client", capability="native")

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations once no open transaction has written their records.

        Raises `PoolTimeoutError` if one has still not ended after `timeout` seconds.
        """
        results = self._committed.write(collection, kind, mutations, atomic=atomic)
        if results is not None:
            return results
        async with self.begin(TransactionOptions()) as transaction:
            return await transaction.write(collection, kind, mutations, atomic=atomic)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records once no open transaction has written them; see `write`."""
        async with self.begin(TransactionOptions()) as transaction:
            return await transaction.remove(collection, where)

    @contextlib.asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[MemoryTransaction]:
        """Open a transaction; its changes become visible when it ends without an exception."""
        transaction = MemoryTransaction(self._committed, options)
        try:
            yield transaction
            transaction.commit()
        finally:
            transaction.end()
