"""What SQL databases can do through this backend; imports no driver."""

from __future__ import annotations

from isthmus._core.capabilities import Capabilities
from isthmus._value import replace

CAPABILITIES = Capabilities(
    durable=True,
    transactions=True,
    savepoints=True,
    isolation=frozenset({"read committed", "repeatable read", "serializable"}),
    for_update=True,
    atomic_batch=True,
    conditional_create=True,
    compare_and_set=True,
    drop=True,
)
# SQLite has one level, and a transaction that writes has the database to itself.
SQLITE_CAPABILITIES = replace(CAPABILITIES, isolation=frozenset({"serializable"}))
