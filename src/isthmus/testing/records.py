"""Generated sets of records: nasty ones of any values, and everyday ones with one type per field."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass

from isthmus._record import Record
from isthmus._values import JSON, canonical
from isthmus.testing import values

_Generator = Callable[[random.Random], JSON]


@dataclass(frozen=True, slots=True)
class RecordSet:
    """Records with distinct ids, in canonical form."""

    records: tuple[Record, ...]
    everyday: bool
    """Each field holds one type, lists of it, or lists of objects that hold it."""


_GENERATORS: tuple[_Generator, ...] = (
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
    lambda rng: _generate_nested(rng, rng.choice((values.integer, values.real, values.scalar)), 4),
    lambda rng: {key: values.value(rng, 1) for key in rng.sample(values.KEYS, rng.randint(0, 3))},
    lambda rng: [{"p": values.scalar(rng), "q": values.text(rng)} for _ in range(rng.randint(0, 3))],
)


def _generate_nested(rng: random.Random, item: _Generator, depth: int) -> JSON:
    """Return items in nested lists, sometimes with objects in between."""
    if depth == 0 or rng.random() < 0.3:
        return item(rng)
    items = [_generate_nested(rng, item, depth - 1) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    return [{"p": one} for one in items] if rng.random() < 0.1 else items


def nasty_set(rng: random.Random, size: int | None = None) -> RecordSet:
    """Return records whose fields mix types and edge cases, sometimes with texts at size limits of stores.

    `size` is the number of records, by default 5 to 60.
    """
    count = size if size is not None else rng.randint(5, 60)
    fields = {values.key(rng): _choose_values(rng) for _ in range(rng.randint(2, 7))}
    records = []
    for id in values.ids(rng, count):
        data: dict[str, JSON] = {
            name: generate(rng) for name, generate in fields.items() if rng.random() < 0.8
        }
        if rng.random() < 0.1:
            data[values.key(rng)] = values.value(rng)
        metadata = {"source": values.text(rng), "n": values.integer(rng)} if rng.random() < 0.3 else {}
        records.append(Record(canonical(data), id=id, metadata=canonical(metadata)))
    return RecordSet(tuple(records), everyday=False)


def _choose_values(rng: random.Random) -> _Generator:
    """Return a generator that draws from a few values, so that records share some of them."""
    generate = rng.choice(_GENERATORS)
    candidates = [canonical({"v": generate(rng)})["v"] for _ in range(rng.randint(2, 8))]
    if rng.random() < 0.1:
        candidates.append(values.long_text(rng))
    if rng.random() < 0.3:
        candidates.append(values.value(rng))
    if rng.random() < 0.3:
        candidates.append(None)
    return lambda r: r.choice(candidates)


# fmt: off
_NAMES = (
    "Alice", "alice", "Bob", "Zoë", "Élodie", "李雷", "Ω-3", "O'Neil", "50%", "a_b", "Łukasz", "Ярослав", "",
    "back\\slash",
)
# fmt: on
_CITIES = ("Paris", "paris", "Köln", "東京", "São Paulo", "New York", "القاهرة", "Αθήνα", "Nice", "York")
_TAGS = ("red", "blue", "green", "Red", "a%", "ünï", "")


def everyday_set(rng: random.Random, size: int | None = None) -> RecordSet:
    """Return records as applications have them: one type for each field, some null, missing or empty.

    `size` is the number of records, by default 8 to 60.
    """
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


def paths_of(data: JSON) -> set[tuple[str, ...]]:
    """Return the paths of all keys in a JSON value; paths pass through lists."""
    paths: set[tuple[str, ...]] = set()
    _collect_paths(data, (), paths)
    return paths


def _collect_paths(value: JSON, prefix: tuple[str, ...], paths: set[tuple[str, ...]]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            paths.add((*prefix, name))
            _collect_paths(item, (*prefix, name), paths)
    elif isinstance(value, list):
        for item in value:
            _collect_paths(item, prefix, paths)
