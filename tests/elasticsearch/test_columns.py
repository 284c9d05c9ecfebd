"""Creates in columns are the creates one by one, byte for byte."""

from __future__ import annotations

import datetime as dt
import random
import re
from typing import Any

import pytest

from isthmus._core.executor import ItemResult
from isthmus._core.mutation_batch import MutationBatch
from isthmus._ids import new_ids
from isthmus.backends.elasticsearch.bulk import Bulk
from isthmus.backends.elasticsearch.columns import creates_in_columns, fits
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.prepare import creates
from isthmus.backends.elasticsearch.shape import inferred
from isthmus.errors import InvalidRecordError
from tests.seeds import drawn

pytestmark = pytest.mark.backend("elasticsearch")

_TIME = re.compile(rb'"(created|updated)_at":"[^"]*"')
_SCALARS = [None, True, 0, -0.0, 1.5, 2**53 + 1, 2**63 - 1, 1e300, "", "text", "é" * 30, "1234567890123456"]
_LONG = ["x" * 9_000, "😀" * 4_100]
_NESTED = [[], {}, ["a", "b"], [1, "a"], [[1]], [{"x": 1}], {"x": {"y": [2**60]}}, {"a.b": 1}]
_FOREIGN = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), ("a", "b")]
_INVALID = [float("nan"), 2**64, dt.datetime(2026, 1, 1), {1: 2}]
_ODD: list[Any] = [*_SCALARS, *_LONG, *_NESTED, *_FOREIGN, *_INVALID]


def records(rng: random.Random, count: int, strange: float) -> list[dict[str, Any]]:
    """Return records that are mostly alike."""
    made = []
    for n in range(count):
        data: dict[str, Any] = {
            "n": n,
            "name": f"name {n}",
            "tags": ["a"] * (n % 3),
            "o": {"x": n / 7, "y": "text"},
        }
        while rng.random() < strange:
            data[rng.choice(["n", "name", "tags", "o", "more", "", "a.b"])] = rng.choice(_ODD)
        made.append(data)
    return made


def index() -> Index:
    """Return an index that knows some fields."""
    made = Index("x", ElasticsearchConfig.load({"index": "x"}, environ={}))
    for shape in made.data_shapes.of_many([{"n": 1, "name": "a", "tags": ["a"], "o": {"x": 1.5, "y": "a"}}]):
        made.types |= {name: inferred(dict.fromkeys(kinds, 1)) for name, kinds in shape.missing({})}
    return made


@pytest.mark.parametrize("strange", [0.0, 0.02, 0.5])
@pytest.mark.parametrize(("size", "most"), [(1_000, 5_000_000), (7, 5_000_000), (1_000, 2_000)])
def test_columns_are_what_records_are_one_by_one(strange: float, size: int, most: int) -> None:
    """The same documents, the same refusals, in requests that are within the limits."""
    seed = drawn()
    rng = random.Random(seed)
    data = records(rng, 333, strange)
    ids = [f'a"{n}' for n in range(333)] if strange else new_ids(333)
    outcomes = []
    for together in (True, False):
        at, bulk = index(), Bulk(ElasticsearchConfig.load({"bulk": {"size": size}}, environ={}).bulk)
        results: list[ItemResult | None] = [None] * len(data)
        changes = MutationBatch(list(ids), data)
        assert fits(at, changes)
        chunks = (
            creates_in_columns(at, bulk, most, changes, results)
            if together
            else creates(at, bulk, most, changes, range(len(data)), results)
        )
        lines: list[bytes] = []
        places: list[int] = []
        for chunk in chunks:
            for shape in chunk.shapes():
                at.ending(shape)
            made = chunk.lines(at)
            assert len(made) == len(chunk.at) <= size
            assert len(made) == 1 or sum(map(len, made)) <= most * 2
            lines += [_TIME.sub(rb"", line) for line in made]
            places += chunk.at
        refused = [(n, type(r), str(r)) for n, r in enumerate(results) if isinstance(r, InvalidRecordError)]
        assert all(r.record_id == ids[n] for n, r in enumerate(results) if isinstance(r, InvalidRecordError))
        outcomes.append((places, lines, refused))

    assert outcomes[0] == outcomes[1]
    assert strange < 0.5 or outcomes[0][2]
