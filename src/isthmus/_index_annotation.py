"""What a model's annotation says about an index; imports no pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from isthmus._value import Value

IndexKind: TypeAlias = Literal["indexes", "prefix", "substring", "gin"]
Declarations: TypeAlias = Mapping[IndexKind, tuple[str, ...]]
"""The paths to index, by the kind of index."""


class Indexed(Value):
    """Declares an index in a typed collection's model: `age: Annotated[int, Indexed()]`.

    The kinds are those of PostgreSQL's settings. SQLite makes its one kind for `indexes` and
    `prefix`, and none for the others; a backend without indexes makes none.
    """

    kind: IndexKind = "indexes"
