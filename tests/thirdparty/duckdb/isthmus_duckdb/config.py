"""The settings: where the database is."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import SplitResult, unquote

from isthmus.spi import BackendConfig


class DuckDBConfig(BackendConfig):
    """A database and the default collection."""

    backend: ClassVar[str] = "duckdb"

    path: str = ":memory:"
    """A file; `:memory:` for a database of the handle's own, or `:memory:name` for one of the process."""
    table: str = "records"
    """The default collection."""

    def private_to_handle(self) -> bool:
        """Return whether no other handle can open the database."""
        return self.path == ":memory:"

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return `duckdb`."""
        return ("duckdb",)

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `duckdb:///var/lib/notes.duckdb?table=notes`; without a path, in memory."""
        path = unquote(url.netloc + url.path)
        return {**options, "path": path} if path else options
