"""What an error says about connections: that none can be made, or that the open ones are of no more use."""

from __future__ import annotations

import copy

from isthmus.errors import AccessError, ConnectError, IsthmusError, RateLimitedError, UnavailableError

# The server goes away (57P0x) or the way to it broke (08).
_FAILOVER = ("57P01", "57P02", "57P03", "08")
_READ_ONLY = "25006"
_STALE_PLAN = frozenset({"OutdatedSchemaCacheError", "InvalidCachedStatementError"})


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error or of what caused it, else an empty text."""
    seen: BaseException | None = error
    while seen is not None:
        state = getattr(seen, "sqlstate", None)
        if state:
            return str(state)
        seen = seen.__cause__
    return ""


def tells_failover(error: BaseException) -> bool:
    """Return whether the server has gone or is about to."""
    return sqlstate_of(error).startswith(_FAILOVER)


def tells_read_only(error: BaseException) -> bool:
    """Return whether the server refused a write as read-only."""
    return sqlstate_of(error) == _READ_ONLY


def tells_stale_plan(error: BaseException) -> bool:
    """Return whether a table changed under the statements that connections have prepared."""
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in _STALE_PLAN or "cached plan must not change" in str(seen):
            return True
        seen = seen.__cause__
    return False


def opening_failed(error: Exception) -> IsthmusError:
    """Return the error for those who waited for a connection that could not be made."""
    if isinstance(error, IsthmusError):
        return copy.copy(error)  # each who waited raises its own
    failed = _named(error)
    failed.__cause__ = error
    return failed


# psycopg passes on what libpq says while connecting without its SQLSTATE.
_SAID = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "too many clients": "53300",
    "remaining connection slots are reserved": "53300",
    "the database system is": "57P03",
    "is not currently accepting connections": "57P03",
}


def _state_while_connecting(error: Exception, text: str) -> str:
    state = sqlstate_of(error)
    if state:
        return state
    if "database" in text and "does not exist" in text:
        return "3D000"
    return next((said for words, said in _SAID.items() if words in text), "")


def _named(error: Exception) -> IsthmusError:
    text = str(error).strip() or type(error).__name__
    state = _state_while_connecting(error, text)
    if state.startswith("28"):
        return AccessError(f"the server refused the credentials: {text}; check `user` and `password`")
    if state == "3D000":
        return AccessError(f"{text}; check `database`, or create it")
    if state == "42501":
        return AccessError(f"the user may not connect: {text}")
    if state == "53300":
        return RateLimitedError(f"{text}; lower `pool.max_size` or raise the server's max_connections")
    if state.startswith(("57P", "53")):
        return UnavailableError(f"the server does not take connections now: {text}")
    if isinstance(error, TimeoutError):
        return ConnectError("no answer from the server within `connect_timeout`")
    return ConnectError(f"no connection could be made: {text}")
