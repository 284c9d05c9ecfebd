"""Checkpoints of a log, written beside readers and writers, and the removal of what they replaced.

The parts come first, then the manifest with `If-None-Match: *`: a process killed in between leaves
parts that no manifest names. Entries and older checkpoints go when a checkpoint that replaces them
is older than the grace period by the server's own clock.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging

from isthmus.backends.s3.envelope import Row, token
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.log import Log, MovedError
from isthmus.backends.s3.log_entry import (
    LOG,
    PARTS,
    Manifest,
    Part,
    checksum,
    entry_key,
    entry_seq,
    manifest_body,
    manifest_key,
    part_body,
    part_seq,
)
from isthmus.backends.s3.log_view import Segment, Slot, View
from isthmus.errors import IsthmusError

logger = logging.getLogger("isthmus.s3")

_PART_BYTES = 8 * 2**20
# A checkpoint of a large log is worth more entries: it writes all of it.
_BYTES_AN_ENTRY = 64 * 2**10


class Checkpointer:
    """Writes a checkpoint in the background once enough entries came since the last one."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0
        """The entry from which to try again after a checkpoint that failed."""

    def consider(self) -> None:
        """Begin a checkpoint if it is due and none is under way."""
        view = self._log.view
        if self._task is None and view is not None and self._due(view):
            self._task = asyncio.ensure_future(self._run(view))

    def _due(self, view: View) -> bool:
        entries = max(self._log.config.checkpoint_entries, view.held_bytes // _BYTES_AN_ENTRY)
        return len(view.tokens) >= entries and view.seq >= self._not_before

    async def _run(self, view: View) -> None:
        try:
            newest = await self._log.newest_manifest()
            if newest is not None and view.first <= newest <= view.seq:
                view.checkpointed(newest)  # another process was first
            if self._due(view):
                await write_checkpoint(self._log, view)
                await remove_replaced(self._log)
        except (IsthmusError, MovedError) as error:
            # The log is whole without it.
            self._not_before = view.seq + self._log.config.checkpoint_entries
            logger.warning("%s: no checkpoint this time: %s", self._log.place, error)
        finally:
            self._task = None

    async def close(self) -> None:
        """Stop: what is half written is never looked at."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def write_checkpoint(log: Log, view: View) -> bool:
    """Write the state of a view; False if another process did so for the same entry."""
    seq, first, tokens = view.seq, view.first, list(view.tokens)
    snapshot = [(id, view.slots[id]) for id in list(view.ids())]
    mark = token()
    parts: list[Part] = []
    moved: list[tuple[Segment, list[tuple[Slot, Row]]]] = []
    at = 0
    while at < len(snapshot):
        at, rows = await _gathered(log, view, snapshot, at)
        name = f"{seq:020d}-{mark}-{len(parts)}.ndjson"
        body = part_body([row for _, row in rows])
        await log.requests.put(f"{log.place}{PARTS}{name}", body)
        parts.append(Part(name, len(body), checksum(body)))
        moved.append((Segment(f"{log.place}{PARTS}{name}"), rows))
    manifest = Manifest(seq, parts, first, tokens)
    body = manifest_body(manifest, mark)
    try:
        await log.requests.put_if(manifest_key(log.place, seq), body, lambda found: mark.encode() in found)
    except PreconditionError:
        await log.requests.delete_many([f"{log.place}{PARTS}{part.name}" for part in parts])
        view.checkpointed(seq)
        return False
    for segment, rows in moved:
        view.move(segment, rows)
    view.checkpointed(seq)
    return True


async def _gathered(
    log: Log, view: View, snapshot: list[tuple[str, Slot]], at: int
) -> tuple[int, list[tuple[Slot, Row]]]:
    """Return where to go on, and the rows of the next part, as they were in the snapshot."""
    rows: list[tuple[Slot, Row]] = []
    size = 0
    # Small enough that the view can hold some parts and let go of others.
    wanted = min(_PART_BYTES, log.config.memory_bytes // 8)
    while at < len(snapshot) and size < wanted:
        chunk = snapshot[at : at + 50]
        absent = {slot.segment for _, slot in chunk if slot.row is None}
        held = {id: slot.row for id, slot in chunk if slot.row is not None}
        found = await log.segments(view, absent)
        for id, slot in chunk:
            row = held.get(id) or found[slot.segment][id]
            rows.append((slot, row))
            size += len(row.data) + len(row.metadata) + 150
        at += len(chunk)
    return at, rows


async def remove_replaced(log: Log) -> int:
    """Remove what a checkpoint older than the grace period replaced; return how many objects."""
    manifests = await log.manifests()
    if not manifests:
        return 0
    # The newest checkpoint was just written: its time is the server's now.
    now = max(listed.modified for _, listed in manifests)
    limit = now - dt.timedelta(seconds=log.config.grace)
    old = [seq for seq, listed in manifests if listed.modified <= limit]
    if not old:
        return 0
    kept_from = old[-1]
    used: set[str] = set()
    for seq, _ in manifests:
        if seq >= kept_from:
            manifest = await log.manifest(seq)
            if manifest is None:
                return 0  # another process is removing
            used |= {part.name for part in manifest.parts}
    doomed = [manifest_key(log.place, seq) for seq in old[:-1]]
    for part in await log.names(PARTS):
        at = part_seq(part.name)
        if at is not None and at <= kept_from and part.name not in used and part.modified <= limit:
            doomed.append(f"{log.place}{PARTS}{part.name}")
    for entry in await log.names(LOG):
        at = entry_seq(entry.name)
        if at is not None and at <= kept_from:
            doomed.append(entry_key(log.place, at))
    failed = await log.requests.delete_many(doomed)
    return len(doomed) - len(failed)
