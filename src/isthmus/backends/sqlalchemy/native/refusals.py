"""Errors of records that a table refuses, naming the constraint: keys, checks, triggers, values."""

from __future__ import annotations

import re

from isthmus._core.apply import already_exists
from isthmus.backends.sqlalchemy.errors import codes_of, first_line
from isthmus.backends.sqlalchemy.native.table import ReflectedTable
from isthmus.errors import AlreadyExistsError, InvalidRecordError, RecordError
from sqlalchemy import exc

# Error numbers of MySQL and MariaDB.
_UNIQUE = {1062, 1169, 1586, 1761, 1762}
_REFUSED = {
    *(1048, 1263, 1364),  # NULL, no default
    *(1264, 1265, 1292, 1366, 1367, 1406, 1411, 1416, 1690),  # a value that is too long, or none of the type
    *(3819, 4025),  # checks
    *(1216, 1217, 1451, 1452),  # foreign keys
    *(1369, 1643, 1644),  # a view's check option, what a trigger signals
    *(1906, 3105),  # a value for a generated column
}
# The server has no numbers above this: a trigger's SIGNAL gave it.
_SIGNALLED = 5_000
_KEY = re.compile(r"for key '(?:.*\.)?([^']+)'")
_CONSTRAINT = re.compile(r"CONSTRAINT [`'\"]?([^`'\"]+)[`'\"]?|constraint '([^']+)'", re.IGNORECASE)
_COLUMN = re.compile(r"[Cc]olumn '?`?(?:[^`']*`\.`)?([^`']+)[`']")


def is_refusal(error: exc.DBAPIError) -> bool:
    """Return whether the store refused the row of a statement, not the statement."""
    codes = codes_of(error)
    by_signal = any(isinstance(code, int) and code >= _SIGNALLED for code in codes)
    return by_signal or bool(codes & (_UNIQUE | _REFUSED)) or isinstance(error, exc.IntegrityError)


def is_unique_refusal(error: exc.DBAPIError) -> bool:
    """Return whether a value that has to be unique is taken."""
    return bool(codes_of(error) & _UNIQUE)


def refusal_of(error: exc.DBAPIError, table: ReflectedTable, id: str | None, *, creates: bool) -> RecordError:
    """Return the error of a row that the table refused; it names the constraint, or the column."""
    text = _message(error)
    if is_unique_refusal(error):
        found = _KEY.search(text)
        index = found[1] if found is not None else ""
        if creates and id is not None and index == "PRIMARY":
            return already_exists(id)
        clash = AlreadyExistsError(
            f"another row has the same value under the unique constraint {index!r}", record_id=None
        )
        clash.field = ", ".join(table.unique.get(index, ())) or index
        return clash
    named = _CONSTRAINT.search(text)
    constraint = (named[1] or named[2]) if named is not None else ""
    column = _COLUMN.search(text)
    path = f"data.{column[1]}" if column is not None and column[1] in table.by_name else "data"
    shown = f" (constraint {constraint!r})" if constraint and constraint not in text[:200] else ""
    return InvalidRecordError(
        f"the table {table.name!r} refuses the record: {text[:200]}{shown}", path=path, record_id=id
    )


def _message(error: exc.DBAPIError) -> str:
    """Return the server's message without its number."""
    arguments: tuple[object, ...] = getattr(error.orig, "args", ())
    texts = [argument for argument in arguments[1:2] if isinstance(argument, str)]
    return texts[0] if texts else first_line(error.orig)
