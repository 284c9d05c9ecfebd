"""Row security: the policy that `db.scope(…, row_security=True)` is for."""

from __future__ import annotations

from isthmus._scope import SETTING
from isthmus.backends.postgres.sql.statement import literal
from isthmus.backends.postgres.sql.table import Table

POLICY = "isthmus_scope"
# Once a transaction has set it, the setting is empty in the later ones of the connection, not missing.
_HOLDS = f"data @> NULLIF(current_setting({literal(SETTING)}, true), '')::jsonb"


def row_security_statements(table: Table) -> list[str]:
    """Return the statements by which a connection sees the rows of its setting's scope only, or none.

    The owner of the table is bound by it too; superusers and roles with BYPASSRLS are not.
    """
    return [
        f"ALTER TABLE {table.sql} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table.sql} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {table.sql}",
        f"CREATE POLICY {POLICY} ON {table.sql} USING ({_HOLDS}) WITH CHECK ({_HOLDS})",
    ]


def is_active(table: Table) -> str:
    """Return the select of whether row security binds the current role on a table."""
    return f"SELECT row_security_active({literal(table.sql)}::regclass)"
