"""A cache of bodies by entity tag, so that a search gets only the objects that changed.

Opt-in. A body is used only after a listing showed its tag, so it is never stale. The files of the
cache may be deleted at any time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from pathlib import Path

from isthmus.backends.s3.config import CacheConfig


class EtagCache:
    """At most `max_bytes` of bodies, in memory or as files; the least recently used are evicted first."""

    def __init__(self, config: CacheConfig, bucket: str, endpoint: str | None) -> None:
        self._max = config.max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bodies: dict[str, bytes] = {}
        self._size = 0
        self._bucket = f"{endpoint}/{bucket}/"
        self._folder = None if config.folder is None else Path(config.folder)
        self._loaded = self._folder is None

    def _name(self, key: str, etag: str) -> str:
        return hashlib.blake2b(f"{self._bucket}{key}\0{etag}".encode(), digest_size=20).hexdigest()

    async def get(self, key: str, etag: str) -> bytes | None:
        """Return the body of this key and tag, None if it is not cached."""
        if not self._loaded:
            await asyncio.to_thread(self._load)
        name = self._name(key, etag)
        if name not in self._sizes:
            return None
        self._sizes.move_to_end(name)
        if self._folder is None:
            return self._bodies[name]
        return await asyncio.to_thread(self._read, name)

    async def put(self, key: str, etag: str, body: bytes) -> None:
        """Cache a body, unless it is larger than the whole cache."""
        name = self._name(key, etag)
        if name in self._sizes or len(body) > self._max:
            return
        if self._folder is None:
            self._bodies[name] = body
        else:
            await asyncio.to_thread(self._store, name, body)
        self._sizes[name] = len(body)
        self._size += len(body)
        while self._size > self._max:
            old, size = self._sizes.popitem(last=False)
            self._size -= size
            if self._folder is None:
                del self._bodies[old]
            else:
                (self._folder / old).unlink(missing_ok=True)

    def _load(self) -> None:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        for entry in sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime):
            if entry.suffix == "":
                self._sizes[entry.name] = entry.stat().st_size
                self._size += entry.stat().st_size
        self._loaded = True

    def _store(self, name: str, body: bytes) -> None:
        assert self._folder is not None
        draft = self._folder / f"{name}.{os.getpid()}.part"
        draft.write_bytes(body)
        draft.replace(self._folder / name)  # atomic: a reader sees a whole file or none

    def _read(self, name: str) -> bytes | None:
        assert self._folder is not None
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:  # the folder was emptied
            self._size -= self._sizes.pop(name, 0)
            return None
