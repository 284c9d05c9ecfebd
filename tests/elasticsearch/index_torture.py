"""Indices that are deleted, remade and aliased under load: `make index-torture MINUTES=2 SEED=1`.

Eight writers and eight readers use two names through handles that stay open. Meanwhile an operator deletes
the index of the first name, makes it again with other types, or lets another program create it, and moves,
filters and widens the alias that the second name is. After each change the indices are read as they are
and compared with what was acknowledged and with what searches by value find.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from elasticsearch import ApiError, AsyncElasticsearch
from isthmus import AsyncDatabase, Record
from isthmus import field as path
from isthmus.errors import Applied, ConfigError, IsthmusError, UnavailableError
from isthmus.native import elasticsearch as native_of
from tests import servers

VALUES: tuple[Any, ...] = (1, 2, 3.5, "1", "2", "x", True, False)
WRITERS = READERS = 8
HANDLES = 3
_SHOWN = 20


@dataclass(frozen=True)
class Written:
    """A record that was acknowledged, and in which state of its name."""

    id: str
    data: dict[str, Any]
    began: int
    ended: int


@dataclass
class Name:
    """A collection's name and what the operator has made of it."""

    name: str
    handles: list[AsyncDatabase] = field(default_factory=list)
    epoch: int = 0
    """Odd while the operator changes something."""
    usable: bool = True
    """Whether the name stands for one whole index of ours, or for none."""
    indices: list[str] = field(default_factory=list)
    """The indices behind an alias; empty for a plain index."""
    target: str = ""
    """The index that the name stands for."""
    acknowledged: list[Written] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """The ids of records of which an error said that they were not written."""

    @contextlib.asynccontextmanager
    async def changing(self, *, usable: bool) -> AsyncIterator[None]:
        """Mark the time in which a call may meet either state."""
        self.epoch += 1
        yield
        self.usable = usable
        self.epoch += 1

    def is_steady(self, since: int) -> bool:
        """Return whether nothing has changed since an epoch."""
        return self.epoch == since and since % 2 == 0


