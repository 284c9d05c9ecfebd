"""Names the operation in errors, next to the store."""

from __future__ import annotations

from typing import TypeVar

from isthmus._core.op import Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.errors import IsthmusError

R = TypeVar("R")


class Context(Layer):
    """Adds "while get on 'users' (postgres)" to an error's notes, which a traceback shows."""

    order = LayerOrder.CONTEXT
    in_transaction = True

    def __init__(self, backend: str) -> None:
        self._backend = backend

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation; add its name to the notes of an error."""
        try:
            return await call_next(op)
        except IsthmusError as error:
            error.add_note(f"while {op.name} on {op.collection!r} ({self._backend})")
            raise
