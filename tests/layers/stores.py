"""A store for tests of layers: memory, whose next answers can be scripted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from isthmus._core.executor import Executor, Mutation, WriteKind
from isthmus._core.op import Op, Read, Write
from isthmus._core.stack import Layer, LayerOrder, Next, Stack
from isthmus.backends.memory.backend import MemoryBackend
from isthmus.backends.memory.config import MemoryConfig
from isthmus.errors import Applied, ConnectError, UnavailableError

R = TypeVar("R")
Step = Callable[[Op[Any], Next], Awaitable[Any]]


class Scripted(Layer):
    """Answers each attempt by the next step of a script; afterwards the store answers."""

    order = LayerOrder.CONTEXT

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.attempts: list[Op[Any]] = []

    async def handle(self, op: Op[Any], call_next: Next, /) -> Any:
        """Run one step."""
        self.attempts.append(op)
        if self.steps:
            return await self.steps.pop(0)(op, call_next)
        return await call_next(op)


async def refused(op: Op[Any], call_next: Next) -> Any:
    """Fail before anything was sent."""
    raise ConnectError("refused")


async def lost(op: Op[Any], call_next: Next) -> Any:
    """Fail after it was done: the answer is lost."""
    await call_next(op)
    raise UnavailableError("cut", applied=Applied.MAYBE)


async def lost_before(op: Op[Any], call_next: Next) -> Any:
    """Fail before it was done, without anybody knowing."""
    raise UnavailableError("cut", applied=Applied.MAYBE)


def memory() -> MemoryBackend:
    """Return an empty store."""
    return MemoryBackend(MemoryConfig.load({}, environ={}))


def stack(*layers: Layer, executor: Executor | None = None) -> Stack:
    """Return layers on a store."""
    return Stack(layers, executor or memory())


READ = Read("records", ("a",))


def create(*ids: str, own: bool = False, atomic: bool = False) -> Write:
    """Return the creation of records with these ids."""
    return Write("records", WriteKind.CREATE, mutations(ids, own=own), atomic)


def mutations(ids: Sequence[str], *, own: bool = False, if_version: str | None = None) -> list[Mutation]:
    """Return one change for each id."""
    result = [Mutation(id, {"id": id}, None, if_version) for id in ids]
    for change in result:
        change.own_id = own
    return result
