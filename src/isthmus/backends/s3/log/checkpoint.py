"""Checkpoints of a log, written in the background, and the removal of the objects they replace.

The parts are written first, then the manifest with `If-None-Match: *`: a process killed in between
leaves parts that no manifest names. Entries and older checkpoints are removed once a checkpoint
that replaces them is older than the grace period, by the server's clock.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging

from isthmus.backends.s3.config import LogConfig
from isthmus.backends.s3.envelope import RecordRow, new_token
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.log.entry import (
    LOG,
    NO_CHANGES,
    PARTS,
    CheckpointPart,
    Manifest,
    add_header,
    checksum,
    entry_key,
    entry_seq,
    manifest_body,
    manifest_key,
    part_body,
    part_seq,
)
from isthmus.backends.s3.log.reader import LogReader, MovedError, row_in
from isthmus.backends.s3.log.state import LogState, RecordLocation, Segment
from isthmus.backends.s3.transport.requests import for_each
from isthmus.errors import IsthmusError, UnavailableError

logger = logging.getLogger("isthmus.s3")

_PART_BYTES = 8 * 2**20
# A checkpoint writes all records, so a large log gets one after more entries.
_BYTES_AN_ENTRY = 64 * 2**10


class Checkpointer:
    """Writes a checkpoint in the background once enough entries were added since the last one."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0
        """The entry from which to try again after a checkpoint that failed."""

    def start_if_due(self) -> None:
        """Start a checkpoint if it is due and none is running."""
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
            # The log is complete without it.
            self._not_before = state.seq + self._log.config.checkpoint_entries
            logger.warning("%s: no checkpoint this time: %s", self._log.prefix, error)
        finally:
            self._task = None

    async def close(self) -> None:
        """Cancel a running checkpoint; parts without a manifest are never read."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def write_checkpoint(log: LogReader, state: LogState) -> bool:
    """Write the records of a state; return False if another process did so for the same entry."""
    seq, first, tokens = state.seq, state.first, list(state.tokens)
    unique, changes = frozenset(state.unique.index.declared), state.changes
    snapshot = [(id, state.locations[id]) for id in list(state.ids())]
    token = new_token()
    parts: list[CheckpointPart] = []
    moved: list[tuple[Segment, list[tuple[RecordLocation, RecordRow]]]] = []
    start = 0
    while start < len(snapshot):
        start, rows = await _gather_rows(log, state, snapshot, start)
        name = f"{seq:020d}-{token}-{len(parts)}.ndjson"
        body = part_body([row for _, row in rows])
        await log.requests.put(f"{log.prefix}{PARTS}{name}", body)
        parts.append(CheckpointPart(name, len(body), checksum(body)))
        moved.append((Segment(f"{log.prefix}{PARTS}{name}"), rows))
    body = manifest_body(Manifest(seq, parts, first, tokens, unique, changes), token)
    try:
        await log.requests.put_if(manifest_key(log.prefix, seq), body, lambda found: token.encode() in found)
    except PreconditionError:
        await log.requests.delete_many([f"{log.prefix}{PARTS}{part.name}" for part in parts])
        state.advance_checkpoint(seq)
        return False
    for segment, rows in moved:
        state.move(segment, rows)
    state.advance_checkpoint(seq)
    return True


async def _gather_rows(
    log: LogReader, state: LogState, snapshot: list[tuple[str, RecordLocation]], start: int
) -> tuple[int, list[tuple[RecordLocation, RecordRow]]]:
    """Return the rows of the next part, as they were in the snapshot, and where the part after it starts."""
    rows: list[tuple[RecordLocation, RecordRow]] = []
    size = 0
    # Small enough that the state can hold some parts while it evicts others.
    wanted = min(_PART_BYTES, log.config.memory_bytes // 8)
    while start < len(snapshot) and size < wanted:
        chunk = snapshot[start : start + 50]
        evicted = {location.segment for _, location in chunk if location.row is None}
        held = {id: location.row for id, location in chunk if location.row is not None}
        read = await log.read_segments(state, evicted)
        for id, location in chunk:
            row = held.get(id) or row_in(read[location.segment], id)
            rows.append((location, row))
            size += len(row.data) + len(row.metadata) + 150
        start += len(chunk)
    return start, rows


async def remove_replaced(log: LogReader) -> int:
    """Delete the objects that a checkpoint older than the grace period replaced; return how many."""
    manifests = await log.manifests()
    if not manifests:
        return 0
    # The newest checkpoint was just written: its time is the server's current time.
    limit = _end_of_grace(max(listed.modified for _, listed in manifests), log.config)
    old = [seq for seq, listed in manifests if listed.modified <= limit]
    if not old:
        return 0
    used = await _parts_of(log, [seq for seq, _ in manifests if seq >= old[-1]])
    if used is None:
        return 0  # another process is removing
    doomed = [manifest_key(log.prefix, seq) for seq in old[:-1]]
    for part in await log.list_folder(PARTS):
        seq = part_seq(part.name)
        if seq is not None and seq <= old[-1] and part.name not in used and part.modified <= limit:
            doomed.append(f"{log.prefix}{PARTS}{part.name}")
    doomed += await _list_replaced_entries(log, old[-1], limit)
    failed = await log.requests.delete_many(doomed)
    return len(doomed) - len(failed)


def _end_of_grace(now: dt.datetime, config: LogConfig) -> dt.datetime:
    """Return the time up to which what was replaced may go.

    S3 cuts times to whole seconds, so two that seem to be a second apart may be no time apart.
    """
    return now - dt.timedelta(seconds=config.grace + 1 if config.grace else 0)


async def compact(log: LogReader) -> tuple[bool, int]:
    """Write a checkpoint if there are entries since the last one, and remove what was replaced.

    Return whether one was written, and how many objects were removed.
    """

    async def work(state: LogState) -> bool:
        newest = await log.newest_manifest()
        return state.seq > (newest or 0) and await write_checkpoint(log, state)

    written = await log.run(work)
    return written, await remove_replaced(log)


async def _list_replaced_entries(log: LogReader, last: int, limit: dt.datetime) -> list[str]:
    """Return the keys of entries up to a number that nobody needs any more.

    Where changes are kept, entries younger than that time stay, and the youngest of the older ones: a
    reader that has all changes up to it goes on there.
    """
    state = log.state
    changes = None if state is None else state.changes
    if changes is None:
        found = await log.list_folder(LOG)
        return [entry_key(log.prefix, seq) for one in found if (seq := entry_seq(one.name)) and seq <= last]
    keys: list[str] = []
    oldest = limit - dt.timedelta(seconds=max(0.0, changes.keep - log.config.grace))
    async for listed in log.list_pages(LOG):
        for one in listed:
            seq = entry_seq(one.name)
            if seq is None:
                continue
            if seq > last or one.modified > oldest:
                return keys[:-1]
            keys.append(entry_key(log.prefix, seq))
    return keys[:-1]


async def _parts_of(log: LogReader, seqs: list[int]) -> set[str] | None:
    """Return the parts that checkpoints name; None if one of these was removed meanwhile."""
    used: set[str] = set()
    for seq in seqs:
        manifest = await log.manifest(seq)
        if manifest is None:
            return None
        used |= {part.name for part in manifest.parts}
    return used


async def drop_log(log: LogReader) -> None:
    """Delete the objects of a log whose records were all deleted by its last entry.

    The numbers of entries are never used again: a handle in another process, whatever entry it read
    last, then finds the next one at its next read, and its next write fails because that exists.
    For this, two kinds of objects stay, both without data: the manifest of an empty checkpoint,
    after which the log continues, and the entries of the last grace period (`log.grace`), each
    overwritten by one that deletes all records. The log's next checkpoints remove them. Records
    that other handles write in the meantime belong to the new collection and stay.

    It can be interrupted anywhere and called again. Costs a PUT for each entry of the last grace
    period, and a bulk deletion of the rest. Raises a `StoreError`.
    """
    state = await log.current()
    live_from = state.live_from
    if await log.newest_manifest() != state.seq:
        await write_checkpoint(log, state)
    manifests = await log.manifests()
    newest, listed = manifests[-1]
    limit = _end_of_grace(listed.modified, log.config)
    tokens: dict[int, str] = {}
    used: set[str] = set()
    for number, _ in manifests:
        manifest = await log.manifest(number)
        if manifest is not None:
            tokens.update(enumerate(manifest.tokens, manifest.first))
            # Only the newest one is read from now on; it has parts if somebody wrote meanwhile.
            used = {part.name for part in manifest.parts}
        elif number == newest:
            raise UnavailableError(f"{log.prefix}: another process is replacing the log's checkpoints")
    doomed: list[str] = []
    emptied: list[tuple[str, bytes]] = []
    for entry in await log.list_folder(LOG):
        seq = entry_seq(entry.name)
        if seq is not None and seq <= newest:
            key = entry_key(log.prefix, seq)
            token = tokens.get(seq) or new_token()
            body = add_header(seq, token, 0, b"", cleared=True, unique=frozenset(), changes=NO_CHANGES)
            if entry.modified <= limit:
                doomed.append(key)
            elif seq < live_from and entry.size != len(body):
                emptied.append((key, body))

    async def empty(item: tuple[str, bytes]) -> None:
        await log.requests.put(*item)

    await for_each(empty, emptied, log.requests.limit)
    for part in await log.list_folder(PARTS):
        seq = part_seq(part.name)
        if seq is not None and seq <= newest and part.name not in used:
            doomed.append(f"{log.prefix}{PARTS}{part.name}")
    doomed += [manifest_key(log.prefix, seq) for seq, _ in manifests if seq < newest]
    failed = await log.requests.delete_many(doomed)
    if failed:
        raise next(iter(failed.values()))
