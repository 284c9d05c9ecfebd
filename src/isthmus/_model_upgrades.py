"""Models that grow: functions that turn a record of an older schema into one of today's."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from isthmus._arguments import shorten
from isthmus._path import Path, Root
from isthmus._query.ast import Equal, Predicate
from isthmus._record import Record
from isthmus._record import project as with_data
from isthmus.errors import ConfigError, InvalidRecordError, UnsupportedError

Upgrade: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
U = TypeVar("U", bound=Upgrade)

_MARK = "_isthmus_schema"
_WRAPPERS = (staticmethod, classmethod)
SCHEMA_KEY = "schema"
"""The metadata key that holds a record's schema number."""


def upgrade(schema: int) -> Callable[[U], U]:
    """Mark a static method of a model as the upgrade from schema `schema` to the next.

    The function takes the data of a record, a copy that it may change, and returns the data of the
    next schema; the id is not part of it. The first schema is 1. The order of the two decorators is
    free. Raises `ConfigError` for a number that is no integer from 1 on.

    ```python
    class Person(BaseModel):
        first: str
        last: str

        @staticmethod
        @upgrade(1)
        def split_name(data: dict[str, Any]) -> dict[str, Any]:
            first, _, last = data.pop("name").partition(" ")
            return {**data, "first": first, "last": last}
    ```
    """

    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise ConfigError(f"upgrade() takes the number of a schema, 1 or more, got {shorten(schema)}")

    def mark(function: U) -> U:
        # A decorator above @staticmethod gets its object, which is not what the class is asked for later.
        setattr(function.__func__ if isinstance(function, _WRAPPERS) else function, _MARK, schema)
        return function

    return mark


class ModelUpgrades:
    """The upgrades of one model. A model without any has no schema number.

    Raises `ConfigError` for numbers that are not 1, 2, 3 … without a gap.
    """

    def __init__(self, model: type, key: str) -> None:
        self.key = key
        self._name = model.__name__
        self._functions = _find_upgrades(model)
        self.schema = len(self._functions) + 1 if self._functions else None
        """The number of today's schema; None for a model without upgrades."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of a record that the model writes."""
        return {} if self.schema is None else {self.key: self.schema}

    @property
    def current(self) -> Predicate:
        """The condition that a record is of today's schema."""
        assert self.schema is not None
        return Equal(Path(Root.METADATA, (self.key,)), self.schema)

    def check_store(self, config: object) -> None:
        """Raise `UnsupportedError` for a store without metadata: files, and tables or indices of others."""
        bare = getattr(config, "layout", None) == "native" or getattr(config, "backend", None) == "files"
        if bare and self.schema is not None:
            raise UnsupportedError(
                f"{self._name} has upgrade functions: files and native layouts keep no schema number",
                capability="metadata",
            )

    def is_old(self, record: Record) -> bool:
        """Return whether the record is of an older schema; raises `InvalidRecordError` as `apply` does."""
        return self.schema is not None and self._number(record, self.schema) < self.schema

    def apply(self, record: Record) -> Record:
        """Return the record with data of today's schema; the same record if it is.

        Raises `InvalidRecordError` if a function fails, or the record is of a newer schema.
        """
        if self.schema is None:
            return record
        number = self._number(record, self.schema)
        if number == self.schema:
            return record
        data: Any = copy.deepcopy(record.data)
        for schema in range(number, self.schema):
            try:
                data = self._functions[schema - 1](data)
            except Exception as error:
                # Whatever a function of the application raises is a fault of this one record.
                raise _invalid(record, f"schema {schema}: {type(error).__name__}: {error}") from error
            if not isinstance(data, Mapping):
                raise _invalid(record, f"schema {schema}: returned {type(data).__name__}, no dict")
        return with_data(record, dict(data))

    def _number(self, record: Record, newest: int) -> int:
        number = record.metadata.get(self.key, 1)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise _invalid(record, f"metadata {self.key!r} is no schema number: {number!r}")
        if number > newest:
            raise _invalid(record, f"schema {number} is newer than this model's, {newest}")
        return number


def _invalid(record: Record, text: str) -> InvalidRecordError:
    error = InvalidRecordError(
        f"record {record.id!r} cannot be upgraded: {text}", path="data", record_id=record.id
    )
    error.stored = True
    return error


def _takes_data(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind({})
    except TypeError:
        return False
    return True


def _find_upgrades(model: type) -> list[Upgrade]:
    found: dict[int, Upgrade] = {}
    for owner in reversed(model.__mro__):
        own: dict[int, Upgrade] = {}
        for name, value in vars(owner).items():
            function: Any = value.__func__ if isinstance(value, _WRAPPERS) else value
            schema = getattr(function, _MARK, None)
            if schema is None:
                continue
            if schema in own:
                raise ConfigError(f"{model.__name__}: two upgrades from schema {schema}")
            if isinstance(value, classmethod) or not _takes_data(function):
                raise ConfigError(
                    f"{model.__name__}.{name}: an upgrade is a static method of the record's data; "
                    "write @staticmethod, and one parameter"
                )
            own[schema] = function
        found.update(own)
    numbers = sorted(found)
    if numbers != list(range(1, len(numbers) + 1)):
        raise ConfigError(f"{model.__name__}: upgrades are from schema 1 on without a gap, got {numbers}")
    return [found[number] for number in numbers]
