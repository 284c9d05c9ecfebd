"""Opens a span around each call, by a function given in the config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

from isthmus._core.op import Modify, Op, Read, Write
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._value import Value
from isthmus.errors import IsthmusError

R = TypeVar("R")


class Call(Value):
    """The attributes of a span: names and sizes only, never the user's values."""

    backend: str
    collection: str
    operation: str
    size: int | None
    """The number of ids or records, for get and the writes."""


Spans: TypeAlias = "Callable[[Call], AbstractContextManager[Any]]"
"""Returns a span: entered before the call and left after it, with the exception if it failed.

If entering returns a callable, it is called with the number of failed items of a batch by class.
"""


class Trace(Layer):
    """Runs each operation within a span; `isthmus.integrations.otel.spans` makes OpenTelemetry's.

    The span is entered in the caller's task, so that a library which keeps the current span in a
    context variable finds its parent.
    """

    order = LayerOrder.TRACE
    in_transaction = True

    def __init__(self, *, spans: Spans, backend: str) -> None:
        self._spans = spans
        self._backend = backend

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation within its span."""
        size = _size(op)
        with self._spans(Call(self._backend, op.collection, op.name, size)) as record_failures:
            result: R = await call_next(op)
            if isinstance(op, Write | Modify) and isinstance(result, list) and callable(record_failures):
                failed = Counter(type(item).__name__ for item in result if isinstance(item, IsthmusError))
                if failed:
                    record_failures(failed)
            return result


def _size(op: Op[R]) -> int | None:
    match op:
        case Write():
            return len(op.mutations)
        case Modify():
            return len(op.modifications)
        case Read():
            return len(op.ids)
    return None
