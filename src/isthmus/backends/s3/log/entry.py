"""The objects of layout `log`: entries, checkpoints, and their keys.

    _log/00000000000000000007.ndjson     an entry: a header line, then one line for each change
    _ckpt/00000000000000000256.json      a checkpoint's manifest: its parts and the entries it replaces
    _parts/00000000000000000256-….ndjson a part of a checkpoint: records in the order of ids

An entry is made with `If-None-Match: *` under the next number, so entries have one order that all
writers agree on, and each is there whole or not at all.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import orjson

from isthmus._core.unique import Unique, unique_from_json
from isthmus.backends.s3.envelope import Effect, RecordRow, make_row, parse_row
from isthmus.errors import UnexpectedError

LOG, CHECKPOINTS, PARTS = "_log/", "_ckpt/", "_parts/"
_FORMAT = 2
"""The newest format that is read: 1, and 2 for what declares unique fields or changes."""
_entry_name = re.compile(r"(\d{20})\.ndjson").fullmatch
_manifest_name = re.compile(r"(\d{20})\.json").fullmatch
_part_name = re.compile(r"(\d{20})-[0-9a-f]+-\d+\.ndjson").fullmatch


class KeptChanges(NamedTuple):
    """The declaration that a log keeps its changes; both are empty at its end."""

    making: str
    """A token of this declaration: positions of another one do not fit."""
    keep: float
    """Seconds for which entries are kept."""


NO_CHANGES = KeptChanges("", 0.0)


class Entry(NamedTuple):
    """A decoded entry; `cleared` deletes all records before the effects."""

    seq: int
    token: str
    cleared: bool
    effects: list[Effect]
    unique: frozenset[Unique] | None = None
    """The fields that are unique from this entry on; None if it changes nothing about that."""
    changes: KeptChanges | None = None
    """Whether changes are kept from this entry on, or `NO_CHANGES`; None if it changes nothing about that."""


class CheckpointPart(NamedTuple):
    """A part of a checkpoint, as its manifest names it."""

    name: str
    size: int
    sum: int | None = None
    """Of its bytes (`checksum`)."""


class Manifest(NamedTuple):
    """A checkpoint: the state after entry `seq`, and the tokens of the entries since the one before."""

    seq: int
    parts: list[CheckpointPart]
    first: int
    tokens: list[str]
    unique: frozenset[Unique] = frozenset()
    changes: KeptChanges | None = None


def entry_key(prefix: str, seq: int) -> str:
    """Return the key of an entry."""
    return f"{prefix}{LOG}{seq:020d}.ndjson"


def manifest_key(prefix: str, seq: int) -> str:
    """Return the key of a checkpoint's manifest."""
    return f"{prefix}{CHECKPOINTS}{seq:020d}.json"


def entry_seq(name: str) -> int | None:
    """Return the number in an entry's name, None if it is something else."""
    found = _entry_name(name)
    return int(found[1]) if found else None


def manifest_seq(name: str) -> int | None:
    """Return the number in a manifest's name, None if it is something else."""
    found = _manifest_name(name)
    return int(found[1]) if found else None


def part_seq(name: str) -> int | None:
    """Return the number in a part's name, None if it is something else."""
    found = _part_name(name)
    return int(found[1]) if found else None


def entry_body(
    seq: int,
    token: str,
    effects: Sequence[Effect],
    *,
    cleared: bool,
    unique: frozenset[Unique] | None = None,
    changes: KeptChanges | None = None,
) -> bytes:
    """Return an entry's body."""
    lines = [orjson.dumps({"deleted": id}) if row is None else row.line() for id, row in effects]
    lines.append(b"")
    body = b"\n".join(lines)
    return add_header(seq, token, len(effects), body, cleared=cleared, unique=unique, changes=changes)


def add_header(
    seq: int,
    token: str,
    count: int,
    body: bytes,
    *,
    cleared: bool,
    unique: frozenset[Unique] | None = None,
    changes: KeptChanges | None = None,
) -> bytes:
    """Return an entry's body: the header, and `count` lines."""
    header: dict[str, Any] = {
        # A declaration ended is no matter for a version that knows none.
        "isthmus": 2 if unique or (changes and changes.making) else 1,
        "seq": seq,
        "token": token,
        "lines": count,
        "cleared": cleared,
        "sum": checksum(body),
    }
    if unique is not None:
        header["unique"] = _unique_json(unique)
    if changes is not None:
        header["changes"] = list(changes)
    return orjson.dumps(header) + b"\n" + body


def entry_token(body: bytes) -> str | None:
    """Return the token in an entry's header."""
    try:
        return str(orjson.loads(body[: body.index(b"\n")])["token"])
    except (ValueError, KeyError, TypeError):
        return None


def checksum(body: bytes | memoryview) -> int:
    """Return the CRC-32 that detects damage without decoding."""
    return zlib.crc32(body)


