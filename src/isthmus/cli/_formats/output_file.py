"""Output files: a regular file is replaced when it is complete, anything else is written to.

The new contents go to a temporary file in the same folder. It is locked while its process lives, so
that the next run can tell what a killed one left behind, and remove it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_STDOUT = 1
_MAX_LINKS = 40


def parse_path(text: str) -> Path:
    """Return the path that an argument names: `-` stands for a standard stream, `./-` is a file.

    A `Path` drops the `./`.
    """
    path = Path(text)
    return Path.cwd() / path if str(path) == "-" != text else path


def is_stdout(file: Path | None) -> bool:
    """Return whether a command's file is standard output: None, `-`, or a path such as /dev/stdout."""
    return file is None or str(file) == "-" or _find_descriptor(file) == _STDOUT


@contextlib.contextmanager
def open_output(file: Path) -> Iterator[IO[bytes]]:
    """Yield a stream to a file; a regular one changes only when the block ends without an error.

    Symbolic links are followed, and owner, mode and hard links of an existing file are kept. FIFOs,
    devices and open descriptors (/dev/fd/3) are written to as they are. Raises `OSError` with the
    name of the file.
    """
    try:
        with _open(file) as stream:
            yield stream
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            error.filename = str(file)
        raise


@contextlib.contextmanager
def _open(file: Path) -> Iterator[IO[bytes]]:
    descriptor = _find_descriptor(file)
    try:
        status = file.stat()
    except FileNotFoundError:
        status = None
    if descriptor is not None:
        # Opening the path again would truncate the file, and have a position of its own.
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            yield stream
    elif status is not None and not stat.S_ISREG(status.st_mode):
        with _open_interruptibly(file) as stream:
            yield stream
    else:
        with _open_replacement(Path(os.path.realpath(file)), status) as stream:
            yield stream


def _find_descriptor(file: Path) -> int | None:
    """Return the open descriptor of this process that a path names, following symbolic links."""
    folders = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd")}
    for _ in range(_MAX_LINKS):
        if file.name.isdigit() and os.path.realpath(file.parent) in folders:
            return int(file.name)
        if not file.is_symlink():
            return None
        file = file.parent / file.readlink()
    return None


def _open_interruptibly(file: Path) -> IO[bytes]:
    """Open a FIFO or a device for writing.

    A FIFO waits for its reader. asyncio's handler of Ctrl-C would let it wait; Python's own ends it.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return file.open("wb")
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _open_replacement(file: Path, status: os.stat_result | None) -> Iterator[IO[bytes]]:
    """Yield a temporary file that takes the place of a file with this status, or of no file."""
    if status is not None and not os.access(file, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    prefix = f".isthmus-{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:16]}-"
    _remove_abandoned(file.parent, prefix)
    partial, stream = _create_temporary(file.parent, prefix, private=status is not None)
    try:
        with stream:
            yield stream
            stream.flush()
            keeps = status is None or (_copy_attributes(status, stream.fileno()) and status.st_nlink == 1)
            os.fsync(stream.fileno())
            if keeps and os.name != "nt":
                partial.replace(file)  # under the lock, so that no other run removes it before
        if not keeps:
            _overwrite(file, partial)
        elif os.name == "nt":
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _create_temporary(folder: Path, prefix: str, *, private: bool) -> tuple[Path, IO[bytes]]:
    """Create and lock a new file; until it is complete a `private` one is for its owner only."""
    mode = 0o600 if private else 0o666
    while True:
        path = folder / f"{prefix}{secrets.token_hex(4)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        stream = os.fdopen(os.open(path, flags, mode), "wb")
        _lock(stream.fileno(), wait=True)
        if os.fstat(stream.fileno()).st_nlink:
            return path, stream
        stream.close()  # another run removed it before it was locked


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove the temporary files of runs that were killed."""
    for path in folder.glob(f"{prefix}*.part"):
        # Of another user, in use on Windows, or removed by another run meanwhile: left alone.
        with contextlib.suppress(PermissionError, FileNotFoundError), path.open("rb") as stream:
            if _lock(stream.fileno(), wait=False):
                if os.name == "nt":
                    stream.close()
                path.unlink()


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file until it is closed; return False if another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows refuses to remove a file that is open, which serves as the lock there
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held, or a file system without locks, where nothing is known to be abandoned
        return False
    return True


def _copy_attributes(status: os.stat_result, descriptor: int) -> bool:
    """Give a file the owner and the mode of another; return False where this user may not."""
    if os.name == "nt":
        return True
    created = os.fstat(descriptor)
    if (created.st_uid, created.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        except PermissionError:
            return False
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    return True


def _overwrite(file: Path, complete: Path) -> None:
    """Write a complete file's contents into one whose owner or hard links a rename would lose."""
    with complete.open("rb") as source, file.open("r+b") as target:
        shutil.copyfileobj(source, target)
        target.truncate()
        target.flush()
        os.fsync(target.fileno())
