"""Checkpoints of a log, written beside readers and writers, and the removal of what they replaced.

The parts come first, then the manifest with `If-None-Match: *`: a process killed in between leaves
parts that no manifest names. Entries and older checkpoints go when a checkpoint that replaces them
is older than the grace period by the server's own clock.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging

from isthmus.backends.s3.envelope import RecordRow, new_token
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.log.entry import (
    LOG,
    PARTS,
    CheckpointPart,
    Manifest,
    checksum,
    entry_key,
    entry_seq,
    manifest_body,
    manifest_key,
    part_body,
    part_seq,
)
from isthmus.backends.s3.log.reader import LogReader, MovedError
from isthmus.backends.s3.log.state import LogState, RecordLocation, Segment
from isthmus.errors import IsthmusError

logger = logging.getLogger("isthmus.s3")

_PART_BYTES = 8 * 2**20
# A checkpoint of a large log is worth more entries: it writes all of it.
_BYTES_AN_ENTRY = 64 * 2**10


class Checkpointer:
    """Writes a checkpoint in the background once enough entries came since the last one."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0
        """The entry from which to try again after a checkpoint that failed."""

    def start_if_due(self) -> None:
        """Begin a checkpoint if it is due and none is under way."""
        state = self._log.state
        if self._task is None and state is not None and self._is_due(state):
            self._task = asyncio.ensure_future(self._run(state))

    def _is_due(self, state: LogState) -> bool:
        entries = max(self._log.config.checkpoint_entries, state.held_bytes // _BYTES_AN_ENTRY)
        return len(state.tokens) >= entries and state.seq >= self._not_before

    async def _run(self, state: LogState) -> None:
        try:
            newest = await self._log.newest_manifest()
            if newest is not None and state.first <= newest <= state.seq:
                state.advance_checkpoint(newest)  # another process was first
            if self._is_due(state):
                await write_checkpoint(self._log, state)
                await remove_replaced(self._log)
        except (IsthmusError, MovedError) as error:
            # The log is whole without it.
            self._not_before = state.seq + self._log.config.checkpoint_entries
            logger.warning("%s: no checkpoint this time: %s", self._log.prefix, error)
        finally:
            self._task = None

    async def close(self) -> None:
        """Stop: what is half written is never looked at."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def write_checkpoint(log: LogReader, state: LogState) -> bool:
    """Write the state of a view; False if another process did so for the same entry."""
    seq, first, tokens = state.seq, state.first, list(state.tokens)
    snapshot = [(id, state.locations[id]) for id in list(state.ids())]
    mark = new_token()
    parts: list[CheckpointPart] = []
    moved: list[tuple[Segment, list[tuple[RecordLocation, RecordRow]]]] = []
    at = 0
    while at < len(snapshot):
        at, rows = await _gather_rows(log, state, snapshot, at)
        name = f"{seq:020d}-{mark}-{len(parts)}.ndjson"
        body = part_body([row for _, row in rows])
        await log.requests.put(f"{log.prefix}{PARTS}{name}", body)
        parts.append(CheckpointPart(name, len(body), checksum(body)))
        moved.append((Segment(f"{log.prefix}{PARTS}{name}"), rows))
    manifest = Manifest(seq, parts, first, tokens)
    body = manifest_body(manifest, mark)
    try:
        await log.requests.put_if(manifest_key(log.prefix, seq), body, lambda found: mark.encode() in found)
    except PreconditionError:
        await log.requests.delete_many([f"{log.prefix}{PARTS}{part.name}" for part in parts])
        state.advance_checkpoint(seq)
        return False
    for segment, rows in moved:
        state.move(segment, rows)
    state.advance_checkpoint(seq)
    return True


async def _gather_rows(
    log: LogReader, state: LogState, snapshot: list[tuple[str, RecordLocation]], at: int
) -> tuple[int, list[tuple[RecordLocation, RecordRow]]]:
    """Return where to go on, and the rows of the next part, as they were in the snapshot."""
    rows: list[tuple[RecordLocation, RecordRow]] = []
    size = 0
    # Small enough that the view can hold some parts and let go of others.
    wanted = min(_PART_BYTES, log.config.memory_bytes // 8)
    while at < len(snapshot) and size < wanted:
        chunk = snapshot[at : at + 50]
        absent = {slot.segment for _, slot in chunk if slot.row is None}
        held = {id: slot.row for id, slot in chunk if slot.row is not None}
        found = await log.segments(state, absent)
        for id, slot in chunk:
            row = held.get(id) or found[slot.segment][id]
            rows.append((slot, row))
            size += len(row.data) + len(row.metadata) + 150
        at += len(chunk)
    return at, rows


async def remove_replaced(log: LogReader) -> int:
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
    doomed = [manifest_key(log.prefix, seq) for seq in old[:-1]]
    for part in await log.names(PARTS):
        at = part_seq(part.name)
        if at is not None and at <= kept_from and part.name not in used and part.modified <= limit:
            doomed.append(f"{log.prefix}{PARTS}{part.name}")
    for entry in await log.names(LOG):
        at = entry_seq(entry.name)
        if at is not None and at <= kept_from:
            doomed.append(entry_key(log.prefix, at))
    failed = await log.requests.delete_many(doomed)
    return len(doomed) - len(failed)