class Torture:
    """One run against one server."""

    def __init__(self, url: str, seed: int, say: Callable[[str], None] = lambda line: None) -> None:
        self._config: dict[str, Any] = {"hosts": [url], "replicas": 0, "refresh_interval": "200ms"}
        self._random = Random(seed)
        self._say = say
        run = uuid.uuid4().hex[:8]
        self.plain, self.alias = Name(f"tp-{run}"), Name(f"ta-{run}")
        self.written: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self._stop = False
        self._native: AsyncElasticsearch

    def _open(self, index: str) -> AsyncDatabase:
        return AsyncDatabase("elasticsearch", {**self._config, "index": index})

    def _fault(self, text: str) -> None:
        self.faults.append(text)
        if len(self.faults) <= _SHOWN:
            self._say(f"FAULT {text}")

    async def run(self, *, seconds: float = 0, changes: int = 0) -> None:
        """Run for some seconds, or for a number of changes of each name."""
        for name in (self.plain, self.alias):
            name.handles = [self._open(name.name) for _ in range(HANDLES)]
        await self.plain.handles[0].connect()
        self._native = await native_of(self.plain.handles[0])
        self.plain.target = self.plain.name
        try:
            await self._make_alias()
            for handle in (*self.plain.handles, *self.alias.handles):
                await handle.connect()
            end = time.monotonic() + seconds
            work = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]
            work += [asyncio.create_task(self._read(number)) for number in range(READERS)]
            operators = [
                asyncio.create_task(self._operate(self.plain, self._change_plain, end, changes)),
                asyncio.create_task(self._operate(self.alias, self._change_alias, end, changes)),
            ]
            try:
                await asyncio.gather(*operators)
            finally:
                self._stop = True
                await asyncio.gather(*work)
            await self._check(self.plain)
            await self._check(self.alias)
        finally:
            await self._clean()

    async def _make_alias(self) -> None:
        for number, value in enumerate((1, "x", True)):
            index = f"{self.alias.name}-{number}"
            async with self._open(index) as db:
                await db.upsert(Record({"v": value}, id=f"seed-{number}"))
            self.alias.indices.append(index)
            self.written[f"seed-{number}"] = {"v": value}
        self.alias.target = self.alias.indices[0]
        await self._native.indices.put_alias(index=self.alias.target, name=self.alias.name)

    async def _clean(self) -> None:
        quiet = self._native.options(ignore_status=[400, 404])
        for index in (self.plain.name, *self.alias.indices):
            await quiet.indices.delete(index=index)
        for handle in (*self.plain.handles, *self.alias.handles):
            await handle.close()

    # The operator

    async def _operate(
        self, name: Name, change: Callable[[], Awaitable[str]], end: float, changes: int
    ) -> None:
        done = 0
        while done < changes or time.monotonic() < end:
            await asyncio.sleep(self._random.uniform(0.05, 0.4))
            self.counts[await change()] += 1
            await self._check(name)
            done += 1
        if not name.usable:
            self.counts[await change()] += 1

    async def _change_plain(self) -> str:
        name, native = self.plain, self._native.options(ignore_status=[400, 404])
        if not name.usable:
            async with name.changing(usable=True):
                await native.indices.delete(index=name.name)
            return "foreign index deleted"
        what = self._random.choice(["deleted", "remade", "remade", "foreign index"])
        created: dict[str, Any] = {}
        async with name.changing(usable=True):
            await native.indices.delete(index=name.name)
            if what == "remade":
                id, data = f"seed-{uuid.uuid4().hex}", {"v": self._random.choice(VALUES)}
                self.written[id] = data
                async with self._open(name.name) as other:
                    with contextlib.suppress(UnavailableError):
                        await other.upsert(Record(data, id=id))
            elif what == "foreign index":
                # Refused if a writer has made the index again.
                created = dict(await native.indices.create(index=name.name))
        name.usable = not created.get("acknowledged")
        return what

    async def _change_alias(self) -> str:
        name, indices = self.alias, self._native.indices
        if not name.usable:
            async with name.changing(usable=True):
                actions: list[dict[str, Any]] = [
                    {"remove": {"index": index, "alias": name.name, "must_exist": False}}
                    for index in name.indices
                ]
                actions.append({"add": {"index": name.target, "alias": name.name}})
                await indices.update_aliases(actions=actions)
            return "alias restored"
        other = self._random.choice([index for index in name.indices if index != name.target])
        what = self._random.choice(["swapped", "swapped", "filtered", "widened"])
        async with name.changing(usable=what == "swapped"):
            if what == "filtered":
                body = {"filter": {"exists": {"field": "data.v"}}}
                await indices.put_alias(index=name.target, name=name.name, **body)
            else:
                actions = [{"add": {"index": other, "alias": name.name}}]
                if what == "swapped":
                    actions.append({"remove": {"index": name.target, "alias": name.name}})
                    name.target = other
                await indices.update_aliases(actions=actions)
        return what

    # Checks

    async def _stored(self, index: str) -> dict[str, dict[str, Any]]:
        """Return the records of an index by id, as they lie there; none of an index of others."""
        try:
            await self._native.indices.refresh(index=index)
            mapping = await self._native.indices.get_mapping(index=index)
            if "isthmus" not in mapping[index]["mappings"].get("_meta", {}):
                return {}
            found: dict[str, dict[str, Any]] = {}
            after = None
            while True:
                body: dict[str, Any] = {"size": 5_000, "sort": [{"id": "asc"}]}
                if after is not None:
                    body["search_after"] = after
                hits = (await self._native.search(index=index, **body))["hits"]["hits"]
                found |= {hit["_source"]["id"]: hit["_source"]["data"] for hit in hits}
                if len(hits) < 5_000:
                    return found
                after = hits[-1]["sort"]
        except ApiError:  # deleted, or made again by a writer just now
            return {}

    async def _check(self, name: Name) -> None:
        """Compare what is stored with what was acknowledged and with what is found by value."""
        epoch, acknowledged, refused = name.epoch, list(name.acknowledged), set(name.refused)
        stored = {index: await self._stored(index) for index in name.indices or [name.name]}
        everything = {id: data for records in stored.values() for id, data in records.items()}
        # With a plain index, what was written before it was deleted is gone.
        due = [
            one for one in acknowledged if name.indices or (one.began == one.ended == epoch and name.usable)
        ]
        for one in due:
            if everything.get(one.id) != one.data:
                self._fault(f"{name.name}: acknowledged {one} is stored as {everything.get(one.id)}")
        for id in refused & everything.keys():
            self._fault(f"{name.name}: {id} is there although applied was NO")
        self.counts["records checked"] += len(due)
        for index, records in ((index, records) for index, records in stored.items() if records):
            handles = [self._random.choice(name.handles)] if index == name.target and name.usable else []
            try:
                async with self._open(index) as fresh:
                    for handle in [fresh, *handles]:
                        await self._compare(handle, index, records)
            except UnavailableError as error:  # the machine is busy
                self.counts[f"checks skipped: {str(error)[:80]}"] += 1

    async def _compare(self, handle: AsyncDatabase, index: str, records: dict[str, dict[str, Any]]) -> None:
        for value in self._random.sample(VALUES, 3):
            wanted = {id for id, data in records.items() if _is_same(data.get("v"), value)}
            try:
                await handle.refresh()
                found = {str(record.id) for record in await handle.search(path("v") == value)}
                count = await handle.count(path("v") == value)
            except IsthmusError:  # a shard of a new index that has not started
                continue
            if wanted - found or count < len(wanted):
                self._fault(
                    f"{index}: {len(wanted - found)} of {len(wanted)} with v = {value!r} are not found"
                )

    # Writers and readers

    async def _write(self, number: int) -> None:
        random = Random(f"{number} {self._random.random()}")
        while not self._stop:
            await asyncio.sleep(random.uniform(0, 0.1))
            name = random.choice([self.plain, self.alias])
            handle = random.choice(name.handles)
            size = random.choice([1, 1, 1, random.randrange(2, 12)])
            records = [self._make(random) for _ in range(size)]
            began = name.epoch
            results: Sequence[Any]
            try:
                match random.randrange(3):
                    case 0 if size == 1:
                        await handle.create(records[0])
                        results = [records[0].id]
                    case 1:
                        results = list(await handle.upsert_batch(records, on_error="collect"))
                    case _:
                        results = list(await handle.create_batch(records, on_error="collect"))
            except IsthmusError as error:
                results = [error] * size
            except Exception as error:
                self._fault(f"a write to {name.name} raised {error!r}")
                continue
            self._take(name, records, results, began)

    def _make(self, random: Random) -> Record:
        data: dict[str, Any] = {"v": random.choice(VALUES), "n": random.random()}
        if random.random() < 0.1:
            data[f"k{random.randrange(50)}"] = random.choice(VALUES)
        record = Record(data, id=uuid.uuid4().hex)
        self.written[str(record.id)] = data
        return record

    def _take(self, name: Name, records: Sequence[Record], results: Sequence[Any], began: int) -> None:
        steady = name.is_steady(began)
        for record, result in zip(records, results, strict=True):
            id = str(record.id)
            if not isinstance(result, BaseException):
                self.counts["writes acknowledged"] += 1
                name.acknowledged.append(Written(id, self.written[id], began, name.epoch))
                if steady and not name.usable:
                    self._fault(f"{name.name}: a write was acknowledged where there is no index of ours")
                continue
            assert isinstance(result, IsthmusError), result
            self.counts[f"writes refused, applied {result.applied.name}"] += 1
            if result.applied is Applied.NO:
                name.refused.add(id)
            self._expect(name, result, "a write", steady=steady)

    def _expect(self, name: Name, error: IsthmusError, what: str, *, steady: bool) -> None:
        if not steady:
            return
        if not name.usable and not isinstance(error, ConfigError):
            self._fault(f"{name.name}: {what} of an index of others raised {error!r}")
        if not name.usable and error.applied is not Applied.NO:
            self._fault(f"{name.name}: {what} of an index of others may have been applied: {error!r}")
        if name.usable and not isinstance(error, UnavailableError):
            self._fault(f"{name.name}: {what} raised {error!r}")

    async def _read(self, number: int) -> None:
        random = Random(f"reader {number} {self._random.random()}")
        while not self._stop:
            await asyncio.sleep(random.uniform(0, 0.1))
            name = random.choice([self.plain, self.alias])
            handle, value, epoch = random.choice(name.handles), random.choice(VALUES), name.epoch
            known = [one for one in name.acknowledged if one.began == one.ended == epoch]
            one = random.choice(known) if known else None
            where = path("v") == value
            wanted = {each.id for each in known if _is_same(each.data["v"], value)}
            try:
                match random.randrange(4):
                    case 0 if one is not None:
                        record = await handle.get(one.id)
                        found, wanted = [] if record is None else [record], {one.id}
                    case 1:
                        await handle.refresh()
                        found = [record async for record in handle.stream(where)]
                    case 2:
                        await handle.refresh()
                        async with handle.stream(where, consistent=True) as records:
                            found = [record async for record in records]
                    case _:
                        await handle.refresh()
                        found = list(await handle.search(where))
            except IsthmusError as error:
                self.counts["reads refused"] += 1
                self._expect(name, error, "a read", steady=name.is_steady(epoch))
                continue
            except Exception as error:
                self._fault(f"a read of {name.name} raised {error!r}")
                continue
            self.counts["reads answered"] += 1
            self._judge_read(name, found, wanted, epoch)

    def _judge_read(self, name: Name, found: list[Record], wanted: set[str], epoch: int) -> None:
        for record in found:
            if self.written.get(str(record.id)) != record.data:
                self._fault(f"{name.name}: read {record.id} as {record.data}")
        if not name.is_steady(epoch):
            return
        if not name.usable:
            self._fault(f"{name.name}: a read was answered where there is no index of ours")
        missed = wanted - {str(record.id) for record in found}
        if name.usable and missed:
            self._fault(f"{name.name}: a read missed {len(missed)} of {len(wanted)} acknowledged records")


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def main() -> int:
    """Run, and print what was done and each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    end, seed = time.monotonic() + 60 * given.minutes, given.seed
    counts: Counter[str] = Counter()
    faults = 0
    # In rounds: every check reads all that was written.
    while time.monotonic() < end:
        torture = Torture(servers.server("elasticsearch").url, seed, print)
        asyncio.run(torture.run(seconds=min(20, end - time.monotonic())))
        counts += torture.counts
        faults += len(torture.faults)
        seed += 1
    for what, count in sorted(counts.items()):
        print(f"{count:8}  {what}")
    print(f"{faults:8}  faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
