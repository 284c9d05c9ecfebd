"""Ray over PostgreSQL: sums in eight partitions on two workers, one of them killed on the way.

python -m tests.load.ray_sums --records 200000

Needs ISTHMUS_TEST_POSTGRES_URL (`make load-ray` sees to that). Exit code 1 unless count and sums equal
the server's, also after the kill.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import time

import pyarrow
import ray

from isthmus._ids import new_id
from isthmus._partition import Partition
from isthmus.integrations.ray import to_ray
from tests.load.dask_sums import WORKERS, emptied, prepared

VARIABLE = "ISTHMUS_LOAD_RAY_URL"


def totals(block: pyarrow.Table) -> pyarrow.Table:
    """Return one block's count and sums, and who read it; runs on a worker, in the task that reads."""
    sums = {name: sum(block[name].to_pylist()) for name in ("n", "half")}
    return pyarrow.Table.from_pylist([{"count": block.num_rows, **sums, "pid": os.getpid()}])


def summed(parts: list[Partition], *, kill: bool) -> dict[str, float]:
    """Return count and sums by Ray; the worker that gives the first block is killed then."""
    dataset = to_ray(parts).map_batches(totals, batch_format="pyarrow", batch_size=None)
    rows: list[dict[str, float]] = []
    victim = None
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=0):
        rows += batch.to_pylist()
        if kill and victim is None:
            victim = int(rows[0]["pid"])
            os.kill(victim, signal.SIGKILL)
            print(f"  worker {victim} killed after {len(rows)} blocks", flush=True)
    return {name: sum(row[name] for row in rows) for name in ("count", "n", "half")}


def main() -> int:
    """Run without and with a kill."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    options = parser.parse_args()
    url = f"{os.environ['ISTHMUS_TEST_POSTGRES_URL']}?table=load_{new_id().replace('-', '')}"
    os.environ[VARIABLE] = url  # the workers, new ones too, inherit it
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # one that is not given goes into the home folder
    parts, server = asyncio.run(prepared(url, VARIABLE, options.records))
    good = True
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        for kill in (False, True):
            begun = time.perf_counter()
            found = summed(parts, kill=kill)
            same = found == server
            good = good and same
            took = f"in {time.perf_counter() - begun:.1f} s: {found}"
            print(f"  equal {took}" if same else f"  DIFFERENT {took}, the server has {server}", flush=True)
    finally:
        ray.shutdown()
        asyncio.run(emptied(url))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
