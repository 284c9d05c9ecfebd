"""Many connections against the order service, from a process of its own; prints what happened as JSON.

python -m tests.load.client http://127.0.0.1:8000 60 50
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter

import httpx

ARTICLES = [f"a{number}" for number in range(10)]


class Tally:
    """Latencies by kind, answers by status, and when errors came."""

    def __init__(self) -> None:
        self.latencies: dict[str, list[float]] = {}
        self.answers: Counter[str] = Counter()
        self.untyped: list[str] = []
        self.errors: list[tuple[float, str]] = []
        self.created = 0

    def add(self, kind: str, seconds: float, answer: httpx.Response) -> None:
        """Take one answer in."""
        if answer.is_success:
            self.answers["ok"] += 1
            self.latencies.setdefault(kind, []).append(seconds)
            return
        try:
            name = answer.json()["error"]
        except (ValueError, KeyError):
            self.untyped.append(f"{answer.status_code}: {answer.text[:200]}")
            name = "untyped"
        self.answers[f"{answer.status_code} {name}"] += 1
        self.errors.append((time.time(), f"{answer.status_code} {name}"))

    def report(self) -> dict[str, object]:
        """Return it all as plain values, latencies as percentiles in milliseconds."""
        return {
            "answers": dict(self.answers),
            "created": self.created,
            "untyped": self.untyped[:10],
            "errors": self.errors,
            "latencies": {
                kind: {
                    "n": len(values),
                    **{f"p{q}": round(_percentile(values, q) * 1000, 1) for q in (50, 90, 99, 100)},
                }
                for kind, values in self.latencies.items()
            },
        }


def _percentile(values: list[float], q: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * q // 100)]


async def worker(client: httpx.AsyncClient, tally: Tally, until: float, seed: int) -> None:
    """Do one thing after another until the time is up: half reads, the rest orders, changes and searches."""
    chance = random.Random(seed)
    ids: list[str] = []
    customer = f"c{seed}"
    condition = json.dumps({"field": "customer", "op": "=", "value": customer})
    while time.monotonic() < until:
        draw = chance.random()
        begun = time.perf_counter()
        if not ids or draw < 0.2:
            kind = "create"
            answer = await client.post("/orders", json=_order(chance, customer))
            if answer.is_success:
                tally.created += 1
                ids.append(answer.json()["id"])
        elif draw < 0.7:
            kind = "get"
            answer = await client.get(f"/orders/{chance.choice(ids)}")
        elif draw < 0.9:
            kind = "change"
            answer = await client.patch(f"/orders/{chance.choice(ids)}", json={"note": str(draw)})
        else:
            kind = "search"
            answer = await client.get("/orders", params={"filter": condition, "sort": "-total", "size": 10})
        tally.add(kind, time.perf_counter() - begun, answer)


def _order(chance: random.Random, customer: str) -> dict[str, object]:
    """Return an order of two of the articles, which everybody buys."""
    lines = [
        {"sku": sku, "quantity": chance.randrange(1, 4), "price": "1.50"}
        for sku in chance.sample(ARTICLES, 2)
    ]
    return {"customer": customer, "due": "2027-01-01", "lines": lines}


async def main() -> None:
    """Run the workers and print the report."""
    address, seconds, connections = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    tally = Tally()
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as client:
        until = time.monotonic() + seconds
        await asyncio.gather(*(worker(client, tally, until, seed) for seed in range(connections)))
    print(json.dumps(tally.report()))


if __name__ == "__main__":
    asyncio.run(main())
