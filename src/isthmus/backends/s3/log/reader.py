"""One log on one loop: its view kept up to date, its writes committed in groups.

All handles of a loop share it, so concurrent writes become one entry. A read first asks for the
entry after the last known one; that it is not there proves the view current. This holds as long
as entries that a checkpoint replaced are kept: a view that was not confirmed for half the grace
period looks for a newer checkpoint first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from isthmus.backends.s3.config import Log as LogConfig
from isthmus.backends.s3.envelope import RecordRow
from isthmus.backends.s3.log.entry import (
    CHECKPOINTS,
    LOG,
    PARTS,
    CheckpointPart,
    Entry,
    Manifest,
    entry_key,
    entry_seq,
    manifest_key,
    manifest_seq,
    read_entry,
    read_manifest,
    read_rows,
)
from isthmus.backends.s3.log.state import LogState, Segment
from isthmus.backends.s3.object.listing import report_foreign
from isthmus.backends.s3.transport.protocol import Blob, Listed
from isthmus.backends.s3.transport.requests import Requests, for_each
from isthmus.errors import UnavailableError, UnexpectedError

T = TypeVar("T")
_READ_AHEAD = 16
_WIDTH = 8
_RELOADS = 5


class MovedError(Exception):
    """Objects that the view relied on were removed: load it anew; never leaves the backend."""


class LogReader:
    """The entries under one place, and the view that they make."""

    def __init__(self, requests: Requests, prefix: str, config: LogConfig) -> None:
        self.requests = requests
        self.prefix = prefix
        self.config = config
        self._state: LogState | None = None
        self._running: asyncio.Task[LogState] | None = None
        self._next: asyncio.Task[LogState] | None = None

    # Reading

    async def current(self) -> LogState:
        """Return the view with every write that was acknowledged before this call.

        Callers at the same time share one look at the log, but never one that began before them.
        """
        if self._running is None:
            task = self._running = asyncio.ensure_future(self._look(None))
        elif self._next is None:
            task = self._next = asyncio.ensure_future(self._look(self._running))
        else:
            task = self._next
        return await asyncio.shield(task)

    async def _look(self, before: asyncio.Task[LogState] | None) -> LogState:
        if before is not None:
            await asyncio.wait([before])
            self._running, self._next = self._next, None
        try:
            return await self.catch_up()
        finally:
            if self._running is asyncio.current_task():
                self._running = None

    @property
    def state(self) -> LogState | None:
        """The view as it is known here, if it was loaded."""
        return self._state

    async def load(self) -> LogState:
        """Return the view as it is known here, loading it the first time."""
        return self._state or await self.current()

    async def catch_up(self) -> LogState:
        """Bring the view to the end of the log and return it."""
        for _ in range(_RELOADS):
            try:
                return await self._catch_up_once()
            except MovedError:
                self._state = None
        raise UnexpectedError(f"{self.prefix}{LOG}: entries are missing that no checkpoint replaces")

    async def _catch_up_once(self) -> LogState:
        if self._state is None or is_stale(self._state, self.config):
            await self._load()
        state = self._state
        assert state is not None
        ahead = 1
        while True:
            begun = read_clocks()
            first = state.seq + 1
            blobs = await self._entries(range(first, first + ahead))
            for seq, blob in blobs:
                self.apply(state, read_entry(blob.body, entry_key(self.prefix, seq)))
            if len(blobs) < ahead:
                state.confirmed = max(state.confirmed, begun)
                return state
            ahead = min(ahead * 4, _READ_AHEAD)

    async def _entries(self, seqs: range) -> list[tuple[int, Blob]]:
        """Return these entries up to the first that is not there."""
        if len(seqs) == 1:
            blob = await self.requests.get(entry_key(self.prefix, seqs[0]))
            return [] if blob is None else [(seqs[0], blob)]
        found: dict[int, Blob] = {}

        async def one(seq: int) -> None:
            blob = await self.requests.get(entry_key(self.prefix, seq))
            if blob is not None:
                found[seq] = blob

        await for_each(one, seqs, len(seqs))
        there = []
        for seq in seqs:
            if seq not in found:
                break
            there.append((seq, found[seq]))
        return there

    def apply(self, state: LogState, entry: Entry) -> None:
        """Take an entry into the view, if it is the next."""
        if entry.seq == state.seq + 1:
            state.apply(entry, entry_key(self.prefix, entry.seq))

    # Loading

    async def _load(self) -> None:
        """Make sure that the view is at the newest checkpoint or beyond."""
        begun = read_clocks()
        newest = await self.newest_manifest()
        if self._state is not None and (newest is None or newest <= self._state.seq):
            # Nothing after the view can have been removed: removal stops at a checkpoint.
            self._state.confirmed = begun
            return
        state = LogState(0, self.config.memory_bytes)
        if newest is not None:
            manifest = await self._manifest(newest)
            state = LogState(manifest.seq, self.config.memory_bytes)
            await self._load_parts(state, manifest)
        await self._load_entries(state)
        state.confirmed = begun
        self._state = state

    async def manifests(self) -> list[tuple[int, Listed]]:
        """Return the checkpoints that are there, oldest first."""
        return [
            (seq, listed) for listed in await self.names(CHECKPOINTS) if (seq := manifest_seq(listed.name))
        ]

    async def newest_manifest(self) -> int | None:
        """Return the number of the newest checkpoint."""
        found = await self.manifests()
        return found[-1][0] if found else None

    async def names(self, folder: str, after: str = "") -> list[Listed]:
        """Return all that is listed in a folder of the log."""
        listed: list[Listed] = []
        while True:
            page = await self.requests.listing(self.prefix + folder, after=after)
            listed += page.found
            if not page.more:
                return listed
            after = page.found[-1].name

    async def _manifest(self, seq: int) -> Manifest:
        key = manifest_key(self.prefix, seq)
        blob = await self.requests.get(key)
        if blob is None:
            raise MovedError
        return read_manifest(blob.body, key)

    async def manifest(self, seq: int) -> Manifest | None:
        """Return a checkpoint's manifest if it is still there."""
        try:
            return await self._manifest(seq)
        except MovedError:
            return None

    async def _load_parts(self, state: LogState, manifest: Manifest) -> None:
        async def one(part: CheckpointPart) -> None:
            key = f"{self.prefix}{PARTS}{part.name}"
            blob = await self.requests.get(key)
            if blob is None:
                raise MovedError
            state.add(Segment(key), read_rows(blob.body, key, part.sum))

        await for_each(one, manifest.parts, _WIDTH)

    async def _load_entries(self, state: LogState) -> None:
        """Read the listed entries after the checkpoint, many at a time."""
        after = f"{state.seq:020d}.ndjson" if state.seq else ""
        seqs = []
        for listed in await self.names(LOG, after):
            seq = entry_seq(listed.name)
            if seq is None:
                report_foreign(f"{self.prefix}{LOG}{listed.name}", "it is not a log entry")
            elif seq > state.seq:
                seqs.append(seq)
        for at in range(0, len(seqs), 64):
            window = seqs[at : at + 64]
            entries: dict[int, Entry] = {}

            async def one(seq: int, entries: dict[int, Entry] = entries) -> None:
                key = entry_key(self.prefix, seq)
                blob = await self.requests.get(key)
                if blob is not None:
                    entries[seq] = read_entry(blob.body, key)  # while the others are on their way

            await for_each(one, window, self.requests.limit)
            for seq in window:
                if seq not in entries or seq != state.seq + 1:
                    # Removed since checkpoints were listed: there is a newer one.
                    raise MovedError
                state.apply(entries.pop(seq), entry_key(self.prefix, seq))

    async def rows(self, state: LogState, ids: Iterable[str]) -> dict[str, RecordRow]:
        """Return the rows of those ids that are there, reading again what was let go.

        Raises `MovedError` if an object is gone: the view is too old.
        """
        rows: dict[str, RecordRow] = {}
        absent: dict[Segment, list[str]] = {}
        for id in ids:
            slot = state.locations.get(id)
            if slot is not None:
                if slot.row is not None:
                    rows[id] = slot.row
                else:
                    absent.setdefault(slot.segment, []).append(id)
        if absent:
            found = await self.segments(state, absent)
            rows.update((id, found[segment][id]) for segment, lost in absent.items() for id in lost)
        return rows

    async def segments(
        self, state: LogState, wanted: Iterable[Segment]
    ) -> dict[Segment, dict[str, RecordRow]]:
        """Return the rows of objects that were let go, by id, and hold those again that still count."""
        found: dict[Segment, dict[str, RecordRow]] = {}

        async def one(segment: Segment) -> None:
            blob = await self.requests.get(segment.key)
            if blob is None:
                raise MovedError
            # An entry may write an id twice: the last one counts.
            found[segment] = {row.id: row for row in read_rows(blob.body, segment.key)}
            state.readmit(segment, found[segment].values())

        each_of = list(wanted)
        await for_each(one, each_of, _WIDTH)
        return found

    async def run(self, work: Callable[[LogState], Awaitable[T]]) -> T:
        """Run work on the current view, again on a new one if objects of it were removed."""
        for _ in range(_RELOADS):
            state = await self.current()
            try:
                return await work(state)
            except MovedError:
                self._state = None
        raise UnavailableError(f"{self.prefix}{LOG}: the log is compacted faster than it can be read")

    # After a write

    async def is_part_of_log(self, seq: int, token: str) -> bool | None:
        """Return whether an entry that was just written is part of the log; None if nobody can tell.

        False is a writer that came so late that its number had been used and removed: the first
        checkpoint at or after the number does not know its token.
        """
        for at, _ in await self.manifests():
            if at >= seq:
                manifest = await self.manifest(at)
                if manifest is None or manifest.first > seq:
                    return None
                return manifest.tokens[seq - manifest.first] == token
        return True

    def tasks(self) -> Sequence[asyncio.Task[LogState]]:
        """Return what is under way."""
        return [task for task in (self._running, self._next) if task is not None]


def is_stale(state: LogState, config: LogConfig) -> bool:
    """Return whether entries may have been removed since the view was last known to be current."""
    now = read_clocks()
    return max(now[0] - state.confirmed[0], now[1] - state.confirmed[1]) > config.grace / 2


def read_clocks() -> tuple[float, float]:
    """Return now by two clocks: one stands still while a machine sleeps, the other may be set back."""
    return time.monotonic(), time.time()
