"""Sets of records to query: nasty ones, where anything goes, and everyday ones of one type for each field."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass

from isthmus._record import Record
from isthmus._values import JSON, canonical
from isthmus.testing import values

_Make = Callable[[random.Random], JSON]


@dataclass(frozen=True, slots=True)
class RecordSet:
    """Records with distinct ids, in canonical form."""

    records: tuple[Record, ...]
    everyday: bool
    """Each field holds one type, lists of it, or lists of objects that hold it (semantics §6)."""


_MAKERS: tuple[_Make, ...] = (
    values.scalar,
    values.integer,
    values.real,
    values.text,
    values.value,
    values.value,
    lambda rng: rng.choice((values.integer(rng), values.real(rng))),
    lambda rng: rng.random() < 0.5,
    lambda rng: [values.scalar(rng) for _ in range(rng.randint(0, 3))],
    lambda rng: [values.value(rng, 2) for _ in range(rng.randint(0, 3))],
    lambda rng: _nested(rng, rng.choice((values.integer, values.real, values.scalar)), 4),
    lambda rng: {key: values.value(rng, 1) for key in rng.sample(values.KEYS, rng.randint(0, 3))},
    lambda rng: [{"p": values.scalar(rng), "q": values.text(rng)} for _ in range(rng.randint(0, 3))],
)


def _nested(rng: random.Random, item: _Make, depth: int) -> JSON:
    """Return items within lists within lists; objects between them at times."""
    if depth == 0 or rng.random() < 0.3:
        return item(rng)
    within = [_nested(rng, item, depth - 1) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    return [{"p": one} for one in within] if rng.random() < 0.1 else within


def nasty_set(rng: random.Random, size: int | None = None) -> RecordSet:
    """Return records whose fields agree on little; sometimes with texts at the stores' size limits."""
    count = size if size is not None else rng.randint(5, 60)
    fields = {values.key(rng): _palette(rng) for _ in range(rng.randint(2, 7))}
    records = []
    for id in values.ids(rng, count):
        data: dict[str, JSON] = {name: make(rng) for name, make in fields.items() if rng.random() < 0.8}
        if rng.random() < 0.1:
            data[values.key(rng)] = values.value(rng)
        metadata = {"source": values.text(rng), "n": values.integer(rng)} if rng.random() < 0.3 else {}
        records.append(Record(canonical(data), id=id, metadata=canonical(metadata)))
    return RecordSet(tuple(records), everyday=False)


def _palette(rng: random.Random) -> _Make:
    """Return a maker that draws from few values, so that records share some and differ in some."""
    make = rng.choice(_MAKERS)
    drawn = [canonical({"v": make(rng)})["v"] for _ in range(rng.randint(2, 8))]
    if rng.random() < 0.1:
        drawn.append(values.long_text(rng))
    if rng.random() < 0.3:
        drawn.append(values.value(rng))
    if rng.random() < 0.3:
        drawn.append(None)
    return lambda r: r.choice(drawn)


_NAMES = (
    "Alice",
    "alice",
    "Bob",
    "Zoë",
    "Élodie",
    "李雷",
    "Ω-3",
    "O'Neil",
    "50%",
    "a_b",
    "Łukasz",
    "Ярослав",
    "",
    "back\\slash",
)
_CITIES = ("Paris", "paris", "Köln", "東京", "São Paulo", "New York", "القاهرة", "Αθήνα", "Nice", "York")
_TAGS = ("red", "blue", "green", "Red", "a%", "ünï", "")


def everyday_set(rng: random.Random, size: int | None = None) -> RecordSet:
    """Return records such as applications have: one type for each field, some null, missing or empty."""
    count = size if size is not None else rng.randint(8, 60)
    records = []
    for number, id in enumerate(values.ids(rng, count)):
        data: dict[str, JSON] = {
            "name": rng.choice(_NAMES),
            "age": rng.randint(0, 99),
            "score": round(rng.uniform(-5, 5), 2) + 0.001,
            "active": rng.random() < 0.5,
            "big": 2**53 + rng.randint(-3, 3) if rng.random() < 0.5 else rng.randint(-(2**62), 2**62),
            "at": dt.datetime.fromtimestamp(1.7e9 + rng.randint(0, 50) * 3_600, dt.UTC),  # type: ignore[dict-item]
            "n": number,
            "tags": [rng.choice(_TAGS) for _ in range(rng.choice((0, 1, 2, 3)))],
            "marks": [rng.randint(0, 9) for _ in range(rng.choice((0, 1, 2)))],
            "address": {
                "city": rng.choice(_CITIES),
                "zip": str(rng.randint(1_000, 1_010)),
                "floor": rng.randint(0, 5),
            },
            "items": [
                {"price": rng.randint(1, 20), "sku": rng.choice(_TAGS), "sold": rng.random() < 0.5}
                for _ in range(rng.choice((0, 1, 2, 3)))
            ],
        }
        for name in tuple(data):
            chance = rng.random()
            if chance < 0.12:
                del data[name]
            elif chance < 0.2:
                data[name] = None
        metadata = {"source": rng.choice(("web", "file"))} if rng.random() < 0.5 else {}
        records.append(Record(canonical(data), id=id, metadata=canonical(metadata)))
    return RecordSet(tuple(records), everyday=True)
