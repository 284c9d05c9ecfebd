"""Files under a prefix of an S3 bucket, read by ranges; a version is an object's entity tag."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, cast

from isthmus._core.loop_pools import LoopBound
from isthmus._query.find import check, end_turn
from isthmus.backends.files.catalog import MAX_FILES, File, R, compile_pattern, names_hidden, split_pattern
from isthmus.backends.files.config import FilesConfig
from isthmus.backends.files.formats.choose import choose_format
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.errors import NoSuchKeyError, PreconditionError
from isthmus.backends.s3.transport.requests import Requests
from isthmus.backends.s3.transport.session import find_keys, pool_key
from isthmus.errors import ConfigError, UnavailableError

_BLOCK = 4 << 20
"""Bytes of a request while a file is read from one end to the other; the next one is under way."""
_SMALL = 256 << 10
_POLL = 0.05


class _Request(Generic[R]):
    """A request that a thread has sent on a loop; nothing of it is left if the loop ends before it begins."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._loop = loop
        self._future: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._task: asyncio.Task[R] | None = None
        self._dropped = False
        try:
            loop.call_soon_threadsafe(self._begin, make)
        except RuntimeError:
            raise _loop_error() from None

    def _begin(self, make: Callable[[], Coroutine[Any, Any, R]]) -> None:
        if not self._dropped:
            self._task = self._loop.create_task(make())
            self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[R]) -> None:
        if task.cancelled():
            self._future.cancel()
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())

    def result(self) -> R:
        """Return the response; ends early when nobody waits for this thread, or the loop has ended."""
        try:
            while True:
                end_turn()
                try:
                    return self._future.result(_POLL)
                except concurrent.futures.TimeoutError:
                    if self._future.done():
                        return self._future.result()
                if not self._loop.is_running():
                    raise _loop_error()
                check()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Drop the request."""
        self._dropped = True
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and the task with it
                self._loop.call_soon_threadsafe(self._task.cancel)


def _loop_error() -> UnavailableError:
    return UnavailableError("files: the event loop of this call has ended", transient=False)


class BucketStorage:
    """Lists and reads the objects of a prefix or of a pattern, or one object.

    Its methods are called in threads, and send their requests on the loop that `bind` saw.
    """

    def __init__(self, config: FilesConfig) -> None:
        self.config = S3Config.load(_bucket_settings(config))
        keys = find_keys(self.config)
        self._pools: LoopBound[Requests] = LoopBound(
            pool_key(self.config, keys), lambda: Requests.open(self.config, keys)
        )
        place = config.location.removeprefix("s3://").partition("/")[2]
        base, pattern = split_pattern(place) if place else ("", None)
        self._object = None if pattern is not None or not place or place.endswith("/") else place
        self._base = "" if base in ("", ".") else base.rstrip("/") + "/"
        self._pattern = None if pattern is None else compile_pattern(pattern)
        self._hidden = pattern is not None and names_hidden(pattern)
        self.name = config.location
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, work: Callable[[], R]) -> Callable[[], R]:
        """Return work whose requests are sent on the running loop."""
        loop = asyncio.get_running_loop()

        def run() -> R:
            self._loop = loop
            return work()

        return run

    async def close(self) -> None:
        """Release the connections."""
        await self._pools.close()

    def start(self, make: Callable[[], Coroutine[Any, Any, R]]) -> _Request[R]:
        """Send a request on the loop of the last call; pyarrow reads in threads of its own, too."""
        if self._loop is None:
            raise _loop_error()
        return _Request(self._loop, make)

    async def _requests(self) -> Requests:
        return self._pools.current() or await self._pools.pool()

    def list_files(self) -> list[File]:
        """Return the objects of the prefix; raises `ConfigError` if a name of a file is missing.

        Any other prefix without objects is an empty folder, which a bucket does not tell from none.
        """
        return self.start(self._list).result()

    async def _list(self) -> list[File]:
        if self._object is not None:
            found = await self._find_object(self._object)
            if found is not None:
                return [found]
        files = await self._list_prefix()
        if not files and self._object is not None and choose_format(self._object, None) is not None:
            raise ConfigError(f"files: there is no object {self.name!r}, and none with this prefix")
        return files

    async def _find_object(self, key: str) -> File | None:
        """Return the object of a key, by the listing, which has its size; None if there is none."""
        folder, _, name = key.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        requests = await self._requests()
        after, rest = name[:-1], None
        while True:
            page = await requests.listing(prefix, after=after, rest=rest)
            for one in page.found:
                if one.name == name:
                    return File(name, one.size, one.etag)
            if not page.more or not page.found or page.found[-1].name > name:
                return None
            after, rest = page.found[-1].name, page.rest

    async def _list_prefix(self) -> list[File]:
        requests = await self._requests()
        files: list[File] = []
        after, rest = "", None
        while True:
            page = await requests.listing(self._base, after=after, rest=rest)
            files += [File(one.name, one.size, one.etag) for one in page.found if self._takes(one.name)]
            if len(files) > MAX_FILES:
                raise ConfigError(
                    f"files: {self.name} has more than {MAX_FILES:,} files; name fewer by a pattern"
                )
            if not page.more or not page.found:
                return files
            after, rest = page.found[-1].name, page.rest

    def _takes(self, name: str) -> bool:
        if not name or name.endswith("/"):
            return False
        if not self._hidden and names_hidden(name):
            return False
        return self._pattern is None or self._pattern.fullmatch(name) is not None

    def key_of(self, file: File) -> str:
        """Return the key of a file's object."""
        if self._object is not None and self._object.rpartition("/")[2] == file.key:
            return self._object
        return self._base + file.key

    def open(self, file: File) -> BinaryIO:
        """Return a stream that reads an object by ranges."""
        return cast("BinaryIO", ObjectStream(self, file))

    def check(self, file: File, stream: BinaryIO) -> None:
        """Do nothing: each request names the entity tag that was listed."""

    async def fetch(self, file: File, start: int, end: int) -> bytes:
        """Return a part of an object; raises `UnavailableError` if it changed since it was listed."""
        requests = await self._requests()
        try:
            data = await requests.get_range(self.key_of(file), start, end, file.version)
        except (PreconditionError, NoSuchKeyError):
            raise UnavailableError(
                f"files: {file.key!r} changed while it was read; start the call again", transient=False
            ) from None
        if len(data) != end - start:
            raise UnavailableError(f"files: {file.key!r}: a response ended early")
        return data


