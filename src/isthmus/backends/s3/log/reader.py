"""The reader of one log: loads its state and keeps that up to date.

All handles of a loop share it. A read first gets the entry after the last known one; that it does
not exist proves that the state is current. This holds as long as the entries that a checkpoint
replaced are kept, so a state that was not confirmed for half the grace period looks for a newer
checkpoint first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice, takewhile
from typing import TypeVar

from isthmus.backends.s3.config import LogConfig
from isthmus.backends.s3.envelope import RecordRow
from isthmus.backends.s3.layout import report_foreign
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
from isthmus.backends.s3.log.unique_values import UniqueValues
from isthmus.backends.s3.transport.protocol import Blob, Listed
from isthmus.backends.s3.transport.requests import Requests, for_each
from isthmus.errors import UnavailableError, UnexpectedError

T = TypeVar("T")
_READ_AHEAD = 16
_FEW = 1_000
_WIDTH = 8
_RELOADS = 5


class MovedError(Exception):
    """Objects that the state refers to were removed: it has to be loaded again. Never leaves the backend."""


class LogReader:
    """The entries under one prefix, and the state that they add up to."""

    def __init__(self, requests: Requests, prefix: str, config: LogConfig) -> None:
        self.requests = requests
        self.prefix = prefix
        self.config = config
        self._state: LogState | None = None
        self._running: asyncio.Task[LogState] | None = None
        self._next: asyncio.Task[LogState] | None = None
        self.last_read: Entry | None = None
        """The entry inside of which a reader of changes has stopped."""

    # Reading

    async def current(self) -> LogState:
        """Return the state with every write that was acknowledged before this call.

        Costs one GET, and one more for each entry written since. Concurrent callers share one read
        of the log's end, but never one that began before their call.
        """
        if self._running is None:
            task = self._running = asyncio.ensure_future(self._look(after=None))
        elif self._next is None:
            task = self._next = asyncio.ensure_future(self._look(after=self._running))
        else:
            task = self._next
        return await asyncio.shield(task)

    async def _look(self, *, after: asyncio.Task[LogState] | None) -> LogState:
        if after is not None:
            await asyncio.wait([after])
            self._running, self._next = self._next, None
        try:
            return await self.catch_up()
        finally:
            if self._running is asyncio.current_task():
                self._running = None

    @property
    def state(self) -> LogState | None:
        """The state as last seen, if it was loaded."""
        return self._state

    async def load(self) -> LogState:
        """Return the state as last seen; load it the first time."""
        return self._state or await self.current()

    async def catch_up(self) -> LogState:
        """Apply all entries up to the end of the log and return the state."""
        for _ in range(_RELOADS):
            try:
                return await self._catch_up_once()
            except MovedError:
                self._state = None
        raise UnexpectedError(f"{self.prefix}{LOG}: entries are missing that no checkpoint replaces")

    async def reload(self) -> LogState:
        """Load the state again: objects that it refers to were removed."""
        self._state = None
        return await self.current()

    async def _catch_up_once(self) -> LogState:
        if self._state is None or is_stale(self._state, self.config):
            await self._load()
        state = self._state
        assert state is not None
        ahead = 1
        while True:
            start = read_clocks()
            first = state.seq + 1
            blobs = await self.get_entries(range(first, first + ahead))
            for seq, blob in blobs:
                self.apply(state, read_entry(blob.body, entry_key(self.prefix, seq)))
            if len(blobs) < ahead:
                state.confirmed = max(state.confirmed, start)
                return state
            ahead = min(ahead * 4, _READ_AHEAD)

    async def get_entries(self, seqs: range) -> list[tuple[int, Blob]]:
        """Return the bodies of these entries, up to the first that does not exist."""
        if len(seqs) == 1:
            blob = await self.requests.get(entry_key(self.prefix, seqs[0]))
            return [] if blob is None else [(seqs[0], blob)]
        found: dict[int, Blob] = {}

        async def one(seq: int) -> None:
            blob = await self.requests.get(entry_key(self.prefix, seq))
            if blob is not None:
                found[seq] = blob

        await for_each(one, seqs, len(seqs))
        return [(seq, found[seq]) for seq in takewhile(found.__contains__, seqs)]

    def apply(self, state: LogState, entry: Entry) -> None:
        """Apply an entry to the state if it is the next one."""
        if entry.seq == state.seq + 1:
            state.apply(entry, entry_key(self.prefix, entry.seq))

    # Loading

    async def _load(self) -> None:
        """Make sure that the state is at the newest checkpoint or beyond."""
        start = read_clocks()
        newest = await self.newest_manifest()
        if self._state is not None and (newest is None or newest <= self._state.seq):
            # Entries after the state cannot have been removed: only those that a checkpoint replaced are.
            self._state.confirmed = start
            return
        state = LogState(0, self.config.memory_bytes)
        if newest is not None:
            manifest = await self._require_manifest(newest)
            state = LogState(manifest.seq, self.config.memory_bytes)
            state.unique = UniqueValues(manifest.unique)
            state.changes = manifest.changes
            state.last_token = manifest.tokens[-1] if manifest.tokens else ""
            await self._load_parts(state, manifest)
        await self._load_entries(state)
        state.confirmed = start
        self._state = state

    async def manifests(self) -> list[tuple[int, Listed]]:
        """Return the numbers and listings of the checkpoints, oldest first."""
        listing = await self.list_folder(CHECKPOINTS)
        return [(seq, listed) for listed in listing if (seq := manifest_seq(listed.name))]

    async def newest_manifest(self) -> int | None:
        """Return the number of the newest checkpoint."""
        found = await self.manifests()
        return found[-1][0] if found else None

    async def list_folder(self, folder: str, after: str = "") -> list[Listed]:
        """Return the objects in a folder of the log whose names sort after `after`, in order."""
        return [listed async for page in self.list_pages(folder, after) for listed in page]

    async def list_pages(self, folder: str, after: str = "") -> AsyncIterator[list[Listed]]:
        """Yield the objects in a folder, a thousand at a time."""
        while True:
            page = await self.requests.listing(self.prefix + folder, after=after)
            yield page.found
            if not page.more:
                return
            after = page.found[-1].name

    async def _require_manifest(self, seq: int) -> Manifest:
        key = manifest_key(self.prefix, seq)
        blob = await self.requests.get(key)
        if blob is None:
            raise MovedError
        return read_manifest(blob.body, key)

    async def manifest(self, seq: int) -> Manifest | None:
        """Return a checkpoint's manifest; None if it was removed."""
        try:
            return await self._require_manifest(seq)
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
        """Apply the entries after the checkpoint, read many at a time."""
        after = f"{state.seq:020d}.ndjson" if state.seq else ""
        seqs = []
        for listed in await self.list_folder(LOG, after):
            seq = entry_seq(listed.name)
            if seq is None:
                report_foreign(f"{self.prefix}{LOG}{listed.name}", "not a log entry")
            elif seq > state.seq:
                seqs.append(seq)
        for start in range(0, len(seqs), 64):
            window = seqs[start : start + 64]
            entries: dict[int, Entry] = {}

            async def one(seq: int, entries: dict[int, Entry] = entries) -> None:
                key = entry_key(self.prefix, seq)
                blob = await self.requests.get(key)
                if blob is not None:
                    entries[seq] = read_entry(blob.body, key)  # while the others are in flight

            await for_each(one, window, self.requests.limit)
            for seq in window:
                if seq not in entries or seq != state.seq + 1:
                    # Removed since the checkpoints were listed: there is a newer checkpoint.
                    raise MovedError
                state.apply(entries.pop(seq), entry_key(self.prefix, seq))

    async def rows(self, state: LogState, ids: Iterable[str]) -> dict[str, RecordRow]:
        """Return the rows of those ids that exist; evicted ones are read again.

        Raises `MovedError` if an object was removed: the state is too old.
        """
        rows: dict[str, RecordRow] = {}
        evicted: dict[Segment, list[str]] = {}
        for id in ids:
            location = state.locations.get(id)
            if location is not None:
                if location.row is not None:
                    rows[id] = location.row
                else:
                    evicted.setdefault(location.segment, []).append(id)
        if evicted:
            read = await self.read_segments(state, evicted)
            rows.update((id, row_in(read[segment], id)) for segment, some in evicted.items() for id in some)
        return rows

    async def complete(self, state: LogState, unique: UniqueValues) -> None:
        """Read the records whose unique values are not known; raises `MovedError` as `rows` does.

        Costs a GET for each object with such records, some records at a time.
        """
        while unique.unread:
            ids = list(islice(unique.unread, _FEW))
            rows = await self.rows(state, ids)
            # A record that was written meanwhile is known, and has left the set.
            unique.apply([(id, rows.get(id)) for id in ids if id in unique.unread])

    async def read_segments(
        self, state: LogState, wanted: Iterable[Segment]
    ) -> dict[Segment, dict[str, RecordRow]]:
        """Return the rows of evicted objects by id; those that are still current are held again."""
        found: dict[Segment, dict[str, RecordRow]] = {}

        async def one(segment: Segment) -> None:
            blob = await self.requests.get(segment.key)
            if blob is None:
                raise MovedError
            # An entry may write an id twice: the last row is the current one.
            found[segment] = {row.id: row for row in read_rows(blob.body, segment.key)}
            state.readmit(segment, found[segment].values())

        await for_each(one, list(wanted), _WIDTH)
        return found

    async def run(self, work: Callable[[LogState], Awaitable[T]]) -> T:
        """Run work on the current state; run it again on a new one if objects were removed meanwhile."""
        for _ in range(_RELOADS):
            state = await self.current()
            try:
                return await work(state)
            except MovedError:
                self._state = None
        raise UnavailableError(f"{self.prefix}{LOG}: checkpoints replace the log faster than it can be read")

    # After a write

    async def is_part_of_log(self, seq: int, token: str) -> bool | None:
        """Return whether an entry that was just written is part of the log; None if that is unknown.

        It is not if the writer was so slow that its number had been used and the entry removed:
        the first checkpoint at or after the number has another token for it.
        """
        for number, _ in await self.manifests():
            if number >= seq:
                manifest = await self.manifest(number)
                if manifest is None or manifest.first > seq:
                    return None
                return manifest.tokens[seq - manifest.first] == token
        return True

    def tasks(self) -> Sequence[asyncio.Task[LogState]]:
        """Return the unfinished reads of the log's end."""
        return [task for task in (self._running, self._next) if task is not None]


def row_in(rows: Mapping[str, RecordRow], id: str) -> RecordRow:
    """Return a row of an object that was read again.

    Raises `MovedError` if it is not in there any more: the collection was dropped (`drop_log`).
    """
    row = rows.get(id)
    if row is None:
        raise MovedError
    return row


def is_stale(state: LogState, config: LogConfig) -> bool:
    """Return whether entries may have been removed since the state was last known to be current."""
    now = read_clocks()
    return max(now[0] - state.confirmed[0], now[1] - state.confirmed[1]) > config.grace / 2


def read_clocks() -> tuple[float, float]:
    """Return the time by two clocks: one stops while the machine sleeps, the other can be set back."""
    return time.monotonic(), time.time()
