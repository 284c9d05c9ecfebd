"""Writes the table of backends and what each can do into README.md; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from isthmus import Capabilities
from isthmus._core.registry import BACKENDS, plugin

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- capabilities: python -m docs.tools.capabilities -->\n", "<!-- /capabilities -->"


def table() -> str:
    """Return the table as Markdown: capabilities down, backends across."""
    plugins = [plugin(name) for name in BACKENDS]
    lines = [
        "| | " + " | ".join(p.name for p in plugins) + " |",
        "| --- |" + " --- |" * len(plugins),
    ]
    for name in Capabilities._fields:
        cells = [_cell(getattr(p.capabilities, name)) for p in plugins]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    match value:
        case True:
            return "yes"
        case False | None:
            return "–"
        case frozenset():
            return ", ".join(sorted(value)) or "–"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def main() -> int:
    """Write or check the table; return 1 if a check finds it old."""
    text = README.read_text()
    start = text.index(BEGIN) + len(BEGIN)
    new = text[:start] + table() + text[text.index(END) :]
    if "--check" in sys.argv:
        return 0 if new == text else 1
    README.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
