"""A model of 300 fields and a lambda for each of them, which type checkers have to get through."""

from __future__ import annotations

import json
from pathlib import Path

FIELDS = 300
# A type, and a condition on a field of it.
_KINDS = (
    ("int", "p.{0} >= 25"),
    ("str", 'f(p.{0}).like("A%")'),
    ("int | None", "f(p.{0}) >= 3"),
    ("bool", "not_(p.{0})"),
    ("list[str]", 'f(p.{0}).has("a")'),
    ("dt.date", "p.{0} < dt.date(2026, 1, 1)"),
)


def write_wide_model(folder: Path) -> Path:
    """Write the module and pyright's settings into a folder; return the module's path."""
    fields, queries = [], []
    for number in range(FIELDS):
        kind, condition = _KINDS[number % len(_KINDS)]
        fields.append(f"    f{number}: {kind}")
        queries.append(f"    wide.where(lambda p: {condition.format(f'f{number}')})")
    lines = [
        "import datetime as dt",
        "from pydantic import BaseModel",
        "from isthmus.typed import TypedCollection, f, not_",
        "class Wide(BaseModel):",
        *fields,
        "def queries(wide: TypedCollection[Wide]) -> None:",
        *queries,
        "",
    ]
    path = folder / "wide_model.py"
    path.write_text("\n".join(lines))
    settings = {"include": ["."], "pythonVersion": "3.11", "typeCheckingMode": "strict"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    return path
