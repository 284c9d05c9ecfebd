"""Where a collection is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from isthmus.backends.postgres.indexes import Declared
from isthmus.backends.postgres.sql.statement import quoted


@dataclass(frozen=True, slots=True)
class Table:
    """One collection: its table and its indexes."""

    schema: str
    name: str
    declared: Declared
    sql: str = field(init=False)
    """The table's name in statements."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sql", f"{quoted(self.schema)}.{quoted(self.name)}")
