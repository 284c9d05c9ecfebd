"""Optional protocols of backends, their executors and their transactions."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from isthmus._index_annotation import Declarations
from isthmus.errors import SerializationError


@runtime_checkable
class SupportsDrop(Protocol):
    """A backend that can drop a collection; the capability `drop` is true."""

    async def drop(self, collection: str) -> None:
        """Delete a collection with all that belongs to it; a missing one is not an error.

        Open handles create it again at their next write.
        """
        ...


@runtime_checkable
class SupportsTerminate(Protocol):
    """A backend that can drop its connections: for `db.terminate()`, and a `close` that takes too long."""

    def terminate(self) -> None:
        """Drop the connections of all loops without waiting, those of a `close` under way too."""
        ...


@runtime_checkable
class SupportsIndexes(Protocol):
    """A backend that takes the declarations of typed models.

    Needed with the capabilities `indexes`, `unique` and `columns`: without it declarations are ignored.
    """

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Record what the next opening of the collection makes; return whether any of it is new.

        `indexes` maps a kind to dotted paths: `indexes`, `prefix`, `substring` and `gin` are indexes,
        each path of `unique` is a unique field, and `number_columns`, `text_columns` and
        `bool_columns` are declared columns. Kinds of indexes that the store lacks are ignored.
        """
        ...


@runtime_checkable
class SortsIds(Protocol):
    """A `Support` of a collection whose ids do not sort as texts, such as the numbers of a table's key."""

    def id_key(self, id: str) -> Any:
        """Return what an id sorts by."""
        ...


@runtime_checkable
class DescribesCollections(Protocol):
    """A transaction whose store has to look at a collection before an operation on it can be planned."""

    async def describe(self, collection: str) -> None:
        """Read what `support` needs to know of a collection; cheap if it is known."""
        ...


@runtime_checkable
class SupportsNativeSQL(Protocol):
    """A transaction that lends its connection for SQL of the user, whose errors are the driver's."""

    def conflict_of(self, error: Exception) -> SerializationError | None:
        """Return the isthmus error for a driver's error that another transaction caused; else None."""
        ...


@runtime_checkable
class SupportsSplit(Protocol):
    """A backend that knows at which records its collection is divided best, such as where files begin."""

    async def split(self, collection: str, count: int) -> list[tuple[str, Any]] | None:
        """Return up to `count - 1` ids in increasing order, at which parts end.

        With each id comes what helps a worker to read the part after it, for `resume`: plain data that
        can be pickled. None if the caller has to find ids itself.
        """
        ...

    async def resume(self, collection: str, hint: Any) -> None:
        """Take over what `split` found in another process.

        Raises `UnavailableError` if the collection is not what was split.
        """
        ...
