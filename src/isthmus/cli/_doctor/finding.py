"""A finding: what was checked, what was seen, and what mends it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from isthmus.cli._output import out


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


_SIGNS = {Level.OK: "[green]ok  [/]", Level.WARNING: "[yellow]warn[/]", Level.WRONG: "[bold red]BAD [/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome; `mend` is what to do, in the words of whoever has to do it."""

    check: str
    level: Level
    seen: str
    mend: str | None = None

    def show(self) -> None:
        """Print it for people."""
        console = out()
        console.print(
            f"{_SIGNS[self.level]} [bold]{escape(self.check)}[/]: {escape(self.seen)}", soft_wrap=True
        )
        if self.mend:
            console.print(f"       mend: {escape(self.mend)}", soft_wrap=True)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"check": self.check, "level": str(self.level), "seen": self.seen, "mend": self.mend}


def ok(check: str, seen: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, Level.OK, seen)


def warning(check: str, seen: str, mend: str) -> Finding:
    """Return a finding that may hurt some day."""
    return Finding(check, Level.WARNING, seen, mend)


def wrong(check: str, seen: str, mend: str) -> Finding:
    """Return a finding that hurts now."""
    return Finding(check, Level.WRONG, seen, mend)
