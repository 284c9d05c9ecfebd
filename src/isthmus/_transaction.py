"""Transactions: objects to pass around, joined implicitly only by the task that opened them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from isthmus._collection import Collection, CollectionMethods, check_collection_name
from isthmus._core.executor import (
    Executor,
    TransactionExecutor,
    TransactionOptions,
)
from isthmus._core.op import Op
from isthmus._core.supports import DescribesCollections, SupportsNativeSQL
from isthmus._query.ast import TRUE, Predicate
from isthmus._scope import Scope
from isthmus._scoped_session import ScopedSession
from isthmus._session import DatabaseSession, Session, check_settings
from isthmus._value import replace
from isthmus.errors import ClosedError, SerializationError, TransactionError, UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from isthmus._typed import TypedCollection

R = TypeVar("R")
M = TypeVar("M", bound="BaseModel")


Part: TypeAlias = AbstractAsyncContextManager[Any]
"""A backend's transaction or savepoint, which was entered."""


class TransactionSession:
    """Runs the operations of one transaction, its savepoints and its end, one after another."""

    prefetch = False
    scope: Predicate = TRUE
    in_transaction = True

    def __init__(
        self,
        transaction: Part,
        executor: TransactionExecutor,
        outside: DatabaseSession,
        options: TransactionOptions,
    ) -> None:
        self._executor = executor
        self._read_only = options.read_only
        self.settings = options.settings
        self._stack = outside.stack.in_transaction(executor)
        self.ends = outside.ends
        # Fair: calls that came before an end are over when it begins.
        self._lock = asyncio.Lock()
        self._describes = executor if isinstance(executor, DescribesCollections) else None
        levels = executor.capabilities.isolation
        self.isolation = options.isolation or (min(levels) if len(levels) == 1 else None)
        """The level, None for the store's default among several."""
        self._parts = [transaction]
        """The transaction and its open savepoints, each inside the one before."""
        self._failure: Exception | None = None
        """Why a savepoint could not be rolled back: the transaction cannot be committed."""
        self.backend_name = outside.backend_name
        self.cursor_secret = outside.cursor_secret
        self.task = asyncio.current_task()
        self.open = True

    @property
    def executor(self) -> Executor:
        """Return the executor inside the transaction."""
        return self._executor

    async def run(self, op: Op[R]) -> R:
        """Run an operation; calls of several tasks queue, since a connection does one thing at a time."""
        self.ensure_open()
        if self._read_only and (op.writes or op.locks):
            # Refused here, so that every backend raises the same error and the transaction goes on.
            does = "writes" if op.writes else "with for_update locks records"
            raise TransactionError(f"this transaction is read-only, and {op.name} {does}")
        async with self._lock:
            if self._describes is not None:
                await self._describes.describe(op.collection)
            return await self._stack.run(op)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the operations under way, and keep others waiting; for native statements.

        Raises `ClosedError` once the transaction has ended.
        """
        async with self._lock:
            self.ensure_open()
            yield

    async def open_savepoint(self) -> Part:
        """Set a savepoint, after the operations under way, and return it for `end`."""
        async with self._lock:
            self.ensure_open()
            savepoint = self._executor.savepoint()
            await savepoint.__aenter__()
            self._parts.append(savepoint)
            return savepoint

    async def end_transaction(self, error: BaseException | None) -> None:
        """Commit, or with an error roll back; see `end`."""
        await self.end(self._parts[0], error)

    async def end(self, part: Part, error: BaseException | None) -> None:
        """Commit a savepoint or the transaction, or with an error roll it back.

        What is under way on the connection ends first, the end of an inner savepoint included, whose
        caller may have been cancelled and gone. Raises `UsageError`, and rolls back, if a savepoint
        inside is still open: what its block will do cannot be known.
        """
        async with self._lock:
            if part not in self._parts:
                if error is None:
                    raise ClosedError("this savepoint was rolled back with the one that it was opened in")
                return
            cause = error
            if error is None and self._parts[-1] is not part:
                cause = UsageError("a savepoint is still open in another task: wait for that task first")
            elif error is None and self._failure is not None and part is self._parts[0]:
                cause = TransactionError("a savepoint could not be rolled back, so nothing is committed")
                cause.__cause__ = self._failure
            await self._leave(part, cause)
            if cause is not error and cause is not None:
                raise cause

    async def _leave(self, part: Part, error: BaseException | None) -> None:
        """Leave a part and all that were opened inside it, from the innermost out."""
        inner = self._parts.pop()
        try:
            await inner.__aexit__(None if error is None else type(error), error, None)
        except Exception as failure:
            if error is None:
                raise
            if failure is not error:
                # The block's own error says more, and may be its cancellation.
                self._failure = failure
                error.add_note(f"the rollback failed: {failure!r}")
        finally:
            if inner is not part:
                await self._leave(part, error)

    def conflict_of(self, error: Exception) -> SerializationError | None:
        """Return the isthmus error for a conflict that the driver told of in SQL of the user; else None."""
        executor = self._executor
        return executor.conflict_of(error) if isinstance(executor, SupportsNativeSQL) else None

    def ensure_open(self) -> None:
        """Raise `ClosedError` once the transaction has ended."""
        if not self.open:
            raise ClosedError("this transaction has ended")

    async def refresh(self, collection: str) -> None:
        """Do nothing: a transaction sees its own writes."""


class Transaction(CollectionMethods):
    """All record methods inside one transaction; `tx.collection(name)` for other collections."""

    def __init__(
        self, session: TransactionSession, name: str, namespace: str = "", scope: Scope | None = None
    ) -> None:
        self._own = session
        self._name = name
        self._namespace = namespace
        self._scope = scope

    create = CollectionMethods._insert

    @property
    def _session(self) -> Session:
        if self._scope is None:
            return self._own
        return ScopedSession(self._own, self._scope, self._atomically)

    @asynccontextmanager
    async def _atomically(self) -> AsyncIterator[Session]:
        async with self.savepoint():
            yield self._own

    def _view_in(self, scope: Scope | None) -> Transaction:
        """Return this transaction as the handle of a scope, or of none, sees it."""
        if self._scope == scope:
            return self
        return Transaction(self._own, self._name, self._namespace, scope)

    @property
    def collection_name(self) -> str:
        """The default collection of the database."""
        return self._name

    @overload
    def collection(self, name: str) -> Collection: ...
    @overload
    def collection(self, name: str, model: type[M], *, schema_key: str = ...) -> TypedCollection[M]: ...
    def collection(
        self, name: str, model: type[M] | None = None, *, schema_key: str = "schema"
    ) -> Collection | TypedCollection[M]:
        """Return another collection inside this transaction; typed if a pydantic model is given.

        `schema_key` is the metadata key of the schema number of a model with `upgrade` functions.
        """
        check_collection_name(name)
        collection = Collection(lambda: self._session, self._namespace + name)
        if model is None:
            return collection
        from isthmus._typed import TypedCollection

        return TypedCollection(collection, model, schema_key=schema_key)

    def savepoint(self) -> Savepoint:
        """Open a savepoint with `async with`: leaving by an exception rolls back to it.

        Savepoints end from the innermost out, also where several tasks share the transaction: one that
        ends before another that was opened inside it is rolled back with that, and raises `UsageError`.
        """
        return Savepoint(self)

    def __repr__(self) -> str:
        return f"<Transaction {'open' if self._own.open else 'ended'} on {self._own.backend_name}>"


class Savepoint:
    """A part of a transaction that can be rolled back alone."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._part: Part

    async def __aenter__(self) -> Transaction:
        self._part = await self._transaction._own.open_savepoint()
        return self._transaction

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session = self._transaction._own
        await session.ends.run(session.end(self._part, error), "isthmus-savepoint-end")


