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
    unique=True,
)
UNIQUE_DIALECTS = ("sqlite", "mysql", "mariadb", "postgresql")
# Of other databases it is not known how their tables are locked while fields are declared.
OTHER_CAPABILITIES = replace(CAPABILITIES, unique=False)
# SQLite has one level, and a transaction that writes has the database to itself.
SQLITE_CAPABILITIES = replace(CAPABILITIES, isolation=frozenset({"serializable"}))


def capabilities_of(dialect: str) -> Capabilities:
    """Return what a database can do through this backend."""
    if dialect == "sqlite":
        return SQLITE_CAPABILITIES
    return CAPABILITIES if dialect in UNIQUE_DIALECTS else OTHER_CAPABILITIES
