"""The order service of the examples on PostgreSQL under load, then with the server killed half-way.

python -m tests.load.service --minutes 1 --connections 50

Prints answers, latencies and pool figures; exit code 1 if there was an error in the first run, an
untyped one in the second, one later than two seconds after the server's return, a leak, or an order
that was written without its stock, audit record and message, or they without it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from isthmus import AsyncDatabase
from tests.examples.processes import served
from tests.load.client import ARTICLES
from tests.servers import PostgresServer

GRACE = 2.0
DOWN = 2.0
STOCK = 10_000_000


def client(address: str, seconds: float, connections: int) -> subprocess.Popen[str]:
    """Start the second process."""
    command = [sys.executable, "-m", "tests.load.client", address, str(seconds), str(connections)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """Return what the second process reports."""
    output, _ = process.communicate(timeout=seconds + 120)
    found: dict[str, Any] = json.loads(output)
    return found


def show(title: str, found: dict[str, Any], address: str, seconds: float) -> dict[str, Any]:
    """Print a run; return the pool's figures at its end."""
    pool: dict[str, Any] = httpx.get(f"{address}/health", timeout=10).json()["pool"]
    done = sum(found["answers"].values())
    print(f"\n{title}: {done:,} requests, {done / seconds:,.0f}/s; {found['answers']}")
    for kind, figures in sorted(found["latencies"].items()):
        print(f"  {kind:<8} " + "  ".join(f"{name} {value:>8}" for name, value in figures.items()) + "  (ms)")
    print("  pool     " + ", ".join(f"{name} {value}" for name, value in pool.items()))
    return pool


def report_checks(checks: dict[str, bool]) -> bool:
    """Print which checks hold; return whether all do."""
    for name, holds in checks.items():
        print(f"  {'ok  ' if holds else 'FAIL'} {name}")
    return all(checks.values())


def steady(address: str, seconds: float, connections: int) -> tuple[bool, int]:
    """Load without a fault; return whether all was well, and how many orders were acknowledged."""
    found = result(client(address, seconds, connections), seconds)
    pool = show("steady", found, address, seconds)
    count = len(found["errors"])
    good = report_checks(
        {
            f"no error ({count})": not count,
            f"no connection is held afterwards ({pool['in_use']})": pool["in_use"] == 0,
            "nobody waits afterwards": pool["waiting"] == 0,
        }
    )
    return good, found["created"]


def outage(address: str, postgres: PostgresServer, seconds: float, connections: int) -> tuple[bool, int]:
    """Load with the server killed half-way and started again; returns what `steady` does."""
    process = client(address, seconds, connections)
    time.sleep(seconds / 2)
    postgres.kill()
    killed = time.time()
    time.sleep(DOWN)
    postgres.start()
    back = time.time()
    found = result(process, seconds)
    pool = show(f"killed for {back - killed:.1f} s", found, address, seconds)
    before = [error for at, error in found["errors"] if at < killed - 0.1]
    late = [(round(at - back, 2), error) for at, error in found["errors"] if at > back + GRACE]
    lost = sum(count for name, count in found["answers"].items() if name.startswith("404"))
    last = max((at for at, _ in found["errors"]), default=back) - back
    good = report_checks(
        {
            f"errors are typed ({found['untyped']})": not found["untyped"],
            "there were errors: the server was really gone": bool(found["errors"]),
            f"all that was acknowledged is found ({lost} not)": not lost,
            f"no error before ({before[:3]})": not before,
            f"the last error came {last:.2f} s after its return, at most {GRACE:g} ({late[:3]})": not late,
            "no connection is held afterwards": pool["in_use"] == 0,
        }
    )
    return good, found["created"]


async def consistent(url: str, created: int) -> bool:
    """Compare orders, stock, audit records and messages: each order took all of them with it."""
    async with await AsyncDatabase.open(url) as db:
        bought: Counter[str] = Counter()
        orders = 0
        async for order in db.collection("orders").stream():
            orders += 1
            for line in order["lines"]:
                bought[line["sku"]] += line["quantity"]
        articles = [record async for record in db.collection("articles").stream()]
        audits = await db.collection("audit").count()
        messages = await db.collection("outbox").count()
    sold = {record.id: record["sold"] for record in articles}
    return report_checks(
        {
            f"every acknowledged order is there ({orders} of {created})": orders >= created,
            f"each has its audit record and message ({audits}, {messages})": audits == messages == orders,
            f"its pieces are off stock ({sum(sold.values())} of {bought.total()})": sold
            == {sku: bought[sku] for sku in ARTICLES}
            and all(record["stock"] + record["sold"] == STOCK for record in articles),
        }
    )


def main() -> int:
    """Run both loads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    seconds = options.minutes * 60
    # Without fsync the test server acknowledges what a crash undoes.
    with PostgresServer(fsync=True, config={"max_connections": 60}) as postgres:
        url = f"{postgres.url}?preset=web&pool.max_size=20"
        print(f"PostgreSQL {postgres.url}, {options.connections} connections, {seconds:.0f} s each")
        with served("examples.orders:app", url) as address:
            for sku in ARTICLES:
                httpx.put(f"{address}/articles/{sku}", json={"stock": STOCK}).raise_for_status()
            first, before = steady(address, seconds, options.connections)
            second, after = outage(address, postgres, seconds, options.connections)
        good = asyncio.run(consistent(url, before + after)) and first and second
        left = int(_ask(postgres, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'isthmus'"))
        return (
            0
            if report_checks({f"no connection is left when the service has ended ({left})": not left})
            and good
            else 1
        )


def _ask(postgres: PostgresServer, question: str) -> str:
    import asyncpg

    async def ask() -> str:
        connection = await asyncpg.connect(postgres.url)
        try:
            return str(await connection.fetchval(question))
        finally:
            await connection.close()

    return asyncio.run(ask())


if __name__ == "__main__":
    assert Path("examples/orders.py").exists(), "run it at the root of the repository"
    raise SystemExit(main())
