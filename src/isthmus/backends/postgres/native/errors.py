"""What a native table refuses, as errors of records: constraints, triggers, values out of range."""

from __future__ import annotations

from isthmus.backends.postgres.errors import sqlstate_of
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.errors import AlreadyExistsError, InvalidRecordError, RecordError

_UNIQUE, _FOREIGN_KEY = "23505", "23503"
# Values, constraints and PL/pgSQL; an identity that is always generated, a view's check option, and a value
# that an index has no room for.
_CLASSES = ("22", "23", "P0")
_STATES = ("428C9", "44000", "0A000", "54000")
# The server's functions that raise what a trigger says, under any state, and what a row's policy says.
_SOURCES = ("exec_stmt_raise", "exec_stmt_assert", "ExecWithCheckOptions")


def is_refusal(error: BaseException) -> bool:
    """Return whether the server refused the row of a statement, not the statement."""
    state = sqlstate_of(error)
    if state[:2] in _CLASSES or state in _STATES:
        return True
    return state[:2] != "40" and _diagnostic(error, "source_function") in _SOURCES


def is_unique_refusal(error: BaseException) -> bool:
    """Return whether a value that has to be unique is taken."""
    return sqlstate_of(error) == _UNIQUE


def refusal_of(error: BaseException, table: NativeTable, id: str | None) -> RecordError:
    """Return the error of a row that the table refused; it names the constraint, or the column."""
    constraint, column = _diagnostic(error, "constraint_name"), _diagnostic(error, "column_name")
    text = str(error).strip().splitlines()[0]
    if is_unique_refusal(error):
        clash = AlreadyExistsError(
            f"{text}: another row has the same value under the unique constraint {constraint!r}",
            record_id=None,
        )
        clash.field = ", ".join(table.unique.get(constraint, ())) or constraint
        return clash
    path = f"data.{column}" if column else "data"
    named = f" (constraint {constraint!r})" if constraint and constraint not in text else ""
    return InvalidRecordError(
        f"the table {table.name!r} refuses the record: {text}{named}", path=path, record_id=id
    )


def _diagnostic(error: BaseException, name: str) -> str:
    """Return a field of the server's message: asyncpg's attribute, or psycopg's `diag`."""
    cause: BaseException | None = error
    while cause is not None:
        value = getattr(cause, name, None) or getattr(cause, f"server_{name}", None)
        value = value or getattr(getattr(cause, "diag", None), name, None)
        if value:
            return str(value)
        cause = cause.__cause__
    return ""
