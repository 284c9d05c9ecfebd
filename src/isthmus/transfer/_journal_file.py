"""An append-only file of JSON lines that survives a kill: what journals of copies and loads are made of."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from isthmus import ConfigError, UsageError

_FORMAT = 1


class JournalFile:
    """JSON lines, each flushed to disk before `append` returns.

    The first line is the header: the kind of run ("copy"), what identifies it, and what else it
    keeps. A last line that was cut off by a crash is dropped. The file is locked: only one run at a
    time can use it.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        self._path = Path(path)
        self._kind = kind
        self._mark = f"isthmus_{kind}"
        self._file: IO[bytes] | None = None
        # A cancelled copy closes the journal while a thread may still be writing to it.
        self._lock = threading.Lock()
        self._closed = False

    def open(
        self, identity: Mapping[str, Any], *, resume: bool, kept: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Open and lock the file; return its header and the entries of earlier runs.

        A new file gets a header of `identity`, which later runs must have in common, and `kept`.
        Raises `ConfigError` if the file is damaged or belongs to another run, `UsageError` if
        another process uses it, or if it has entries and `resume` is false.
        """
        identity, kept = escape_names(identity), escape_names(kept or {})
        with self._lock:
            if self._closed:
                return {}, []
            try:
                # Unbuffered: a line that a full disk refused is not tried again on closing.
                self._file = self._path.open("a+b", buffering=0)
            except OSError as error:
                raise ConfigError(f"journal {self._path}: {error.strerror}") from error
            _lock(self._file, self._path, self._kind)
            return self._load(self._file, identity, kept, resume=resume)

    def _load(
        self, file: IO[bytes], identity: Mapping[str, Any], kept: Mapping[str, Any], *, resume: bool
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        file.seek(0)
        text = file.read()
        whole, _, cut = text.rpartition(b"\n")  # a crash may have cut off the last line
        lines = whole.split(b"\n") if whole else []
        start = orjson.dumps({self._mark: _FORMAT})[:-1]
        if not lines and not (cut.startswith(start) or start.startswith(cut)):
            raise self._make_foreign_error()
        header = self._parse_header(lines[0]) if lines else {self._mark: _FORMAT, **identity, **kept}
        self.check_identity(header, identity)
        if not resume and len(lines) > 1:
            raise UsageError(
                f"journal {self._path}: already holds a {self._kind}; resume it, or remove the file"
            )
        # Only now: a file that is no journal, or another run's, stays as it is.
        if cut:
            file.truncate(len(text) - len(cut))
            os.fsync(file.fileno())
        if not lines:
            self._write_line(header)
            _sync_directory(self._path)
        return header, [self._parse_entry(number, line) for number, line in enumerate(lines[1:], 2)]

    def _parse_header(self, line: bytes) -> dict[str, Any]:
        try:
            header: dict[str, Any] = orjson.loads(line)
            version = header[self._mark]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise self._make_foreign_error() from None
        if version != _FORMAT:
            raise ConfigError(f"journal {self._path}: format {version} is not supported by this version")
        return header

    def _make_foreign_error(self) -> ConfigError:
        return ConfigError(f"journal {self._path}: not the journal of a {self._kind}")

    def check_identity(self, header: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if the header is that of another run."""
        for key, value in identity.items():
            other = header.get(key)
            if other == value:
                continue
            if isinstance(other, Mapping) and isinstance(value, Mapping):
                key = next(name for name in [*value, *other] if value.get(name) != other.get(name))
                other, value = other.get(key), value.get(key)
            raise ConfigError(
                f"journal {self._path}: belongs to another {self._kind}: its {key} is {_show(other)},"
                f" this {self._kind}'s is {_show(value)}"
            )

    def _parse_entry(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            entry = None
        if not isinstance(entry, dict):
            raise self.damage(number)
        return entry

    def damage(self, number: int) -> ConfigError:
        """Return the error of a line that cannot be read."""
        return ConfigError(f"journal {self._path}: line {number} is damaged")

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append an entry; it is on disk when this returns. A closed journal stays as it is."""
        with self._lock:
            if not self._closed:
                self._write_line(entry)

    def _write_line(self, entry: Mapping[str, Any]) -> None:
        assert self._file is not None
        try:
            line = orjson.dumps(entry)
        except TypeError:
            line = orjson.dumps(escape_names(entry))
        rest = memoryview(line + b"\n")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self._path)
            raise

    def close(self) -> None:
        """Close and unlock the file, after what is being written to it."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None


def escape_names(value: Any) -> Any:
    """Return a value for JSON whose names of files, which may be other bytes than UTF-8, are text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {key: escape_names(one) for key, one in value.items()}
    return list(map(escape_names, value)) if isinstance(value, list | tuple) else value


def _show(value: Any) -> str:
    """Return a part of a header as it stands in the file, at most 200 characters."""
    return orjson.dumps(value).decode()[:200]


def _lock(file: IO[bytes], path: Path, kind: str) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two runs that share a journal are not detected
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"journal {path}: another {kind} is using it") from None


def _sync_directory(path: Path) -> None:
    """Flush the directory entry of a new file, so that the file survives a power failure."""
    try:
        directory = os.open(path.parent, os.O_RDONLY)
    except OSError:  # Windows cannot open a directory
        return
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
