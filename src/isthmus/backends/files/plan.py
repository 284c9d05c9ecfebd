"""What `explain` shows of files: formats, sizes, types of columns, refused rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from isthmus.backends.files.formats.choose import FileFormat
from isthmus.backends.files.reader import FileReader
from isthmus.backends.files.scan import Scanner

_SHOWN = 20


def describe(
    reader: FileReader, scanner: Scanner, refused: Sequence[str], ignored: int, *, by_own_ids: bool
) -> dict[str, Any]:
    """Return the details of a plan."""
    files = scanner.catalog.files
    formats = Counter(_name(reader.format_of(file)) for file in files)
    details: dict[str, Any] = {
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "formats": dict(sorted(formats.items())),
    }
    if ignored:
        details["ignored files of other suffixes"] = ignored
    layouts = {}
    for file in files[:_SHOWN]:
        layout = reader.facts_of(file).layout
        if layout is not None:
            layouts[file.key] = {
                "delimiter": layout.delimiter,
                "encoding": layout.encoding,
                "headings": list(layout.headings),
            }
    if layouts:
        details["layouts"] = layouts
    if scanner.kinds:
        details["types"] = {**scanner.kinds, **reader.dialect.forced}
    if by_own_ids:
        details["order by id"] = "by a temporary file of all records"
    if refused:
        details["refused rows"] = list(refused)
    return details


def summarize(name: str, where: str, details: dict[str, Any]) -> str:
    """Return the plan as text: what is read, and what was found."""
    formats = ", ".join(f"{count} {format}" for format, count in details["formats"].items()) or "no files"
    lines = [f"scan {name} ({formats}; {details['bytes']:,} bytes) where {where}"]
    if "types" in details:
        lines.append("types: " + ", ".join(f"{name} {kind}" for name, kind in details["types"].items()))
    for key, layout in details.get("layouts", {}).items():
        lines.append(f"{key}: delimiter {layout['delimiter']!r}, encoding {layout['encoding']}")
    if "refused rows" in details:
        lines.append("left out: " + "; ".join(details["refused rows"]))
    return "\n".join(lines)


def _name(format: FileFormat | None) -> str:
    if format is None:
        return "unknown"
    return format.name + (f".{format.compression}" if format.compression else "")
