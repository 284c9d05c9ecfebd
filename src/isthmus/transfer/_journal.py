"""The journal of a copy: the ranges that the target acknowledged, from which a killed copy resumes."""

from __future__ import annotations

import dataclasses
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from isthmus import ConfigError, UsageError
from isthmus.transfer._digest import Digest

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class CopyIdentity:
    """What two runs must have in common to be the same copy; holds no secret."""

    source: str
    target: str
    query: str
    shape: str


@dataclass(slots=True)
class CopiedRange:
    """A range of ids that the target has acknowledged."""

    last_id: str
    """The last id of the range."""
    cursor: str | None
    """The source's cursor at the end of the range, a cheaper way to resume while it is valid."""
    read: int
    written: int = 0
    left_out: int = 0
    rejected: int = 0
    digest: Digest | None = None
    """Digest of the written records; None if digests are off."""

    def append(self, following: CopiedRange) -> None:
        """Extend the range by the one that follows it."""
        self.last_id, self.cursor = following.last_id, following.cursor
        self.read += following.read
        self.written += following.written
        self.left_out += following.left_out
        self.rejected += following.rejected
        if self.digest is None or following.digest is None:
            # A digest of a part would pass for one of the whole.
            self.digest = None
        else:
            self.digest += following.digest


class Journal:
    """An append-only file of JSON lines, each flushed to disk before the copy continues.

    The first line identifies the copy; each following line is one acknowledged range. Ranges are
    contiguous from the first id on. A last line that was cut off by a crash is dropped. The file is
    locked: only one copy at a time can use it.
    """

    def __init__(self, path: str | Path, identity: CopyIdentity) -> None:
        self._path = Path(path)
        self._identity = identity
        self._file: IO[bytes] | None = None
        # A cancelled copy closes the journal while a thread may still be writing to it.
        self._lock = threading.Lock()
        self._closed = False
        self.completed: CopiedRange | None = None
        """The sum of all ranges that earlier runs completed; None if there are none."""

    def open(self, *, resume: bool) -> None:
        """Open and lock the file, and read the completed ranges.

        Raises `ConfigError` if the file is damaged or belongs to another copy, `UsageError` if
        another process uses it, or if it has ranges and `resume` is false.
        """
        with self._lock:
            if self._closed:
                return
            try:
                self._file = self._path.open("a+b")
            except OSError as error:
                raise ConfigError(f"journal {self._path}: {error.strerror}") from error
            _lock(self._file, self._path)
            self._load(self._file, resume=resume)

    def _load(self, file: IO[bytes], *, resume: bool) -> None:
        file.seek(0)
        text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        if len(complete) < len(text):  # a crash cut off the last line
            file.truncate(len(complete))
            os.fsync(file.fileno())
        lines = complete.splitlines()
        if not lines:
            self._write_line({"isthmus_copy": _FORMAT, **dataclasses.asdict(self._identity)})
            _sync_directory(self._path)
            return
        self._check_header(lines[0])
        if not resume and len(lines) > 1:
            raise UsageError(f"journal {self._path}: already holds a copy; resume it, or remove the file")
        for number, line in enumerate(lines[1:], 2):
            try:
                self._add(_parse_range(orjson.loads(line)))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                raise ConfigError(f"journal {self._path}: line {number} is damaged") from None

    def _check_header(self, line: bytes) -> None:
        try:
            header = orjson.loads(line)
            version = header["isthmus_copy"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(f"journal {self._path}: not the journal of a copy") from None
        if version != _FORMAT:
            raise ConfigError(f"journal {self._path}: format {version} is not supported by this version")
        for key, value in dataclasses.asdict(self._identity).items():
            if header.get(key) != value:
                raise ConfigError(
                    f"journal {self._path}: belongs to another copy: its {key} is {header.get(key)!r},"
                    f" this copy's is {value!r}"
                )

    def _add(self, copied: CopiedRange) -> None:
        if self.completed is None:
            self.completed = copied
        else:
            self.completed.append(copied)

    def record(self, copied: CopiedRange) -> None:
        """Append an acknowledged range; it is on disk when this returns. A closed journal stays as it is."""
        entry = {
            "to": copied.last_id,
            "cursor": copied.cursor,
            "read": copied.read,
            "written": copied.written,
            "left_out": copied.left_out,
            "rejected": copied.rejected,
            "digest": None if copied.digest is None else copied.digest.hex,
        }
        with self._lock:
            if not self._closed:
                self._write_line(entry)

    def _write_line(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(orjson.dumps(entry) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close and unlock the file, after what is being written to it."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None


def _parse_range(entry: dict[str, Any]) -> CopiedRange:
    written, digest = entry["written"], entry["digest"]
    return CopiedRange(
        str(entry["to"]),
        entry["cursor"],
        entry["read"],
        written,
        entry["left_out"],
        entry["rejected"],
        None if digest is None else Digest(written, int(digest, 16)),
    )


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two copies that share a journal are not detected
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"journal {path}: another copy is using it") from None


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
