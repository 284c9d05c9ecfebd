"""Kills, cuts and cancels under load on all backends: `make torture MINUTES=10`.

A writer in a process of its own has forty writes in flight and tells this process of each
acknowledgement. Meanwhile the server is killed with SIGKILL and started again, connections are cut,
and the writer cancels some of its own tasks. In the end every record is read and compared: what was
acknowledged and is not there is lost, what is there twice is doubled, what was refused for sure and
is there is a phantom. SQLite has no server: its writer is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from isthmus import AsyncDatabase
from isthmus.testing.proxy import Fault, FaultProxy
from tests import servers
from tests.faults.torture_writer import WRITERS

BACKENDS = ("sqlite", "postgres", "s3-object", "s3-log", "elasticsearch")
IN_FLIGHT = 20


@dataclass
class Log:
    """What the writer told, and when."""

    begun: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    doubt: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)
    """Why, by number."""
    left: tuple[int, int] | None = None
    last: float = 0.0

    def take(self, line: str) -> None:
        """Note one line."""
        what, *rest = line.split()
        if what == "refused":
            self.refused[int(rest[0])] = " ".join(rest[1:])
            return
        numbers = set(map(int, rest))
        match what:
            case "begun":
                self.begun |= numbers
            case "acknowledged":
                self.acknowledged |= numbers
                self.last = time.monotonic()
            case "doubt" | "cancelled":
                self.doubt |= numbers
            case "left":
                self.left = (int(rest[0]), int(rest[1]))

    @property
    def in_flight(self) -> int:
        """How many records are begun and neither acknowledged nor failed."""
        return len(self.begun - self.acknowledged - self.doubt - self.refused.keys())


@dataclass
class Tally:
    """What a backend's run came to."""

    backend: str
    strikes: Counter[str]
    acknowledged: int
    found: int
    lost: int
    doubled: int
    phantom: int
    leaked: int
    recovery: float
    seed: int
    complaint: str

    def __str__(self) -> str:
        strikes = ", ".join(f"{count} {name}" for name, count in sorted(self.strikes.items()))
        return (
            f"{self.backend}: {strikes}; acknowledged {self.acknowledged}, found {self.found},"
            f" lost {self.lost}, doubled {self.doubled}, phantom {self.phantom}, leaked {self.leaked},"
            f" slowest recovery {self.recovery:.1f} s (seed {self.seed}){self.complaint}"
        )

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled, leaked or untrue."""
        return not (self.lost or self.doubled or self.phantom or self.leaked or self.complaint)


class Process:
    """The writer and the thread that logs what it tells."""

    def __init__(self, settings: dict[str, Any], log: Log, env: dict[str, str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.torture_writer", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        self._log = log
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.endswith("\n"):  # the last one of a killed writer may be cut
                self._log.take(line)

    def kill(self) -> None:
        """End it with SIGKILL and take what it had told."""
        self._child.kill()
        self._child.wait()
        self._thread.join()

    def stop(self) -> str:
        """Let it end by itself; return what it complained of."""
        assert self._child.stdin is not None
        assert self._child.stderr is not None
        self._child.stdin.close()
        try:
            self._child.wait(60)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return " the writer did not end within 60 s"
        self._thread.join()
        said = self._child.stderr.read().strip()
        return f" the writer said: {said[-600:]}" if said or self._child.returncode else ""


def _wait(until: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def torture_sqlite(seconds: float, seed: int) -> Tally:
    """Kill the writer itself, again and again, on one file."""
    pick = Random(seed)
    strikes: Counter[str] = Counter()
    log = Log()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/torture.db"
        end = time.monotonic() + seconds
        start = 0
        slowest = 0.0
        while time.monotonic() < end:
            before = len(log.acknowledged)
            settings = {"url": url, "config": {"table": "t"}, "seed": pick.randrange(2**32), "start": start}
            begun = time.monotonic()
            process = Process(settings, log, {})
            if not _wait(lambda n=before: len(log.acknowledged) > n + 50 and log.in_flight >= IN_FLIGHT, 30):
                process.kill()
                return _tally("sqlite", log, strikes, [], slowest, seed, " no progress after a kill", 0)
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(pick.random() * 0.5)
            process.kill()
            strikes["kills of the writer, >= 20 writes in flight"] += 1
            log.doubt |= log.begun - log.acknowledged - log.refused.keys()
            start += 1_000_000
        settings = {"url": url, "config": {"table": "t"}, "seed": seed, "start": start}
        process = Process(settings, log, {})
        time.sleep(1)
        complaint = process.stop()
        found = asyncio.run(_numbers(url, {"table": "t"}))
        return _tally("sqlite", log, strikes, found, slowest, seed, complaint, 0)


async def _numbers(url: str, config: dict[str, Any]) -> list[int]:
    async with await AsyncDatabase.open(url, config) as db:
        await db.refresh()  # another handle's last writes are found by search up to a second later
        return [record["n"] async for record in db.stream()]


def _server(backend: str) -> tuple[servers.LocalServer, dict[str, Any]]:
    if backend == "postgres":
        return servers.PostgresServer(fsync=True), {"table": "torture"}
    if backend == "elasticsearch":
        return servers.ElasticsearchServer(), {"index": "torture"}
    return servers.VersityServer(), {"prefix": "torture", "layout": backend.split("-")[1]}


def _asserted(backend: str, server: servers.LocalServer) -> None:
    """Raise unless the server syncs what it acknowledges."""
    if backend != "postgres":
        return

    async def ask() -> list[str]:
        import asyncpg

        connection = await asyncpg.connect(server.url)
        try:
            return [await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
        finally:
            await connection.close()

    if asyncio.run(ask()) != ["on", "on"]:
        raise AssertionError("the server does not sync its commits")


def torture_server(backend: str, seconds: float, seed: int) -> Tally:
    """Kill the server and cut connections while the writer writes."""
    pick = Random(seed)
    strikes: Counter[str] = Counter()
    log = Log()
    server, config = _server(backend)
    slowest = 0.0
    with server:
        os.environ.update(server.env)
        _asserted(backend, server)
        url = f"es+{server.url}" if backend == "elasticsearch" else server.url
        asyncio.run(_numbers(url, config))
        with FaultProxy("127.0.0.1", server.port) as proxy:
            settings = {"url": proxy.through(url), "config": config, "seed": seed, "start": 0}
            process = Process(settings, log, server.env)
            end = time.monotonic() + seconds
            complaint = ""
            while time.monotonic() < end and not complaint:
                if not _wait(lambda: log.in_flight >= IN_FLIGHT and log.last > 0, 60):
                    complaint = " fewer than 20 writes in flight for 60 s"
                    break
                strike = pick.choice(("kill", "cut", "lose the answer", "cut after the request"))
                if strike == "kill":
                    server.kill()
                    strikes["kills, >= 20 writes in flight"] += 1
                    time.sleep(pick.random() * 0.5)
                    server.start()
                    listening = time.monotonic()
                    if not _wait(lambda t=listening: log.last > t, 30):
                        complaint = " nothing was acknowledged within 30 s of the server listening"
                    slowest = max(slowest, time.monotonic() - listening)
                elif strike == "cut":
                    strikes["connections cut"] += proxy.cut()
                else:
                    fault = Fault(strike)
                    before = proxy.fired(fault)
                    proxy.inject(fault, times=5)
                    _wait(lambda f=fault, n=before: proxy.fired(f) >= n + 5, 3)
                    proxy.heal()
                    strikes[f"times {fault.value}"] += proxy.fired(fault) - before
                time.sleep(pick.random() * 0.7)
            complaint += process.stop()
            sessions = _sessions(server) if backend == "postgres" else 0
        found = asyncio.run(_numbers(url, config))
        return _tally(backend, log, strikes, found, slowest, seed, complaint, sessions)


def _sessions(server: servers.LocalServer) -> int:
    """Return how many sessions are left at the server a little after its only client has closed."""

    async def ask() -> int:
        import asyncpg

        connection = await asyncpg.connect(server.url)
        try:
            for _ in range(60):
                left = await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL"
                    " AND pid <> pg_backend_pid()"
                )
                if not left:
                    break
                await asyncio.sleep(0.05)
            return int(left)
        finally:
            await connection.close()

    return asyncio.run(ask())


def _tally(
    backend: str,
    log: Log,
    strikes: Counter[str],
    found: list[int],
    slowest: float,
    seed: int,
    complaint: str,
    sessions: int,
) -> Tally:
    there = Counter(found)
    if missing := log.acknowledged - there.keys():
        complaint += f" lost of {max(log.begun)}: {sorted(missing)[:5]}"
    phantoms = (log.refused.keys() - log.acknowledged - log.doubt) & there.keys()
    for why, count in Counter(log.refused[number] for number in phantoms).most_common(5):
        complaint += f" {count} phantoms were refused by {why}"
    if log.left is None and not complaint:
        complaint = " the writer did not tell what it left"
    return Tally(
        backend,
        strikes,
        len(log.acknowledged),
        len(found),
        len(log.acknowledged - there.keys()),
        sum(count - 1 for count in there.values()),
        len(phantoms),
        sum(log.left or ()) + sessions,
        slowest,
        seed,
        complaint,
    )


def main() -> int:
    """Run the backends one after another, in equal shares of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="*", default=list(BACKENDS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=Random().randrange(2**32))
    options = parser.parse_args()
    share = options.minutes * 60 / len(options.backends)
    print(f"{WRITERS} writes in flight, {share:.0f} s for each backend", flush=True)
    tallies = []
    for backend in options.backends:
        if backend == "sqlite":
            tally = torture_sqlite(share, options.seed)
        else:
            tally = torture_server(backend, share, options.seed)
        tallies.append(tally)
        print(tally, flush=True)
    total = [
        sum(getattr(t, name) for t in tallies)
        for name in ("acknowledged", "found", "lost", "doubled", "leaked")
    ]
    print("acknowledged {}, found {}, lost {}, doubled {}, leaked {}".format(*total))
    return 0 if all(tally.good for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
