"""Sessions: where the operations of a handle run, through the layers and on the right executor."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from isthmus._core.capabilities import Capabilities
from isthmus._core.closing import CLOSINGS, Calls
from isthmus._core.executor import Backend, Executor, PoolStats
from isthmus._core.op import Op, Open, Refresh
from isthmus._core.stack import Layer, Stack
from isthmus._core.uncancelled import Ends
from isthmus._query.ast import TRUE, Predicate
from isthmus._value import Value
from isthmus.errors import ClosedError, UsageError

R = TypeVar("R")
T = TypeVar("T")


class Session(Protocol):
    """Runs the operations of one call; looked up for each call, so that it joins its task's transaction."""

    @property
    def executor(self) -> Executor:
        """Return the executor at the bottom of the stack."""
        ...

    @property
    def backend_name(self) -> str:
        """Return the backend's name."""
        ...

    @property
    def cursor_secret(self) -> bytes:
        """Return the key that signs cursors."""
        ...

    @property
    def scope(self) -> Predicate:
        """Return the condition of all records that operations see; `TRUE` without a scope."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Return whether operations are part of an open transaction."""
        ...

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Return the server settings of the open transaction."""
        ...

    @property
    def prefetch(self) -> bool:
        """Return whether a stream may request its next page while the current one is read."""
        ...

    @property
    def ends(self) -> Ends:
        """Return the ends under way of what this handle has opened."""
        ...

    async def run(self, op: Op[R]) -> R:
        """Run an operation through the layers; makes its collection ready first."""
        ...

    async def refresh(self, collection: str) -> None:
        """Make earlier writes visible to searches by any handle."""
        ...


def check_settings(session: Session, settings: tuple[tuple[str, str], ...]) -> None:
    """Raise `UsageError` for an open transaction whose row security is that of another scope."""
    if session.in_transaction and session.settings != settings:
        raise UsageError(
            "the open transaction was begun by a handle of another scope: with row_security=True a"
            " transaction belongs to the scope that opened it"
        )


class SessionBound:
    """Base of everything that has record methods: knows its session and its collection."""

    @property
    @abstractmethod
    def _session(self) -> Session: ...

    @property
    @abstractmethod
    def collection_name(self) -> str:
        """The table, index or prefix that the methods act on."""

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the backend; plain data, no I/O."""
        return self._session.executor.capabilities

    def _run(self, op: Op[R]) -> Awaitable[R]:
        return self._session.run(op)


class DatabaseSession:
    """Runs the operations of a database handle on its backend."""

    prefetch = True
    scope: Predicate = TRUE
    in_transaction = False
    settings: tuple[tuple[str, str], ...] = ()

    def __init__(self, backend: Backend, layers: Sequence[Layer], cursor_secret: bytes, ends: Ends) -> None:
        self.backend = backend
        self.ends = ends
        self.stack = Stack(layers, backend)
        self.backend_name = backend.name
        self.cursor_secret = cursor_secret
        self.closed: str | None = "it was never connected: await db.connect() or use 'async with'"
        """Why a call is refused; None while the handle is open."""
        self.lazy = False
        """Whether the first call connects."""
        self.ready: set[str] = set()
        """The collections that were made ready."""
        self.parent: DatabaseSession | None = None
        """That of the handle that this one was derived from, which alone closes the backend."""
        self.calls = Calls()
        """The calls under way."""

    def derive_from(self, other: DatabaseSession) -> None:
        """Share what is open with another handle's session, and end with it."""
        self.closed, self.lazy = other.closed, other.lazy
        self.ready, self.calls = other.ready, other.calls
        self.parent = other.parent or other

    @property
    def executor(self) -> Executor:
        """Return the backend."""
        return self.backend

    async def run(self, op: Op[R]) -> R:
        """Run an operation; makes its collection ready on first use."""
        if self.closed is not None or op.collection not in self.ready:
            await self.ensure_open(op.collection)
        # As `count` does, without the price of a coroutine.
        loop, calls = asyncio.get_running_loop(), self.calls
        calls.counts[loop] += 1
        try:
            return await self.stack.run(op)
        finally:
            calls.counts[loop] -= 1
            if calls.are_last:
                await self._release_after(loop)

    async def count(self, call: Awaitable[R]) -> R:
        """Run a call that is counted as under way: `close` waits for it."""
        loop, calls = asyncio.get_running_loop(), self.calls
        calls.counts[loop] += 1
        try:
            return await call
        finally:
            calls.counts[loop] -= 1
            if calls.are_last:
                await self._release_after(loop)

    async def _release_after(self, loop: asyncio.AbstractEventLoop) -> None:
        """Release what the last calls have leased since the handle was closed without waiting for them."""
        if self.calls.end_last(loop):
            await CLOSINGS.run(self.backend.close(), "isthmus-close")

    async def begin(self, transaction: AbstractAsyncContextManager[T]) -> T:
        """Enter a transaction; raises `ClosedError` if the handle is terminated meanwhile."""

        async def enter() -> T:
            entered = await transaction.__aenter__()
            if self.calls.are_last and not self.calls.are_awaited:
                # Nothing could be released before its end, and so nothing be closed.
                error = self._make_closed_error()
                await transaction.__aexit__(ClosedError, error, None)
                raise error
            return entered

        return await self.count(enter())

    async def connect(self, collection: str, stack: Stack) -> None:
        """Connect and make a collection ready; raises `ClosedError` if the handle is closed meanwhile."""
        closings = self.calls.closings

        async def connect() -> None:
            await stack.run(Open(collection))
            if self.calls.closings != closings:
                raise self._make_closed_error()
            self.mark_open(collection)

        await self.count(connect())

    async def ensure_open(self, collection: str) -> None:
        """Connect if that was put off, and make the collection ready; raises `ClosedError`."""
        self.refuse_closed()
        await self.count(self._open(collection))

    async def _open(self, collection: str) -> None:
        await self.stack.run(Open(collection))
        self.refuse_closed()
        self.mark_open(collection)

    def refuse_closed(self) -> None:
        """Raise `ClosedError` if this handle, or the one that it was derived from, is closed."""
        self.refuse_without_parent()
        if self.is_closed:
            raise self._make_closed_error()

    def _make_closed_error(self) -> ClosedError:
        return ClosedError(f"this handle is closed; {self.closed}")

    def refuse_without_parent(self) -> None:
        """Raise `ClosedError` if the handle that this one was derived from is closed."""
        if self.parent is not None and self.parent.is_closed:
            raise ClosedError(f"the handle that this one was derived from is closed; {self.parent.closed}")

    @property
    def is_closed(self) -> bool:
        """Return whether a call is refused."""
        if self.parent is not None and self.parent.is_closed:
            return True
        return self.closed is not None and not self.lazy

    def mark_open(self, collection: str) -> None:
        """Record that the backend made a collection ready."""
        self.closed = None
        self.lazy = False
        self.calls.begin()
        self.ready.add(collection)

    def end_calls(self) -> None:
        """Let those under way be the last."""
        self.ready.clear()
        self.calls.end()

    async def refresh(self, collection: str) -> None:
        """Make earlier writes visible to searches by any handle."""
        if self.closed is not None or collection not in self.ready:
            await self.ensure_open(collection)
        await self.count(self.stack.run(Refresh(collection)))


class Stats(Value):
    """A snapshot of a handle's pool and layers, the same for all backends."""

    backend: str
    pool: PoolStats
    layers: dict[str, dict[str, float]]
    """The metrics of each layer, by the layer's name."""
