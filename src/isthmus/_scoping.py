"""`db.scope(…)`: handles that are confined to the records of a scope."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from isthmus._core.executor import Backend
from isthmus._query.ast import Predicate
from isthmus._query.query import Query
from isthmus._scope import Scope, narrow
from isthmus._scoped_session import ScopedSession
from isthmus._session import Session, check_settings
from isthmus._transaction import TransactionContext
from isthmus.errors import UnsupportedError


class Scoping:
    """The part of a database handle that confines it to a scope."""

    _backend: Backend
    _scope: Scope | None = None

    @abstractmethod
    def options(self) -> Self:
        """Return a handle on the same pool."""

    @abstractmethod
    def transaction(self) -> TransactionContext:
        """Open a transaction."""

    def scope(self, condition: Predicate | Query, *, row_security: bool = False) -> Self:
        """Return a handle that sees and writes only records for which equalities hold; for tenants.

        `db.scope(field("tenant") == "a")`: one or more equalities of data fields with a number, text or
        bool, joined by `&`. They are a part of every query, and of all that is reached through the handle:
        collections, transactions, streams, cursors, aggregates, partitions, copies. The record of another
        scope is missing, but its id is taken: `create` and `upsert` of it raise `AlreadyExistsError`. A
        record that is written gets the scope's values; one that has others, or would get others by a
        change, is `InvalidRecordError`. Scopes nest. `drop_collection` and `isthmus.native` are refused.

        Costs one more read for each write of an existing record, which is then written at the version
        that was read (`capabilities.compare_and_set`); an atomic batch of such writes needs transactions.
        With `row_security` (`capabilities.row_security`), the store confines the handle as well: each
        operation is a transaction that sets the session variable `isthmus.scope`, for the policies that
        `isthmus doctor --row-security` prints; a connection without it then sees nothing. That costs a
        transaction and one more round trip for each operation, and allows `isthmus.native.postgres(tx)`.

        Raises `QueryError` for another condition. Closing the handle closes nothing.
        """
        derived = self.options()
        if row_security and not self._backend.capabilities.row_security:
            raise UnsupportedError("this store has no row security", capability="row_security")
        derived._scope = narrow(self._scope, condition, row_security=row_security)
        return derived

    def _confine(self, session: Session) -> Session:
        check_settings(session, () if self._scope is None else self._scope.settings)
        return session if self._scope is None else ScopedSession(session, self._scope, self._atomically)

    def _refuse_drop(self) -> None:
        if self._scope is not None:
            raise UnsupportedError(
                "a scope drops no collection: it holds the records of others too", capability="drop"
            )

    @asynccontextmanager
    async def _atomically(self) -> AsyncIterator[Session]:
        async with self.transaction() as tx:
            yield tx._own
