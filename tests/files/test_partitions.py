"""Partitions of files end at files and row groups, and several files are read at once."""

from __future__ import annotations

import asyncio
import pickle
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus import InvalidRecordError, Query, UnavailableError, field
from isthmus._partition import Partition
from isthmus.backends.files import parallel
from isthmus.backends.files.facts import CACHE
from isthmus.backends.files.reader import FileReader
from tests.files.folder import opened, write

pytestmark = [pytest.mark.backend("files"), pytest.mark.asyncio]


def fill(folder: Path, *, lines: int = 30_000) -> None:
    """Write a table of three row groups, a CSV of several blocks, JSON lines and files without rows."""
    table = pa.table({"n": range(9_000), "t": ["x"] * 9_000})
    pq.write_table(table, folder / "a.parquet", row_group_size=3_000)
    cells = "".join(f"{n},{'y' * 40}\n" for n in range(lines))
    write(
        folder,
        {
            "b.csv": "n,t\n" + cells,
            "c.csv": "n,t\n",
            "d.jsonl": "".join(f'{{"n": {n}, "t": "z"}}\n' for n in range(5_000)),
            "e.json": "[]",
        },
    )


async def read_all(parts: list[Partition]) -> list[str | None]:
    """Return the ids of all partitions, each read as a worker does."""
    ids: list[str | None] = []
    for part in parts:
        CACHE.forget()
        received = pickle.loads(pickle.dumps(part))
        ids += [record.id async for record in received.stream()]
    return ids


async def test_partitions_are_complete_and_end_at_row_groups(tmp_path: Path) -> None:
    """Whatever their number; a condition holds in all of them."""
    fill(tmp_path)
    async with opened(tmp_path) as db:
        expected = [record.id for record in await db.search()]
        for count in (1, 6, 18):
            parts = await db.partitions(Query(), count)
            assert len(parts) == count
            assert await read_all(parts) == expected, count
        assert {part.high for part in parts} >= {"a.parquet#000000002999", "a.parquet#000000008999"}
        few = await db.partitions(Query().filter("n", "<", 10), 3)
        assert len(await read_all(few)) == 30


async def test_a_worker_reads_its_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes over the types of columns, and where in a text its part begins."""
    fill(tmp_path)
    async with opened(tmp_path / "b.csv") as db:
        parts = await db.partitions(Query(), 3)

    def refuse(*arguments: object) -> None:
        raise AssertionError("the types were found again")

    monkeypatch.setattr(FileReader, "_kinds_of", refuse)
    CACHE.forget()
    records = [record async for record in parts[2].stream()]

    assert parts[2].hint.start.row > 15_000
    assert records[-1].data == {"n": 29_999, "t": "y" * 40}


async def test_partitions_of_other_files_are_refused(tmp_path: Path) -> None:
    """A worker does not mix what was divided with what is there now."""
    fill(tmp_path)
    async with opened(tmp_path) as db:
        parts = await db.partitions(Query(), 3)
    (tmp_path / "d.jsonl").write_text('{"n": 1}\n')

    with pytest.raises(UnavailableError, match="files changed since the partitions were made"):
        _ = [record async for record in parts[1].stream()]


async def test_partitions_by_ids_of_their_own(tmp_path: Path) -> None:
    """They are divided by the ids, as any other store's."""
    write(tmp_path, {"a.csv": "id,n\n" + "".join(f"k{n:03},{n}\n" for n in range(100))})
    async with opened(tmp_path, id="id") as db:
        parts = await db.partitions(Query(), 4)

    assert await read_all(parts) == [f"k{n:03}" for n in range(100)]


async def test_several_files_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts and groups are those of one after another; the first error in order is raised."""
    monkeypatch.setattr(parallel, "_WORTHWHILE", 0)
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 4)
    for number in range(12):
        pq.write_table(
            pa.table({"n": range(1_000), "g": ["a", "b"] * 500}), tmp_path / f"{number:02}.parquet"
        )

    async with opened(tmp_path) as db:
        assert await db.count(field("n") >= 990) == 120
        assert await db.aggregate(by="g", n="count", most=("max", "n")) == [
            {"g": "a", "n": 6_000, "most": 998},
            {"g": "b", "n": 6_000, "most": 999},
        ]
        for name in ("03", "07"):
            (tmp_path / f"{name}.parquet").write_bytes(b"damaged")
        with pytest.raises(InvalidRecordError, match=r"^03\.parquet"):
            await db.count(field("n") >= 990)


async def test_a_count_that_nobody_waits_for_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all of its threads."""
    monkeypatch.setattr(parallel, "_WORTHWHILE", 0)
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 4)
    for number in range(4):
        write(tmp_path, {f"{number}.jsonl": '{"n": 1}\n' * 100_000})

    async with opened(tmp_path) as db:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await db.count(field("n") == 1)
        async with asyncio.timeout(30):
            while any(thread.name.startswith("isthmus-files") for thread in threading.enumerate()):
                await asyncio.sleep(0.01)
