"""Random declarations, for fields that can be named in a config: indexes, and columns with their kinds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.lookup import values_at
from isthmus._record import Record
from isthmus._values import kind_of
from isthmus.testing.records import paths_of
from tests.stores import COLUMNS, INDEXED, Declared

_KINDS = ("number", "text", "bool")


def random_indexes(rng: random.Random, backend: str, records: Iterable[Record]) -> Declared:
    """Return indexes of some fields, half of the times."""
    kinds = INDEXED.get(backend)
    if kinds is None or rng.random() < 0.5:
        return {}
    plain = _names(records)
    fields: dict[str, list[str]] = {}
    for name in rng.sample(plain, min(len(plain), 3)):
        fields.setdefault(rng.choice(kinds), []).append(name)
    return {**fields, "gin": True} if "gin" in kinds and rng.random() < 0.1 else fields


def random_columns(
    rng: random.Random, backend: str, records: list[Record], *, indexed: Declared | None = None
) -> Declared:
    """Return columns of some fields, mostly of the kind that most of their values have."""
    if backend not in COLUMNS or rng.random() < 0.35:
        return {}
    plain = _names(records)
    some = rng.sample(plain, min(len(plain), rng.choice((1, 2, 3, 8))))
    # Columns with an index of their own are another form: half of the indexed fields are among them.
    some += [name for names in (indexed or {}).values() if isinstance(names, list) for name in names[:1]]
    return {"columns": {name: _kind(rng, name, records) for name in some}}


def _kind(rng: random.Random, name: str, records: list[Record]) -> str:
    path = Path(Root.DATA, tuple(name.split(".")))
    kinds: Counter[Any] = Counter(kind_of(value) for r in records for value in values_at(r, path))
    common = [kind for kind, _ in kinds.most_common() if kind in _KINDS]
    return common[0] if common and rng.random() < 0.85 else rng.choice(_KINDS)


def _names(records: Iterable[Record]) -> list[str]:
    names = {".".join(keys) for record in records for keys in paths_of(record.data)}
    plain = sorted(
        name for name in names if all(part.isidentifier() and part.isascii() for part in name.split("."))
    )
    return [name for name in plain if not name.startswith("_")]
