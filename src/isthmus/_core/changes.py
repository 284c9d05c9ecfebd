"""Changes of a collection (meaning §10): positions, pages, and the optional protocol of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from isthmus._record import Record
from isthmus._value import Value
from isthmus.errors import ChangesExpiredError, ConfigError, QueryError, UnsupportedError

KEEP_SECONDS = 7 * 86_400.0
"""How long changes are kept by default."""


class Position(Value):
    """Where a reader of changes is; users get it as text."""

    source: str
    """Names the history: another server, another making or declaration of the collection, another text."""
    place: str
    """The store's own text for a place among the changes: those up to it have been read."""
    after: str | None = None
    """While the records that were there at `place` are read, the id of the last one; empty at first."""
    seen: str | None = None
    """The place up to which those records may have had changes, until they were all read; the core's."""


class StoredChange(Value):
    """One change as a store gives it: the record as it is now, None if it is gone."""

    id: str
    record: Record | None
    order: int | None
    """Greater for each later write of the id; None where a native table has no number for the record."""
    place: str = ""
    """Where a reader goes on who has this change and those before it; empty from `read_records`."""


class ChangePage(Value):
    """Changes in the order of their places, for one id in the order of its writes."""

    changes: Sequence[StoredChange]
    position: Position
    """Where the next page begins."""
    caught_up: bool
    """Whether there was nothing more when the page was read; False asks for the next page at once."""
    held_by: str | None = None
    """Whose transaction keeps changes that were committed from being read; None if nothing waits."""


class HeldChanges(Value):
    """Changes that were committed and cannot be read yet."""

    count: int
    """How many statements' changes wait; counted up to a bound of the store."""
    bound: str
    """The store's text for what they wait for: another text, another transaction."""
    holder: str
    """Whose transaction it is, in words."""
    fix: str
    """What ends it."""


@runtime_checkable
class SupportsChanges(Protocol):
    """A backend that keeps changes; the capability `changes` is true.

    A collection has changes once it was declared in the store: by a config with `changes=True` when
    the collection is made, or by `make_changes`. Connecting with `changes=True` to a collection that
    has records and no declaration raises `missing_changes`. The history of a collection starts over,
    with another `source`, when it was dropped and made again, and when its declaration was ended and
    made again.
    """

    async def changes_position(self, collection: str) -> Position:
        """Return the position of now: the changes of every write that returned earlier are before it.

        Every write that is not seen by a read that begins now has its change after it. Raises
        `missing_changes` for a collection without the declaration.
        """
        ...

    async def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return at most `limit` changes after a position; fewer, or none, does not mean caught up.

        A change is not skipped even if a transaction that began earlier commits later. Several
        changes of one id may come as its last one. Raises `ChangesExpiredError`: `other_source` for
        a position of another source, `pruning_error` if changes after it are gone.
        """
        ...

    async def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[Sequence[StoredChange], bool]:
        """Return at most `limit` records after the id `position.after`, and whether there may be more.

        If there may be more there is at least one. They come in any order that is total over ids, in
        which a record keeps its place whatever is written meanwhile. Raises `ChangesExpiredError` as
        `read_changes` does.
        """
        ...

    async def wait_for_changes(self, collection: str, position: Position, seconds: float) -> None:
        """Return when there may be changes after a position, at the latest after `seconds`.

        A store that cannot tell sleeps. Not passed through layers; may be cancelled at any time.
        """
        ...

    async def make_changes(self, collection: str) -> None:
        """Declare changes in a collection that may have records, while writers wait; idempotent."""
        ...

    async def end_changes(self, collection: str) -> None:
        """End the declaration and remove the changes that were kept; a missing one is not an error."""
        ...


@runtime_checkable
class SupportsHeldChanges(Protocol):
    """A backend whose readers of changes wait for transactions of others."""

    async def find_held_changes(self, collection: str) -> HeldChanges | None:
        """Return what cannot be read yet, with a count of 0 if all can; None without changes."""
        ...


@runtime_checkable
class SupportsChangeStatements(Protocol):
    """A backend of tables that others made, whose owners create what changes need."""

    async def change_statements(self, collection: str) -> list[str]:
        """Return the statements by which a table's owner lets it keep its changes."""
        ...


def supporting_changes(executor: object) -> SupportsChanges:
    """Return an executor that keeps changes; raises `UnsupportedError` for another one."""
    if not isinstance(executor, SupportsChanges):
        raise no_changes("this backend")
    return executor


def no_changes(backend: str) -> UnsupportedError:
    """Return the error of a backend, or a layout of one, without changes."""
    return UnsupportedError(
        f"{backend} has no changes: what is deleted there leaves nothing behind that a reader could find",
        capability="changes",
    )


def parse_number(text: str) -> int:
    """Return a number of a place, below 2**63; raises `QueryError` for any other text."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63):
        raise not_a_position()
    return int(text)


def not_a_position() -> QueryError:
    """Return the error of a text that no change had as its position."""
    return QueryError("since: this is not the position of a change, or it was changed")


def missing_changes(collection: str) -> ConfigError:
    """Return the error of a collection that has records and keeps no changes yet."""
    return ConfigError(
        f"the collection {collection!r} keeps no changes yet; make it with changes=True, or declare them"
        " with `isthmus index URL --changes`. It then has format 2, which isthmus 0.1.0 refuses"
    )


def other_source(collection: str) -> ChangesExpiredError:
    """Return the error of a position of another server, or of a collection that was made again."""
    return ChangesExpiredError(
        f"the position is not of this {collection!r}: it belongs to another store or collection, or to"
        ' one that was dropped, restored or failed over since; begin again with since="start"'
    )


def pruning_error(collection: str) -> ChangesExpiredError:
    """Return the error of a position whose next changes are gone."""
    return ChangesExpiredError(
        f"changes of {collection!r} after this position are older than changes_keep and were pruned;"
        ' begin again with since="start"'
    )
