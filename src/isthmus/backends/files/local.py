"""Files on this machine; a version is a file's size and time of modification."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from isthmus.backends.files.catalog import File, R, compile_pattern, names_hidden, split_pattern
from isthmus.errors import AccessError, ConfigError, UnavailableError, UnexpectedError


class LocalStorage:
    """Lists and opens the files of a folder, of a pattern, or one file."""

    def __init__(self, location: str) -> None:
        path = Path(location)
        try:
            exists = path.exists()
        except OSError as error:  # a name that is too long, or a loop of links
            raise ConfigError(f"files: {location[:200]!r} cannot be opened: {error.strerror}") from None
        if exists:  # a name may have brackets
            self._base, self._pattern = str(path), None
        else:
            self._base, self._pattern = split_pattern(str(path))
        self.name = str(path)

    def bind(self, work: Callable[[], R]) -> Callable[[], R]:
        """Return the work itself."""
        return work

    async def close(self) -> None:
        """Do nothing: files are closed by their readers."""

    def list_files(self) -> list[File]:
        """Return the files; raises `ConfigError` if the folder or the file is missing."""
        base = Path(self._base)
        try:
            if self._pattern is None and base.is_file():
                return [_describe(base.name, base.stat())]
            if not base.is_dir():
                raise ConfigError(f"files: there is no folder or file {self._base!r}")
            return list(self._walk())
        except PermissionError as error:
            raise AccessError(f"files: {error.filename!r} cannot be listed: {error.strerror}") from None
        except FileNotFoundError as error:
            raise UnavailableError(
                f"files: {error.filename!r} was removed while the files were listed; start the call again"
            ) from None
        except OSError as error:
            raise UnexpectedError(f"files: {self._base!r} cannot be listed: {error}") from None

    def _walk(self) -> Iterator[File]:
        pattern = None if self._pattern is None else compile_pattern(self._pattern)
        depth = None
        if self._pattern is not None and "**" not in self._pattern.split("/"):
            depth = self._pattern.count("/")
        hidden = self._pattern is not None and names_hidden(self._pattern)
        folders = [("", 0)]
        while folders:
            prefix, level = folders.pop()
            with os.scandir(f"{self._base}/{prefix}") as entries:
                for entry in entries:
                    key = prefix + entry.name
                    if entry.name.startswith(".") and not hidden:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if depth is None or level < depth:
                            folders.append((f"{key}/", level + 1))
                    elif entry.is_file() and (pattern is None or pattern.fullmatch(key)):
                        yield _describe(key, entry.stat())

    def _path(self, file: File) -> str:
        if self._pattern is None and Path(self._base).is_file():
            return self._base
        return f"{self._base}/{file.key}"

    def open(self, file: File) -> BinaryIO:
        """Open a file as it was listed."""
        try:
            stream = open(self._path(file), "rb")  # noqa: SIM115, PTH123 - the reader closes it
        except FileNotFoundError:
            raise _change_error(file, "it is gone") from None
        except PermissionError as error:
            raise AccessError(f"files: {file.key!r} cannot be read: {error.strerror}") from None
        except OSError as error:
            raise UnexpectedError(f"files: {file.key!r} cannot be read: {error.strerror}") from None
        try:
            self.check(file, stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def check(self, file: File, stream: BinaryIO) -> None:
        """Raise `UnavailableError` if the open file is no longer as it was listed."""
        status = os.fstat(stream.fileno())
        if _describe(file.key, status).version != file.version:
            raise _change_error(file, f"its size was {file.size:,} bytes and is {status.st_size:,}")


def _describe(key: str, status: os.stat_result) -> File:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"files: the name {os.fsencode(key)!r} is not UTF-8; rename the file") from None
    return File(key, status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _change_error(file: File, how: str) -> UnavailableError:
    return UnavailableError(
        f"files: {file.key!r} changed while it was read ({how}); start the call again", transient=False
    )
