"""Scopes: equalities that all records which a handle sees and writes have to satisfy (meaning §5)."""

from __future__ import annotations

from typing import Any

from isthmus._core.executor import Mutation
from isthmus._path import Path, Root
from isthmus._query.ast import And, Equal, Predicate
from isthmus._query.changes import FieldChange, apply_changes
from isthmus._query.lookup import value_in
from isthmus._query.query import Query, as_predicate
from isthmus._value import Value
from isthmus._values import JSON, Scalar, encode, same
from isthmus.errors import InvalidRecordError, QueryError

SETTING = "isthmus.scope"
"""The session variable with the scope's values as JSON."""


class Scope(Value):
    """Fields of the data and the value that each has to hold."""

    fields: tuple[tuple[Path, Scalar], ...]
    row_security: bool = False
    """Whether its transactions tell the store the scope, for policies of the store."""

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """The settings of its transactions."""
        if not self.row_security:
            return ()
        data: dict[str, Any] = {}
        for path, value in self.fields:
            _set_missing(data, path.keys, value)
        # Fields that contradict each other, as in nested scopes, are those of no record.
        return ((SETTING, encode(data).decode() if self.holds(data) else '"none"'),)

    @property
    def predicate(self) -> Predicate:
        """The condition that records of the scope satisfy."""
        return And(tuple(Equal(path, value) for path, value in self.fields))

    def holds(self, data: dict[str, JSON]) -> bool:
        """Return whether data holds exactly the scope's values, reached through objects only."""
        return all(same(value_in(data, path.keys), value) for path, value in self.fields)

    def check(self, data: dict[str, JSON]) -> None:
        """Raise `InvalidRecordError` for data that would leave the scope."""
        for path, value in self.fields:
            if not same(value_in(data, path.keys), value):
                raise InvalidRecordError(
                    f"data.{path}: a record of this scope has {value!r} here", path=f"data.{path}"
                )

    def complete(self, mutation: Mutation) -> Mutation:
        """Return the mutation of a whole record with the scope's values where it has none.

        Raises `InvalidRecordError` for a record that has others, or that cannot be stored.
        """
        data = mutation.decode()
        for path, value in self.fields:
            _set_missing(data, path.keys, value)
        self.check(data)
        completed = Mutation(mutation.id, None, None, mutation.if_version)
        completed.own_id = mutation.own_id
        completed.raw, completed.raw_metadata = encode(data), mutation.encode_metadata()
        return completed

    def is_left_by(self, changes: tuple[FieldChange, ...]) -> bool:
        """Return whether modifications make a record of this scope leave it."""
        data: dict[str, Any] = {}
        for path, value in self.fields:
            _set_missing(data, path.keys, value)
        touching = tuple(change for change in changes if self._touches(change.path))
        try:
            return not self.holds(apply_changes(data, touching))
        except InvalidRecordError:
            # The record itself refuses it, or holds a list there, which another handle has written:
            # an element may be what makes it one of this scope.
            return True

    def _touches(self, path: Path) -> bool:
        return any(
            path.keys[: len(scoped.keys)] == scoped.keys or scoped.keys[: len(path.keys)] == path.keys
            for scoped, _ in self.fields
        )


def narrow(outer: Scope | None, condition: Predicate | Query, *, row_security: bool = False) -> Scope:
    """Return the scope of a condition inside of another scope.

    Raises `QueryError` for anything but equalities of data fields with a number, text or bool.
    """
    fields = [] if outer is None else list(outer.fields)
    for term in _terms(as_predicate(condition)):
        if not isinstance(term, Equal) or isinstance(term.value, dict) or term.path.root is not Root.DATA:
            raise QueryError(
                "a scope is made of equalities of data fields with a number, text or bool, such as"
                " field('tenant') == 'a', joined by &"
            )
        if (term.path, term.value) not in fields:
            fields.append((term.path, term.value))
    if not fields:
        raise QueryError("a scope needs a condition such as field('tenant') == 'a'")
    return Scope(tuple(fields), row_security or (outer is not None and outer.row_security))


def _terms(predicate: Predicate) -> list[Predicate]:
    if isinstance(predicate, And):
        return [part for term in predicate.terms for part in _terms(term)]
    return [predicate]


def _set_missing(data: dict[str, Any], keys: tuple[str, ...], value: Scalar) -> None:
    """Set a value at keys through objects, unless there is one or something else is on the way."""
    *parents, last = keys
    for key in parents:
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if not isinstance(data, dict):
            return
    if data.get(last) is None:
        data[last] = value
