"""Results of a copy and of a repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isthmus import IsthmusError
from isthmus.transfer._digest import Digest

MAX_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the target rejected, and the error."""

    id: str
    error: IsthmusError


@dataclass(slots=True)
class Receipt:
    """The result of a copy; counts cover all runs of a resumed copy unless noted otherwise."""

    source: str
    target: str
    read: int = 0
    written: int = 0
    left_out: int = 0
    """Records dropped by the transform."""
    rejected: int = 0
    rejections: list[Rejected] = field(default_factory=list)
    """The first 1,000 rejected records of this run."""
    digest: Digest | None = None
    """Digest of the records as written; None with `digests=False`, or if an earlier run had none."""
    bytes: int = 0
    """Estimated bytes of JSON read by this run."""
    seconds: float = 0.0
    """Duration of this run."""
    resumed_at: str | None = None
    """The id after which this run resumed; None if it started at the beginning."""
    earlier: int = 0
    """Records read by earlier runs."""
    dry_run: bool = False
    would_create: int = 0
    would_change: int = 0
    unchanged: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as JSON-serializable values; the digest is hexadecimal."""
        fields: dict[str, Any] = {
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
            fields |= {
                "dry_run": True,
                "would_create": self.would_create,
                "would_change": self.would_change,
                "unchanged": self.unchanged,
            }
        return fields


@dataclass(slots=True)
class Repair:
    """The result of a repair: how many records of the target were changed."""

    written: int = 0
    deleted: int = 0
    left: int = 0
    """Records that only the target has and that were not deleted."""