class ObjectStream:
    """An object as a binary stream: requests of 4 MB, one ahead, while it is read in order."""

    closed = False

    def __init__(self, storage: BucketStorage, file: File) -> None:
        self._storage = storage
        self._file = file
        self._at = 0
        self._start, self._block = 0, b""
        self._next: _Request[bytes] | None = None
        self._next_start = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the request that is under way."""
        self.closed = True
        self._block = b""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position."""
        self._at = (0, self._at, self._file.size)[whence] + offset
        return self._at

    def size(self) -> int:
        """Return the number of bytes, as pyarrow asks for it."""
        return self._file.size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        end = self._file.size if size is None or size < 0 else min(self._at + size, self._file.size)
        parts = []
        while self._at < end:
            if not self._start <= self._at < self._start + len(self._block):
                self._load(end)
            offset = self._at - self._start
            part = self._block[offset : offset + end - self._at]
            parts.append(part)
            self._at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _load(self, end: int) -> None:
        """Get the block at the position, and begin with the next one if blocks come in order."""
        ordered = self._at == self._start + len(self._block)
        ahead, self._next = self._next, None
        if ahead is not None and self._next_start == self._at:
            self._block = ahead.result()
        else:
            if ahead is not None:
                ahead.cancel()
            length = max(end - self._at, _BLOCK if ordered else _SMALL)
            self._block = self._send(self._at, length).result()
        self._start = self._at
        self._next_start = self._start + len(self._block)
        if ordered and self._next_start < self._file.size:
            self._next = self._send(self._next_start, _BLOCK)

    def _send(self, start: int, length: int) -> _Request[bytes]:
        end = min(start + length, self._file.size)
        return self._storage.start(lambda: self._storage.fetch(self._file, start, end))


def _bucket_settings(config: FilesConfig) -> dict[str, Any]:
    """Return the settings of the backend `s3` for the bucket of a location."""
    keys = {
        "aws_access_key_id": config.aws_access_key_id,
        "aws_secret_access_key": config.aws_secret_access_key,
        "aws_session_token": config.aws_session_token,
    }
    given = {name: value for name, value in keys.items() if value is not None}
    return {**config.s3, **given, "bucket": config.location.removeprefix("s3://").partition("/")[0]}
