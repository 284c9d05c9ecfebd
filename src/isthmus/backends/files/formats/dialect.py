"""The settings that decide how files are read, and where reading may begin again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from isthmus.backends.files.config import FilesConfig, Kind


class Dialect(NamedTuple):
    """Settings of formats, as in `FilesConfig`; hashable, so that findings are kept by it."""

    delimiter: str | None = None
    encoding: str | None = None
    header: bool | tuple[str, ...] = True
    null: frozenset[str] = frozenset()
    types: Literal["text"] | tuple[tuple[str, Kind], ...] = ()
    path: tuple[str, ...] | None = None
    zone: str | None = None
    round: bool = False
    records: bool = False

    @classmethod
    def of(cls, config: FilesConfig) -> Dialect:
        """Return the dialect of a config."""
        types = config.types if isinstance(config.types, str) else tuple(sorted(config.types.items()))
        return cls(
            delimiter=config.delimiter,
            encoding=config.encoding,
            header=config.header,
            null=frozenset(config.null),
            types=types,
            path=None if config.path is None else tuple(config.path.split(".")),
            zone=config.zone,
            round=config.round,
            records=config.records,
        )

    @property
    def forced(self) -> Mapping[str, Kind]:
        """The types that the settings give to columns."""
        return {} if isinstance(self.types, str) else dict(self.types)

    @property
    def all_text(self) -> bool:
        """Whether every cell of CSV stays text."""
        return self.records or self.types == "text"


class Checkpoint(NamedTuple):
    """Where reading a text file may begin: the next row, its offset in the decompressed bytes, its line."""

    row: int = 0
    offset: int = 0
    line: int = 1
    state: Any = None
    """What else the format needs to go on."""


START = Checkpoint()
