"""The journal of acknowledged ranges: what makes a killed copy go on where it was."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from isthmus import ConfigError, UsageError
from isthmus.transfer._digest import Digest

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Job:
    """What makes two runs the same copy; holds no secret."""

    source: str
    target: str
    query: str
    shape: str


@dataclass(slots=True)
class Acknowledged:
    """What all runs so far have done; ranges are contiguous from the first id on."""

    upto: str | None = None
    """The last id of the last acknowledged range."""
    cursor: str | None = None
    """The source's cursor after it, a cheaper way to go on where it is still good."""
    read: int = 0
    written: int = 0
    left_out: int = 0
    rejected: int = 0
    digest: Digest | None = None
    """None if there is no range yet, or one without a digest."""


class Journal:
    """An append-only file of JSON lines, each forced to disk before the copy goes on.

    The first line names the job, each further one an acknowledged range: the target has taken all
    records up to that id. A last line that was cut off by a kill is dropped. One copy at a time
    holds the file.
    """

    def __init__(self, path: str | Path, job: Job) -> None:
        self._path = Path(path)
        self._job = job
        self._file: IO[bytes] | None = None
        self.done = Acknowledged()

    def open(self, *, resume: bool) -> None:
        """Take the file; with `resume` read what was done, else refuse one that has a copy in it.

        Raises `ConfigError` if it belongs to another copy, `UsageError` if another process has it.
        """
        try:
            self._file = self._path.open("a+b")
        except OSError as error:
            raise ConfigError(f"journal {self._path}: {error.strerror}") from error
        try:
            _lock(self._file, self._path)
            self._take(resume=resume)
        except BaseException:
            self.close()
            raise

    def _take(self, *, resume: bool) -> None:
        assert self._file is not None
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):  # killed while it wrote this line
            self._file.truncate(len(whole))
            os.fsync(self._file.fileno())
        lines = whole.splitlines()
        if not lines:
            self._append({"isthmus_copy": _FORMAT, **_job_json(self._job)})
            _sync_folder(self._path)
            return
        self._recognise(lines[0])
        if not resume and len(lines) > 1:
            raise UsageError(
                f"journal {self._path}: a copy was begun here; go on with resume, or remove the file"
            )
        for number, line in enumerate(lines[1:], 2):
            try:
                self._read(orjson.loads(line))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                raise ConfigError(f"journal {self._path}: line {number} is damaged") from None

    def _recognise(self, line: bytes) -> None:
        try:
            head = orjson.loads(line)
            known = head["isthmus_copy"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(f"journal {self._path}: this is no journal of a copy") from None
        if known != _FORMAT:
            raise ConfigError(f"journal {self._path}: format {known} is not known to this version")
        for key, value in _job_json(self._job).items():
            if head.get(key) != value:
                raise ConfigError(
                    f"journal {self._path}: it belongs to another copy: {key} was {head.get(key)!r},"
                    f" is {value!r}"
                )

    def _read(self, entry: dict[str, Any]) -> None:
        done = self.done
        before = Digest() if done.upto is None else done.digest
        done.digest = None
        if entry["digest"] is not None and before is not None:
            before += Digest(entry["written"], int(entry["digest"], 16))
            done.digest = before
        done.upto = str(entry["to"])
        done.cursor = entry["cursor"]
        done.read += entry["read"]
        done.written += entry["written"]
        done.left_out += entry["left_out"]
        done.rejected += entry["rejected"]

    def acknowledge(
        self,
        upto: str,
        cursor: str | None,
        *,
        read: int,
        written: int,
        left_out: int,
        rejected: int,
        digest: Digest | None,
    ) -> None:
        """Note that the target has taken all records up to this id; on disk when this returns."""
        self._append(
            {
                "to": upto,
                "cursor": cursor,
                "read": read,
                "written": written,
                "left_out": left_out,
                "rejected": rejected,
                "digest": None if digest is None else digest.hex,
            }
        )

    def _append(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(orjson.dumps(entry) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _job_json(job: Job) -> dict[str, str]:
    return {"source": job.source, "target": job.target, "query": job.query, "shape": job.shape}


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two copies with one journal are not noticed there
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"journal {path}: another copy is using it") from None


def _sync_folder(path: Path) -> None:
    """Make the file's name survive a power cut too."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:  # a folder cannot be opened on Windows
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
