"""Samples a backend's main job: `make profile BACKEND=postgres`; a flame graph and its shares for the docs.

The job runs in a process of its own under py-spy, again and again for some seconds. Where the event
loop waits and no other thread works, the program waits for the server.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.data import document, documents, name_of
from benchmarks.profile.flame import draw, is_idle, part_of
from benchmarks.report.storage import ROOT, describe_machine, write_json
from isthmus import AsyncDatabase, Query, Record

PROFILES = Path(__file__).with_name("results")
IMAGES = ROOT / "docs" / "images"
SECONDS = 10
RATE = 100
WAITING = {"sqlite": "waiting for the other thread"}

Job = Callable[[], Awaitable[None]]
TITLES = {
    "postgres": "PostgreSQL: create_batch of 10,000",
    "elasticsearch": "Elasticsearch: create_batch of 10,000, searchable at return",
    "s3": "S3, object layout: search for a tenth of 1,000",
    "sqlite": "SQLite: create_batch of 10,000",
}


@asynccontextmanager
async def _create_batches(db: AsyncDatabase, *, fresh: bool = False) -> AsyncIterator[Job]:
    """Yield a batch of creates, into an emptied collection or with fresh ids where emptying is costly."""
    data, turn = documents(10_000), itertools.count()

    async def job() -> None:
        now = next(turn) if fresh else 0
        if not fresh:
            await db.clear()
        await db.create_batch([Record(d, id=f"{now}-{n}") for n, d in enumerate(data)])
        await db.refresh()

    yield job
    await db.clear()
    await db.close()


@asynccontextmanager
async def _job(backend: str) -> AsyncIterator[Job]:
    """Yield the backend's main job with its collection prepared."""
    match backend:
        case "postgres":
            config = {"url": os.environ["ISTHMUS_TEST_POSTGRES_URL"], "table": "profile"}
            async with _create_batches(await AsyncDatabase.create("postgres", config)) as job:
                yield job
        case "elasticsearch":
            hosts = [os.environ["ISTHMUS_TEST_ELASTICSEARCH_URL"]]
            config = {"hosts": hosts, "index": "profile"}
            async with _create_batches(
                await AsyncDatabase.create("elasticsearch", config), fresh=True
            ) as job:
                yield job
        case "s3":
            from benchmarks.suites.s3 import handle

            db = await handle("object", f"profile-{uuid.uuid4().hex[:8]}")
            await db.create_batch([Record(document(n), id=name_of(n)) for n in range(1_000)])

            async def search() -> None:
                assert len(await db.search(Query().filter("group", "=", 3))) == 100

            yield search
            await db.clear()
            await db.close()
        case _:
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "profile.db")
                async with _create_batches(await AsyncDatabase.create("sqlite", {"path": path})) as job:
                    yield job


async def _run(backend: str, running: Path) -> None:
    """Create the file `running` when sampling may begin, and run the job until it is removed."""
    async with _job(backend) as job:
        await job()
        running.write_text("")
        while running.exists():
            await job()


def _sample(backend: str) -> Counter[str]:
    """Return how often each stack was seen while a process of its own ran the job."""
    with tempfile.TemporaryDirectory() as folder:
        running, raw = Path(folder) / "running", Path(folder) / "raw"
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.profile", backend, "--run", str(running)], cwd=ROOT
        )
        while not running.exists():
            if process.poll() is not None:
                raise RuntimeError(f"the job of {backend} ended with {process.returncode}")
            time.sleep(0.05)
        spy = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(process.pid)]
        # Stopping each of obstore's threads for a sample takes longer than the time between two.
        depth = "--nonblocking" if backend == "s3" else "--native"
        options = [depth, "--idle", "--threads", "--format", "raw", "--output", str(raw)]
        pace = ["--rate", str(RATE), "--duration", str(SECONDS)]
        subprocess.run(
            [*spy, *options, *pace],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
        running.unlink()
        process.wait()
        stacks: Counter[str] = Counter()
        for line in raw.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            stacks[stack] += int(count)
        return stacks


def profile(backend: str) -> None:
    """Sample the job; write its flame graph and its shares."""
    stacks = _sample(backend)
    whole = sum(count for stack, count in stacks.items() if "MainThread" in stack.split(";", 1)[0])
    working = Counter({stack: count for stack, count in stacks.items() if not is_idle(stack)})
    parts: Counter[str] = Counter()
    for stack, count in working.items():
        parts[part_of(stack)] += count
    parts[WAITING.get(backend, "waiting for the server")] = max(0, whole - sum(working.values()))
    (IMAGES / f"profile-{backend}.svg").write_text(draw(working, whole, TITLES[backend]))
    found = {
        "backend": backend,
        "title": TITLES[backend],
        "samples": whole,
        "machine": describe_machine(),
        "shares": {
            part: round(count / whole, 3) for part, count in parts.most_common() if count >= whole / 100
        },
    }
    write_json(PROFILES / f"{backend}.json", found)
    print(f"{TITLES[backend]}: {whole} samples")
    for part, count in parts.most_common():
        print(f"  {count / whole:6.1%}  {part}")


def main() -> None:
    """Profile a backend, or run its job for the profiler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=list(TITLES))
    parser.add_argument("--run", type=Path, help="run the job as long as this file is there")
    arguments = parser.parse_args()
    if arguments.run:
        asyncio.run(_run(arguments.backend, arguments.run))
    else:
        profile(arguments.backend)


if __name__ == "__main__":
    main()