def read_entry(body: bytes, key: str) -> Entry:
    """Return the entry of a body; raises `UnexpectedError` if it is damaged, since none can be skipped."""
    try:
        begin = body.index(b"\n") + 1
        header = orjson.loads(body[:begin])
        if header["isthmus"] > _FORMAT:
            raise UnexpectedError(
                f"{key} has format {header['isthmus']}, which this version does not support"
            )
        effects = _effects(body, begin, header.get("sum"))
        if len(effects) != header["lines"]:
            raise ValueError("lines are missing")
        unique = header.get("unique")
        declared = None if unique is None else unique_from_json(unique)
        changes = _parse_changes(header.get("changes"))
        return Entry(header["seq"], header["token"], header["cleared"], effects, declared, changes)
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedError(f"{key} is not a log entry that isthmus wrote ({error})") from None


def _parse_changes(found: Any) -> KeptChanges | None:
    return None if found is None else KeptChanges(str(found[0]), float(found[1]))


def _effects(body: bytes, begin: int, sum: int | None) -> list[Effect]:
    if sum is not None and checksum(memoryview(body)[begin:]) != sum:
        raise ValueError("its checksum differs")
    if sum is not None:
        rows = _split_rows(body, begin)
        if rows is not None:
            return [(row.id, row) for row in rows]
    *lines, last = body[begin:].split(b"\n")
    if last != b"":
        raise ValueError("the last line is cut")
    return [_effect(line) for line in lines]


def _effect(line: bytes) -> Effect:
    found = orjson.loads(line)
    if "data" in found:
        row = parse_row(found, line)
        return row.id, row
    return found["deleted"], None


# Rows without metadata and of plain ids, which are most, as `RecordRow.line` writes them. The
# times have no quotes, and a line has no line breaks.
_rows = re.compile(
    rb'\{"id":"([^"\\]*)","version":"([^"]*)","created_at":"([^"]*)","updated_at":"([^"]*)",'
    rb'"metadata":\{\},"data":([^\n]*)\}\n'
)


def _split_rows(body: bytes, begin: int) -> list[RecordRow] | None:
    """Return the rows of whole lines without decoding them; None if not all are of the plain form.

    A tenth of the time of decoding, and safe where a checksum proves that the lines are undamaged.
    """
    found = _rows.findall(body, begin)
    if not found or len(found) != body.count(b"\n", begin):
        return None
    *heads, data = zip(*found, strict=True)
    ids, versions, created, updated = (b"\n".join(head).decode().split("\n") for head in heads)
    times = {time: time for time in created + updated}  # most rows of a batch share one
    shared = map(times.__getitem__, created), map(times.__getitem__, updated)
    return list(map(make_row, zip(ids, versions, *shared, repeat(b"{}"), data, strict=False)))


def part_body(rows: Sequence[RecordRow]) -> bytes:
    """Return the body of a checkpoint's part."""
    return b"\n".join([row.line() for row in rows]) + b"\n" if rows else b""


def read_rows(body: bytes, key: str, sum: int | None = None) -> list[RecordRow]:
    """Return the rows in a part, or those that an entry wrote."""
    if sum is not None:
        if checksum(body) != sum:
            raise UnexpectedError(f"{key} is damaged (its checksum differs)")
        rows = _split_rows(body, 0)
        if rows is not None:
            return rows
    try:
        lines = [(orjson.loads(line), line) for line in body.split(b"\n") if line]
        return [parse_row(found, line) for found, line in lines if "data" in found]
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedError(f"{key} is damaged ({error})") from None


def manifest_body(manifest: Manifest, token: str) -> bytes:
    """Return a manifest's body."""
    body: dict[str, Any] = {
        "isthmus": 2 if manifest.unique or manifest.changes else 1,
        "seq": manifest.seq,
        "token": token,
        "parts": [[part.name, part.size] for part in manifest.parts],
        "sums": [part.sum for part in manifest.parts],
        "first": manifest.first,
        "tokens": manifest.tokens,
    }
    if manifest.unique:
        body["unique"] = _unique_json(manifest.unique)
    if manifest.changes:
        body["changes"] = list(manifest.changes)
    return orjson.dumps(body)


def _unique_json(declared: Iterable[Unique]) -> list[list[list[str]]]:
    return sorted(unique.to_json() for unique in declared)


def read_manifest(body: bytes, key: str) -> Manifest:
    """Return the manifest of a body."""
    try:
        found = orjson.loads(body)
        if found["isthmus"] > _FORMAT:
            raise UnexpectedError(f"{key} has format {found['isthmus']}, which this version does not support")
        sums = found.get("sums") or [None] * len(found["parts"])
        parts = [
            CheckpointPart(name, size, sum) for (name, size), sum in zip(found["parts"], sums, strict=True)
        ]
        unique = unique_from_json(found.get("unique", ()))
        changes = _parse_changes(found.get("changes"))
        return Manifest(found["seq"], parts, found["first"], found["tokens"], unique, changes)
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedError(f"{key} is not a checkpoint that isthmus wrote ({error})") from None
