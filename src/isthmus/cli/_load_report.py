"""What a load did: counts, refused lines by kind of message, and how both are printed."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import Any

from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._output import print_json, print_note

MAX_ERRORS = 1_000
_MAX_NOTES = 20
_COUNTS = ("read", "created", "replaced", "skipped", "refused")
_VALUES = re.compile(r"""'[^']*'|"[^"]*"|\d+""")
"""What differs in messages of one kind: quoted text and numbers."""


@dataclass
class RefusedLines:
    """The refused lines of a load: the first ones in full, all of them by kind of message."""

    errors: list[tuple[str, int, str]] = field(default_factory=list)
    """File, line number and message of the first refused lines."""
    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)
    """How many lines were refused by messages of each kind, and the first of them with its place."""

    def add(self, file: str, number: int, message: str) -> None:
        """Add a line."""
        kind = _VALUES.sub("", message)
        count, note = self.kinds.get(kind) or (0, f"{file}:{number}: {message}")
        self.kinds[kind] = count + 1, note
        if len(self.errors) < MAX_ERRORS:
            self.errors.append((file, number, message))

    def extend(self, following: RefusedLines) -> None:
        """Add lines that were refused after these."""
        self.errors += following.errors[: MAX_ERRORS - len(self.errors)]
        for kind, (count, note) in following.kinds.items():
            before, first = self.kinds.get(kind, (0, note))
            self.kinds[kind] = before + count, first

    def print_notes(self) -> None:
        """Print the first line of each kind of message, with the number of lines."""
        for count, note in list(self.kinds.values())[:_MAX_NOTES]:
            others = f" (and {count - 1} more such line{'' if count == 2 else 's'})" if count > 1 else ""
            print_note(f"{note}{others}")
        if len(self.kinds) > _MAX_NOTES:
            print_note(f"… and {len(self.kinds) - _MAX_NOTES} more kinds of refused lines")


@dataclass
class LoadReport:
    """The counts of a load, those of the runs that it resumes included."""

    read: int = field(default=0, init=False)
    created: int = field(default=0, init=False)
    replaced: int = field(default=0, init=False)
    """Records that were there, and were replaced or updated."""
    skipped: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    uncertain: int = field(default=0, init=False)
    """Records of which it is unknown whether they were written, because the store did not answer."""
    earlier: int = field(default=0, init=False)
    """The rows that the runs before this one had done."""
    lines: RefusedLines = field(default_factory=RefusedLines, init=False)
    """The refused lines."""
    stopped: int | None = field(default=None, init=False)
    """The line at which loading stopped."""
    exit_code: ExitCode = field(default=ExitCode.RECORDS, init=False)
    replaced_word: str = field(default="replaced", init=False)

    @property
    def written(self) -> int:
        """The number of lines whose record is in the store."""
        return self.created + self.replaced

    def get_counts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {name: getattr(self, name) for name in _COUNTS}

    def set_counts(self, counts: dict[str, int]) -> None:
        """Begin with the counts of earlier runs."""
        for name in _COUNTS:
            setattr(self, name, counts.get(name, 0))
        self.earlier = self.read

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the refused lines; `written` and `failed` are their sums' older names."""
        uncertain = {"uncertain": self.uncertain} if self.uncertain else {}
        earlier = {"earlier": self.earlier} if self.earlier else {}
        return {
            **self.get_counts(),
            **uncertain,
            **earlier,
            "written": self.written,
            "failed": self.refused,
            "stopped": self.stopped,
            "errors": [
                {"file": name, "line": number, "message": text} for name, number, text in self.lines.errors
            ],
        }

    def report(self, *, as_json: bool) -> None:
        """Print the counts, and a note on each kind of refused lines."""
        if as_json:
            print_json(self.to_json())
            return
        self.lines.print_notes()
        earlier = f" ({self.earlier} of them in earlier runs)" if self.earlier else ""
        sys.stdout.write(f"{self._format_counts()}{earlier}\n")

    def report_failure(self, reason: str, *, as_json: bool, hint: str = "") -> None:
        """Print what was written before the load ended for this reason."""
        if as_json:
            print_json(self.to_json())
            return
        self.lines.print_notes()
        text = f"{reason} after {self.written} records were written: {self._format_counts()}"
        if self.uncertain:
            text += f"; {self.uncertain} more may have been written"
        print_note(text + hint)

    def _format_counts(self) -> str:
        skipped = f"{self.skipped} skipped, " if self._shows_skipped() else ""
        return (
            f"{self.read} read, {self.created} created, {self.replaced} {self.replaced_word}, {skipped}"
            f"{self.refused} refused"
        )

    def _shows_skipped(self) -> bool:
        return self.skipped > 0

    def raise_if_refused(self) -> None:
        """Raise `CommandError` if a line was refused."""
        if self.stopped is not None:
            raise CommandError(
                f"stopped at line {self.stopped}; {self.written} records were written"
                " (--on-error skip continues)",
                self.exit_code,
            )
        if self.refused:
            lines = "1 line was" if self.refused == 1 else f"{self.refused} lines were"
            raise CommandError(f"{lines} refused, {self.written} written", ExitCode.RECORDS)
