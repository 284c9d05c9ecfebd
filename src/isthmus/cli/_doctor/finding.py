"""A finding: what was checked, what was seen, and how to fix it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rich.markup import escape

from isthmus.cli._output import make_console


class Level(enum.StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


_LABELS = {Level.OK: "[green]ok  [/]", Level.WARNING: "[yellow]warn[/]", Level.WRONG: "[bold red]BAD [/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `fix` tells the operator what to do."""

    check: str
    level: Level
    seen: str
    fix: str | None = None

    def print(self) -> None:
        """Print the finding, and its fix on a line of its own."""
        console = make_console()
        console.print(
            f"{_LABELS[self.level]} [bold]{escape(self.check)}[/]: {escape(self.seen)}", soft_wrap=True
        )
        if self.fix:
            console.print(f"       fix: {escape(self.fix)}", soft_wrap=True)

    def to_json(self) -> dict[str, str | None]:
        """Return the finding as a JSON object; the key of the fix is `mend`."""
        return {"check": self.check, "level": str(self.level), "seen": self.seen, "mend": self.fix}


def ok(check: str, seen: str) -> Finding:
    """Return the finding of a check that passed."""
    return Finding(check, Level.OK, seen)


def warning(check: str, seen: str, fix: str) -> Finding:
    """Return the finding of a check that found a risk."""
    return Finding(check, Level.WARNING, seen, fix)


def problem(check: str, seen: str, fix: str) -> Finding:
    """Return the finding of a check that found a problem."""
    return Finding(check, Level.WRONG, seen, fix)


def check_clock(skew: float, limit: float) -> Finding:
    """Check how many seconds the server's clock is ahead of this machine's."""
    if abs(skew) <= limit:
        return ok("clock", f"{skew:+.2f} s")
    return problem(
        "clock",
        f"the server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's",
        "synchronize both with a time server (chronyd, systemd-timesyncd): certificates, signatures and"
        " times depend on it",
    )


def cleartext_problem(sender: str, fix: str) -> Finding:
    """Return the finding of a connection without TLS to another machine."""
    return problem("tls", f"{sender}: passwords and data are sent unencrypted", fix)
