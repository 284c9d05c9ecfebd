"""What a copy or a repair came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isthmus import IsthmusError
from isthmus.transfer._digest import Digest

SHOWN = 1_000


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the target did not take, and why."""

    id: str
    error: IsthmusError


@dataclass(slots=True)
class Receipt:
    """The end of a copy; counts cover all runs of a resumed one, seconds only the last."""

    source: str
    target: str
    read: int = 0
    written: int = 0
    left_out: int = 0
    """Records that the transform left out."""
    rejected: int = 0
    rejections: list[Rejected] = field(default_factory=list)
    """The first 1,000 of this run."""
    digest: Digest | None = None
    """Over the records as they were written; None if it was not asked for."""
    bytes: int = 0
    """The JSON that was read in this run."""
    seconds: float = 0.0
    resumed_at: str | None = None
    """The id after which this run began; None if it began at the start."""
    earlier: int = 0
    """Records that earlier runs had read."""
    dry_run: bool = False
    would_create: int = 0
    would_change: int = 0
    unchanged: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as plain values."""
        shape: dict[str, Any] = {
            "source": self.source,
            "target": self.target,
            "read": self.read,
            "written": self.written,
            "left_out": self.left_out,
            "rejected": self.rejected,
            "rejections": [{"id": r.id, "error": str(r.error)} for r in self.rejections],
            "digest": None if self.digest is None else self.digest.hex,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "resumed_at": self.resumed_at,
            "earlier": self.earlier,
        }
        if self.dry_run:
            shape |= {
                "dry_run": True,
                "would_create": self.would_create,
                "would_change": self.would_change,
                "unchanged": self.unchanged,
            }
        return shape


@dataclass(slots=True)
class Repair:
    """What was mended."""

    written: int = 0
    deleted: int = 0
    left: int = 0
    """Records that only the target has and that were left there."""
