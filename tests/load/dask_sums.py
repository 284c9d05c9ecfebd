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
from isthmus._ids import new_id
from isthmus._partition import Partition
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
    expected = pandas.DataFrame({"count": [0], "n": [0], "half": [0.0]})
    futures = client.compute(list(frame.map_partitions(totals, meta=expected).partitions))
    if kill:
        while not any(future.done() for future in futures):
            time.sleep(0.02)
        done = sum(future.done() for future in futures)
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        print(f"  worker {victim} killed when {done} of {PARTITIONS} were done", flush=True)
    rows = pandas.concat(client.gather(futures))
    return {
        "count": int(rows["count"].sum()),
        "n": int(rows["n"].sum()),
        "half": float(rows["half"].sum()),
    }


def totals(part: pandas.DataFrame) -> pandas.DataFrame:
    """Return one partition's count and sums; runs on a worker."""
    return pandas.DataFrame({"count": [len(part)], "n": [part["n"].sum()], "half": [part["half"].sum()]})


def check_sums(name: str, url: str, count: int) -> bool:
    """Print and compare one store's sums, without and with a kill."""
    variable = f"ISTHMUS_LOAD_{name.upper()}_URL"
    os.environ[variable] = url  # the workers, new ones too, inherit it
    print(f"{name}:", flush=True)
    # Before there is a cluster: its scheduler lives in this process and needs to be heard.
    parts, server = asyncio.run(prepared(url, variable, count))
    good = True
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for kill in (False, True):
            begun = time.perf_counter()
            dask = summed(client, parts, kill=kill)
            same = dask == server
            good = good and same
            took = f"in {time.perf_counter() - begun:.1f} s: {dask}"
            print(f"  equal {took}" if same else f"  DIFFERENT {took}, the server has {server}", flush=True)
    asyncio.run(emptied(url))
    return good


def main() -> int:
    """Run on the stores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--stores", default="postgres,s3")
    options = parser.parse_args()
    name = f"load_{new_id().replace('-', '')}"
    urls = {
        "postgres": lambda url: f"{url}?table={name}",
        "s3": lambda url: f"{url.replace('/isthmus-test', f'/isthmus-test/{name}', 1)}&layout=log",
    }
    results = [
        check_sums(store, urls[store](os.environ[f"ISTHMUS_TEST_{store.upper()}_URL"]), options.records)
        for store in options.stores.split(",")
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
