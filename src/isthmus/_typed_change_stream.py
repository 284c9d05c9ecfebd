"""The changes of a typed collection, with models for records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from pydantic import BaseModel

from isthmus._change_stream import ChangeStream
from isthmus._collection import Collection
from isthmus._model_codec import ModelCodec
from isthmus._model_paths import ModelPaths
from isthmus._typed_query import Where, resolve_where
from isthmus._typed_stream import OnInvalid, check_on_invalid
from isthmus.errors import InvalidRecordError

M = TypeVar("M", bound=BaseModel)


class TypedChangesMethods(Generic[M]):
    """The method that follows a collection of one model."""

    _codec: ModelCodec[M]
    _paths: ModelPaths
    untyped: Collection

    def changes(
        self,
        where: Where[M] | None = None,
        since: str = "now",
        poll: float = 1.0,
        *,
        on_invalid: OnInvalid = "raise",
    ) -> ChangeStream[M]:
        """Return every change of the collection as a stream without an end, with models for records.

        Parameters, promises, errors and cost are those of `Collection.changes`. A stored record that
        does not match the model is `InvalidRecordError`; the stream stays before it, and the next call
        reads it again. With `on_invalid` "skip" its change is left out, and a function is called with
        the error before that.
        """
        check_on_invalid(on_invalid)
        condition = None if where is None else resolve_where(where, self._paths)
        if isinstance(on_invalid, str):
            handler: Callable[[InvalidRecordError], object] | None = (
                None if on_invalid == "raise" else _ignore
            )
        else:
            handler = on_invalid
        return self.untyped._follow(condition, since, poll, self._codec.decode, handler)


def _ignore(error: InvalidRecordError) -> None:
    """Leave a record out."""
