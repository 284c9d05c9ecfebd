"""The files of one load as a storage of the files backend."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from isthmus.backends.files.catalog import File
from isthmus.backends.files.local import LocalStorage

R = TypeVar("R")


class InputStorage:
    """The files that a command names, from any folders, by the names that were given."""

    name = "input"

    def __init__(self) -> None:
        self._places: dict[str, tuple[LocalStorage, File]] = {}
        self._names: dict[str, str] = {}
        """The full name of each file."""
        self._opened: tuple[str, BinaryIO] | None = None
        """The file that was opened last."""

    def add(self, name: str, path: Path) -> None:
        """Add a file, or all that a folder or a pattern names; raises `OSError` if there is none."""
        if not path.exists() and not any(character in str(path) for character in "*?["):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        storage = LocalStorage(str(path))
        single = path.is_file()
        found = storage.list_files()
        if not found:
            raise FileNotFoundError(errno.ENOENT, "no such files", str(path))
        for file in sorted(found):
            key = name if single else f"{storage.name}: {file.key}"
            self._places[key] = storage, file
            full = path.resolve()
            self._names[key] = str(full if single else full / file.key)

    def bind(self, work: Callable[[], R]) -> Callable[[], R]:
        """Return work as it is: there is no connection of a loop."""
        return work

    async def close(self) -> None:
        """Do nothing: files are closed when they were read."""

    def list_files(self) -> list[File]:
        """Return the files in the order in which they were added."""
        return [File(key, file.size, file.version) for key, (_, file) in self._places.items()]

    def describe_files(self) -> list[dict[str, Any]]:
        """Return the full name, the size and the version of each file."""
        return [
            {"name": self._names[file.key], "size": file.size, "version": file.version}
            for file in self.list_files()
        ]

    def open(self, file: File) -> BinaryIO:
        """Open a file as it was listed."""
        storage, listed = self._places[file.key]
        stream = storage.open(listed)
        self._opened = file.key, stream
        return stream

    def find_share(self) -> float:
        """Return the share of the bytes of all files before the place that is read now."""
        total = sum(file.size for _, file in self._places.values())
        if self._opened is None or not total:
            return 0.0
        key, stream = self._opened
        keys = list(self._places)
        before = sum(self._places[name][1].size for name in keys[: keys.index(key)])
        here = self._places[key][1].size if stream.closed else stream.tell()
        return min(1.0, (before + here) / total)

    def check(self, file: File, stream: BinaryIO) -> None:
        """Raise `UnavailableError` if the file changed since it was opened."""
        storage, listed = self._places[file.key]
        storage.check(listed, stream)
