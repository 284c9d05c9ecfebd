"""Capabilities: what a backend can do, as plain data; an absent one is refused by name."""

from __future__ import annotations

from isthmus._value import Value


class Capabilities(Value):
    """Frozen, false by default but for `writes`; each field is tested for true and for its refusal."""

    writes: bool = True
    """Records can be written; the one field that is true by default, since few stores are read-only."""
    durable: bool = False
    """A write that returned survives SIGKILL of the store."""
    transactions: bool = False
    savepoints: bool = False
    isolation: frozenset[str] = frozenset()
    """Of `read committed`, `repeatable read`, `serializable`."""
    for_update: bool = False
    """Rows can be locked by a read in a transaction."""
    atomic_batch: bool = False
    """A batch is all or nothing by default."""
    conditional_create: bool = False
    """`create` refuses an id that exists, concurrent creates included."""
    compare_and_set: bool = False
    """`if_version` is checked by the store, atomically with the write."""
    delete_where: bool = False
    """Deleting by an exact predicate is one native request."""
    modify: bool = False
    """A modification is one native request; elsewhere the core reads, and writes by compare-and-set."""
    consistent_stream: bool = False
    """`stream(consistent=True)` reads one snapshot."""
    relevance: bool = False
    """`match()`, order by `_score`, `hits()` with highlights."""
    vectors: bool = False
    """`nearest()`, by vectors."""
    unique: bool = False
    """Declared unique fields, kept in the store and checked for every handle."""
    changes: bool = False
    """`changes()` gives every committed change of a collection, for a config with `changes=True`."""
    indexes: bool = False
    """Declared indexes make filters and sorts fast."""
    columns: bool = False
    """Declared fields have a typed column: `columns={"population": "number"}`."""
    drop: bool = False
    """`drop_collection()` deletes a collection with all that belongs to it."""
    row_security: bool = False
    """The store itself confines a scope's transactions, by policies: `db.scope(…, row_security=True)`."""
    max_record_bytes: int | None = None
    """The largest encoded record, if the store has a limit."""

    def non_defaults(self) -> dict[str, object]:
        """Return the fields that are not at their defaults."""
        plain = Capabilities()
        return {name: mine for name in self._fields if (mine := getattr(self, name)) != getattr(plain, name)}
