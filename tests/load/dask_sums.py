"""Dask over PostgreSQL and S3: sums in eight partitions on two workers, one of them killed on the way.

python -m tests.load.dask_sums --records 200000

Needs ISTHMUS_TEST_POSTGRES_URL and ISTHMUS_TEST_S3_URL with AWS_* (`make load-dask` sees to that).
Exit code 1 unless count and sum equal the server's, also after the kill.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pandas
from distributed import Client, LocalCluster

from isthmus import AsyncDatabase, Query, Record
from isthmus._partition import Partition
from isthmus._values import new_id
from isthmus.integrations.dask import to_dask

PARTITIONS = 8
WORKERS = 2


def records(count: int) -> Iterator[Record]:
    """Yield what is stored."""
    for n in range(count):
        yield Record({"n": n, "group": f"g{n % 7}", "half": n / 2}, id=f"{n * 2_654_435_761 % 2**32:010}")


async def prepared(url: str, variable: str, count: int) -> tuple[list[Partition], dict[str, float]]:
    """Fill a store; return its partitions, and count and sums as the store itself has them."""
    async with await AsyncDatabase.open(url) as db:
        begun = time.perf_counter()
        await db.clear()
        await db.stream_write(records(count), batch_size=5_000)
        print(f"  {count:,} written in {time.perf_counter() - begun:.1f} s")
        rows = await db.aggregate(count="count", n=("sum", "n"), half=("sum", "half"))
        parts = await db.partitions(Query(), PARTITIONS, url_from=variable)
        assert len(parts) == PARTITIONS
        return parts, rows[0]


async def emptied(url: str) -> None:
    """Remove what was stored."""
    async with await AsyncDatabase.open(url) as db:
        await db.clear()


def summed(client: Client, parts: list[Partition], *, kill: bool) -> dict[str, float]:
    """Return count and sums by Dask; a worker is killed once the first partition is done."""
    meta = pandas.DataFrame(
        {
            "_id": pandas.Series(dtype="object"),
            "n": pandas.Series(dtype="int64"),
            "half": pandas.Series(dtype="float64"),
        }
    )
    frame = to_dask(parts, meta)
    futures = client.compute([part[["n", "half"]].sum() for part in frame.partitions])
    counts = client.compute([part["n"].count() for part in frame.partitions])
    if kill:
        while not any(future.done() for future in futures):
            time.sleep(0.02)
        done = sum(future.done() for future in futures)
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        print(f"  worker {victim} killed when {done} of {PARTITIONS} were done")
    sums = client.gather(futures)
    return {
        "count": sum(client.gather(counts)),
        "n": sum(int(part["n"]) for part in sums),
        "half": sum(float(part["half"]) for part in sums),
    }


def judged(client: Client, name: str, url: str, count: int) -> bool:
    """Print and compare one store's sums."""
    print(f"{name}:")
    variable = f"ISTHMUS_LOAD_{name.upper()}_URL"  # the workers, new ones too, inherited it
    parts, server = asyncio.run(prepared(url, variable, count))
    good = True
    for kill in (False, True):
        begun = time.perf_counter()
        dask = summed(client, parts, kill=kill)
        same = dask == server
        good = good and same
        print(f"  {'equal' if same else 'DIFFERENT'} in {time.perf_counter() - begun:.1f} s: {dask}"
              + ("" if same else f", the server has {server}"))  # fmt: skip
    asyncio.run(emptied(url))
    return good


def main() -> int:
    """Run on both stores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    options = parser.parse_args()
    name = f"load_{new_id().replace('-', '')}"
    postgres = f"{os.environ['ISTHMUS_TEST_POSTGRES_URL']}?table={name}"
    s3 = (
        f"{os.environ['ISTHMUS_TEST_S3_URL'].replace('/isthmus-test', f'/isthmus-test/{name}', 1)}&layout=log"
    )
    for store, url in (("postgres", postgres), ("s3", s3)):
        os.environ[f"ISTHMUS_LOAD_{store.upper()}_URL"] = url  # before the workers start: they inherit it
    good = True
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        for store, url in (("postgres", postgres), ("s3", s3)):
            good = judged(client, store, url, options.records) and good
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
