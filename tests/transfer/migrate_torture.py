"""Migrates a collection beside writers while it kills the migrator: `make migrate-torture`.

    python -m tests.transfer.migrate_torture URL --n 100000 --kills 20

Four writers, two of models and two of plain patches, change random records all the while. At the end
every record is of the new shape, each acknowledged write is there, the fields that nobody touched have
the digest that they had, and the figures of the dry run are those of what was then done.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from isthmus import AsyncDatabase, Collection, ConflictError, Query, Record, field
from isthmus.typed import TypedCollection
from tests.transfer.grown_model import Person

WRITERS = 4
BAD = 50
"""Records whose age is no number: they fail, until they are repaired."""
NEW = field("_metadata.schema") == 3


def old_records(n: int, rng: random.Random) -> list[Record]:
    """Return records of schema 1; the first few cannot be upgraded."""
    return [
        Record(
            {
                "name": f"First{i} Last{i}",
                "age": "old" if i < BAD else str(i % 90),
                "n": 0,
                "payload": rng.random(),
            },
            id=f"p{i:07}",
            metadata={"line": i},
        )
        for i in range(n)
    ]


async def digest(collection: Collection) -> str:
    """Return a digest of what neither the upgrades nor the writers touch."""
    total = 0
    async for record in collection.stream(page_size=5_000):
        text = json.dumps([record.id, record["payload"], record.metadata["line"]])
        total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    return f"{total:x}"


class Writers:
    """Four writers, each with records of its own; `acknowledged` is what the store confirmed."""

    def __init__(self, people: TypedCollection[Person], n: int, seed: int) -> None:
        self._people = people
        self._n = n
        self._seed = seed
        self._ended = asyncio.Event()
        self.acknowledged: dict[str, int] = {}

    async def run(self) -> None:
        """Write until `stop`."""
        await asyncio.gather(*(self._write(number) for number in range(WRITERS)))

    def stop(self) -> None:
        """End the writers after what they are writing."""
        self._ended.set()

    async def _write(self, number: int) -> None:
        rng = random.Random(self._seed + number)
        count = 0
        while not self._ended.is_set():
            index = rng.randrange(BAD, self._n)
            id = (
                f"p{index - index % WRITERS + number:07}"
                if index - index % WRITERS >= BAD + WRITERS
                else None
            )
            if id is None or int(id[1:]) >= self._n:
                continue
            count += 1
            try:
                if number % 2:
                    await self._people.update(id, n=count)
                else:
                    await self._people.untyped.update(id, {"n": count})
            except ConflictError:  # others kept changing it: nothing was written
                continue
            self.acknowledged[id] = count
            await asyncio.sleep(0.01)


def start_migrator(url: str, name: str, *options: str) -> subprocess.Popen[bytes]:
    """Start the command line's migration."""
    command = [sys.executable, "-m", "isthmus.cli", "migrate", url, name, "tests.transfer.grown_model:Person"]
    return subprocess.Popen([*command, "--json", "--batch", "200", *options], stdout=subprocess.PIPE)


async def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return the figures of a migration that ends by itself."""
    out, _ = await asyncio.to_thread(process.communicate)
    if process.returncode not in (0, 6):
        raise RuntimeError(f"the migration ended with {process.returncode}")
    figures: dict[str, Any] = json.loads(out.splitlines()[0])
    return figures


async def migrate_with_kills(collection: Collection, url: str, n: int, kills: list[int]) -> dict[str, Any]:
    """Migrate, killed each time that so many records are of the new shape; return the last run's figures."""
    due = sorted(kills)
    while True:
        process = start_migrator(url, collection.collection_name)
        while process.poll() is None:
            if due and await collection.count(NEW) >= due[0]:
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
                due.pop(0)
                break
            await asyncio.sleep(0.02)
        else:
            figures = await finish(process)
            if due:
                raise RuntimeError(f"{len(due)} kills came too late")
            return figures


async def torture(url: str, n: int, kills: int, seed: int) -> list[str]:
    """Run it all and return what is not as promised."""
    rng = random.Random(seed)
    async with await AsyncDatabase.open(url) as db:
        name = f"grown_{seed}_{int(time.time())}"
        people = db.collection(name, Person)
        plain = people.untyped
        try:
            records = old_records(n, rng)
            for start in range(0, n, 10_000):
                await plain.create_batch(records[start : start + 10_000])
            return await _torture(people, url, n, [rng.randrange(n * 9 // 10) for _ in range(kills)], seed)
        finally:
            await db.drop_collection(name)


async def _torture(
    people: TypedCollection[Person], url: str, n: int, kills: list[int], seed: int
) -> list[str]:
    plain, faults = people.untyped, []
    before = await digest(plain)
    dry = await finish(start_migrator(url, plain.collection_name, "--dry-run"))
    print(f"dry run: {dry}")
    writers = Writers(people, n, seed)
    writing = asyncio.create_task(writers.run())
    started = time.monotonic()
    last = await migrate_with_kills(plain, url, n, kills)
    seconds = time.monotonic() - started
    writers.stop()
    await writing

    new = await plain.count(NEW)
    print(f"{len(kills)} kills, {seconds:.0f} s, {len(writers.acknowledged)} records written meanwhile")
    print(f"last run: {last}")
    if (dry["migrated"], dry["failed"]) != (new, n - new):
        faults.append(f"the dry run's figures are {dry}, {new} records are of the new shape")
    if (last["failed"], last["reasons"]) != (dry["failed"], dry["reasons"]):
        faults.append(f"the last run failed otherwise than the dry run: {last}")
    await plain.update_batch({f"p{i:07}": {"age": "7"} for i in range(BAD)})
    repaired = await finish(start_migrator(url, plain.collection_name))
    if (repaired["read"], repaired["migrated"], repaired["failed"]) != (BAD, BAD, 0):
        faults.append(f"after the repair: {repaired}")
    faults += await _check_records(people, n, writers.acknowledged)
    if await digest(plain) != before:
        faults.append("the fields that nobody touched have another digest")
    return faults


async def _check_records(people: TypedCollection[Person], n: int, written: dict[str, int]) -> list[str]:
    """Return what is wrong with the records: shape, metadata, writes that were lost."""
    faults, count = [], 0
    async for record in records_of(people.untyped):
        count += 1
        if (
            set(record.data) != {"first", "last", "city", "age", "n", "payload"}
            or record.metadata["schema"] != 3
        ):
            faults.append(f"{record.id} is of another shape: {record.data} {record.metadata}")
        if record["n"] != written.get(str(record.id), 0):
            faults.append(
                f"{record.id}: n is {record['n']}, {written.get(str(record.id), 0)} was acknowledged"
            )
    if count != n:
        faults.append(f"{count} records, expected {n}")
    return faults[:20]


async def records_of(collection: Collection) -> AsyncIterator[Record]:
    """Yield all records in the order of their ids."""
    async for record in collection.stream(Query().sort("_id"), page_size=5_000):
        yield record


def main() -> int:
    """Run the torture and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faults = asyncio.run(torture(options.url, options.n, options.kills, options.seed))
    for fault in faults:
        print(f"not as promised: {fault}")
    print("as promised" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