_Begin: TypeAlias = "Callable[[TransactionOptions], Awaitable[Transaction]]"


class TransactionContext:
    """The result of `db.transaction()`, for `async with`; nested in the same task it is a savepoint."""

    def __init__(
        self,
        begin: _Begin,
        options: TransactionOptions,
        ambient: AmbientTransaction,
        scope: Scope | None = None,
    ) -> None:
        self._scope = scope
        self._begin = begin
        self._options = options
        self._ambient = ambient
        self._leave: Callable[[], None]
        self._session: TransactionSession
        self._savepoint: Savepoint | None = None

    async def __aenter__(self) -> Transaction:
        outer = self._ambient.current()
        if outer is not None:
            check_settings(outer._own, self._options.settings)
            if replace(self._options, settings=()) != TransactionOptions():
                raise UsageError(
                    "a nested transaction is a savepoint: it has no isolation or read_only of its own"
                )
            self._savepoint = outer.savepoint()
            return (await self._savepoint.__aenter__())._view_in(self._scope)
        transaction = await self._begin(self._options)
        self._session = transaction._own
        self._leave = self._ambient.enter(transaction)
        return transaction

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._savepoint is not None:
            await self._savepoint.__aexit__(kind, error, trace)
            return
        self._leave()  # in the caller's context; the end runs in another
        session = self._session
        await session.ends.run(session.end_transaction(error), "isthmus-transaction-end")


class AmbientTransaction:
    """The transaction of a database that the running task opened, if any."""

    def __init__(self) -> None:
        self._variable: contextvars.ContextVar[Transaction | None] = contextvars.ContextVar(
            "isthmus", default=None
        )

    def current(self) -> Transaction | None:
        """Return the open transaction of this very task.

        Raises `UsageError` in a child task of the one that opened it: joining would share a
        connection between tasks, running outside would be silently wrong.
        """
        transaction = self._variable.get()
        if transaction is None or not transaction._own.open:
            return None
        if transaction._own.task is not asyncio.current_task():
            raise UsageError(
                "a transaction is open in the parent task, and this is a child task (asyncio.wait_for makes"
                " one on Python 3.11: use asyncio.timeout()). Call the methods of the transaction object"
                " (pass tx), or start this task with context=contextvars.Context()"
            )
        return transaction

    def refuse_current(self, call: str) -> None:
        """Raise `UsageError` if this very task has an open transaction, which a call would wait for."""
        transaction = self._variable.get()
        own = None if transaction is None else transaction._own
        if own is not None and own.open and own.task is asyncio.current_task():
            raise UsageError(f"{call} this task's own open transaction: leave that first")

    def enter(self, transaction: Transaction) -> Callable[[], None]:
        """Make the transaction current; return a function that ends it and restores the previous one."""
        before = self._variable.get()
        self._variable.set(transaction)

        def leave() -> None:
            transaction._own.open = False
            # Not reset(token): leaving may happen in another context than entering (a fixture's).
            self._variable.set(before)

        return leave
