"""The journal of a copy: the ranges that the target acknowledged, from which a killed copy resumes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.transfer._digest import Digest
from isthmus.transfer._journal_file import JournalFile


@dataclass(frozen=True, slots=True)
class CopyIdentity:
    """What two runs must have in common to be the same copy; holds no secret."""

    source: str
    target: str
    query: str
    shape: str


@dataclass(slots=True)
class CopiedRange:
    """A range of ids that the target has acknowledged."""

    last_id: str
    """The last id of the range."""
    cursor: str | None
    """The source's cursor at the end of the range, a cheaper way to resume while it is valid."""
    read: int
    written: int = 0
    left_out: int = 0
    rejected: int = 0
    digest: Digest | None = None
    """Digest of the written records; None if digests are off."""

    def append(self, following: CopiedRange) -> None:
        """Extend the range by the one that follows it."""
        self.last_id, self.cursor = following.last_id, following.cursor
        self.read += following.read
        self.written += following.written
        self.left_out += following.left_out
        self.rejected += following.rejected
        if self.digest is None or following.digest is None:
            # A digest of a part would pass for one of the whole.
            self.digest = None
        else:
            self.digest += following.digest


class Journal:
    """A journal file whose entries are acknowledged ranges, contiguous from the first id on."""

    def __init__(self, path: str | Path, identity: CopyIdentity) -> None:
        self._file = JournalFile(path, "copy")
        self._identity = identity
        self.completed: CopiedRange | None = None
        """The sum of all ranges that earlier runs completed; None if there are none."""

    def open(self, *, resume: bool) -> None:
        """Open and lock the file, and read the completed ranges; raises as `JournalFile.open` does."""
        _, entries = self._file.open(dataclasses.asdict(self._identity), resume=resume)
        for number, entry in enumerate(entries, 2):
            try:
                self._add(_parse_range(entry))
            except (KeyError, TypeError, ValueError):
                raise self._file.damage(number) from None

    def _add(self, copied: CopiedRange) -> None:
        if self.completed is None:
            self.completed = copied
        else:
            self.completed.append(copied)

    def record(self, copied: CopiedRange) -> None:
        """Append an acknowledged range; it is on disk when this returns. A closed journal stays as it is."""
        self._file.append(
            {
                "to": copied.last_id,
                "cursor": copied.cursor,
                "read": copied.read,
                "written": copied.written,
                "left_out": copied.left_out,
                "rejected": copied.rejected,
                "digest": None if copied.digest is None else copied.digest.hex,
            }
        )

    def close(self) -> None:
        """Close and unlock the file, after what is being written to it."""
        self._file.close()


def _parse_range(entry: dict[str, Any]) -> CopiedRange:
    written, digest = entry["written"], entry["digest"]
    return CopiedRange(
        str(entry["to"]),
        entry["cursor"],
        entry["read"],
        written,
        entry["left_out"],
        entry["rejected"],
        None if digest is None else Digest(written, int(digest, 16)),
    )
