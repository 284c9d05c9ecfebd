"""Index declarations in the annotations of models; imports no pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from isthmus._value import Value

IndexKind: TypeAlias = Literal[
    "indexes", "prefix", "substring", "gin", "unique", "number_columns", "text_columns", "bool_columns"
]
Declarations: TypeAlias = Mapping[IndexKind, tuple[str, ...]]
"""The paths to index, by kind of index."""


class Indexed(Value):
    """Declares an index in the model of a typed collection: `age: Annotated[int, Indexed()]`.

    `kind` is one of PostgreSQL's index settings. SQLite creates the same index for `indexes` and
    `prefix` and none for the other kinds; backends without indexes ignore it.

    `unique=True` declares in addition that no two records have the same value there; a backend
    without unique fields refuses the model.

    `column=True` declares a typed column of the field besides, of the kind of its annotation; a backend
    without declared columns refuses the model. `Indexed(None, column=True)` declares the column alone.
    """

    kind: IndexKind | None = "indexes"
    unique: bool = False
    column: bool = False
