"""The declaration of the field that carries a record's version; imports no pydantic."""

from __future__ import annotations

from isthmus._value import Value


class Version(Value):
    """Declares the field of a model that carries the record's version.

    `version: Annotated[str | None, Version()] = None`. It is filled when a record is read and is not
    stored in the data. `replace` and `upsert` of a model that carries a version are compare-and-set.
    """
