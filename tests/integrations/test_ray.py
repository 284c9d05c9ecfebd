"""Ray: what its workers read is what the store holds."""

import asyncio
import json
import os
import pickle
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from docs.tools.blocks import blocks as page_blocks

from isthmus import AsyncDatabase, ConfigError, MissingExtraError, Query, Record, UsageError, field
from isthmus._ids import new_id
from isthmus._partition import Partition
from isthmus.integrations import frames
from isthmus.integrations.ray import to_ray
from tests.servers import server

# A session starts processes, and Ray itself is a third of all objects that the collector walks.
pytestmark = pytest.mark.last

ROOT = Path(__file__).parents[2]
COUNT = 1_000
URL = "ISTHMUS_TEST_RAY_URL"
SCHEMA = pyarrow.schema([("_id", pyarrow.string()), ("n", pyarrow.float64()), ("half", pyarrow.float64())])


async def filled(path: Path) -> AsyncDatabase:
    """Return a SQLite handle with records."""
    db = await AsyncDatabase.create("sqlite", {"path": str(path / "ray.db")})
    await db.create_batch([{"n": n, "half": n / 2 if n % 3 else None} for n in range(COUNT)])
    return db


def left(folder: str) -> list[str]:
    """Return the processes that have this folder in their command."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if folder in line]


def session(
    jobs: dict[str, tuple[list[Partition], pyarrow.Schema | None]],
    page: tuple[str, list[Partition]],
    path: Path,
) -> dict[str, Any]:
    """Run one Ray session; return what each dataset held, after no process is left of it."""
    (path / "jobs").write_bytes(pickle.dumps((jobs, *page)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.ray_session", str(path / "jobs")],
        capture_output=True, text=True, check=False, cwd=ROOT,
        # A token that is not given is written into the home folder.
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    deadline = time.monotonic() + 20
    folder = told.pop("folder")
    while left(folder) and time.monotonic() < deadline:
        time.sleep(0.1)  # a worker ends when it has seen that its raylet did
    assert left(folder) == []
    return told


@pytest.mark.backend("postgres")
@pytest.mark.timeout(600)
@pytest.mark.asyncio
async def test_a_dataset_holds_what_the_store_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count and sum of four partitions, a filter, a schema, no records at all, a column of two types.

    The how-to page's example is run as well. One test, as a Ray session takes seconds to start: SQLite
    by its file, PostgreSQL by a URL that the workers find in their environment.
    """
    url = f"{server('postgres').url}?table=ray_{new_id().replace('-', '')}"
    monkeypatch.setenv(URL, url)
    async with (
        await filled(tmp_path) as db,
        await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "mixed.db")}) as mixed,
        await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "sales.db")}) as sales,
        await AsyncDatabase.open(url) as postgres,
    ):
        await postgres.create_batch([{"n": n} for n in range(COUNT)])
        await mixed.create_batch([{"v": 1}, {"v": "one"}])
        jobs = {
            "all": (await db.partitions(Query(), 4), None),
            "some": (await db.partitions(field("n") >= 900, 4), None),
            "typed": (await db.partitions(Query(), 4), SCHEMA),
            "none": (await db.partitions(field("n") < 0, 4), SCHEMA),
            "mixed": (await mixed.partitions(Query(), 1), None),
            "postgres": (await postgres.partitions(Query(), 4, url_from=URL), None),
        }

        await sales.create_batch([{"sum": n if n < 990 else 2 * n} for n in range(COUNT)])
        example, output = (
            block.code
            for block in page_blocks((ROOT / "docs/how-to/frames.md").read_text())
            if "cluster" in block.words
        )

        told = session(jobs, (example, await sales.partitions(Query(), 4)), tmp_path)
        stored = (await postgres.aggregate(rows="count", sum=("sum", "n")))[0]
        await postgres.clear()

    total = sum(range(COUNT))
    found = {"_id": "string", "n": "int64", "half": "double"}
    wanted = {"_id": "string", "n": "double", "half": "double"}
    assert "'v'" in told.pop("mixed")["error"]
    assert told.pop("page") == output
    assert told == {
        "all": {"rows": COUNT, "sum": total, "types": found},
        "some": {"rows": 100, "sum": sum(range(900, COUNT)), "types": found},
        "typed": {"rows": COUNT, "sum": total, "types": wanted},
        "none": {"rows": 0, "sum": 0, "types": wanted},
        "postgres": {**stored, "types": {"_id": "string", "n": "int64"}},
    }
    assert all(len(jobs[name][0]) == 4 for name in ("all", "some", "typed", "none", "postgres"))


@pytest.mark.asyncio
async def test_a_source_travels_without_a_handle_or_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is pickled with names only, and one task of it reads each partition."""
    from isthmus.integrations._ray_source import IsthmusDatasource

    monkeypatch.setenv(URL, f"sqlite:///{tmp_path}/ray.db?pool.readers=1")
    await (await filled(tmp_path)).close()
    async with await AsyncDatabase.open(os.environ[URL]) as db:
        parts = await db.partitions(field("n") >= 10, 4, url_from=URL)

    travelled = pickle.dumps(IsthmusDatasource(parts, None))
    tasks = pickle.loads(travelled).get_read_tasks(1)
    limited = IsthmusDatasource(parts, None).get_read_tasks(1, per_task_row_limit=5)

    assert str(tmp_path).encode() not in travelled
    # On a thread, as a Ray worker has no loop that runs.
    read = await asyncio.to_thread(lambda: [table for task in tasks for table in task()])
    assert len(tasks) == 4
    assert sorted(n for table in read for n in table["n"].to_pylist()) == list(range(10, COUNT))
    first = await asyncio.to_thread(lambda: list(limited[0]()))
    assert sum(table.num_rows for table in first) == 5


@pytest.mark.asyncio
async def test_blocks_are_bounded_and_the_handle_is_closed_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the reader stops half-way, and when a block cannot be made."""
    from isthmus.integrations._ray_source import read_blocks

    monkeypatch.setattr(frames.batch_records, "__kwdefaults__", {"rows": 300, "schema": None})
    closed: list[bool] = []
    close = AsyncDatabase.close

    async def counted(self: AsyncDatabase) -> None:
        await close(self)
        closed.append(self.closed)

    async with await filled(tmp_path) as db:
        await db.create(Record({"n": "text"}, id="~last"))
        (part,) = await db.partitions(Query(), 1)
    monkeypatch.setattr(AsyncDatabase, "close", counted)

    def half() -> int:
        reading = read_blocks(part, None)
        rows = next(reading).num_rows
        assert closed == []
        reading.close()
        return rows

    def whole() -> list[int]:
        sizes: list[int] = []
        with pytest.raises(UsageError, match="pass a schema"):
            sizes.extend(table.num_rows for table in read_blocks(part, None))
        return sizes

    assert await asyncio.to_thread(half) == 300
    assert closed == [True]
    assert await asyncio.to_thread(whole) == [300, 300, 300]
    assert closed == [True, True]


@pytest.mark.asyncio
async def test_an_empty_partition_is_an_empty_block_if_its_columns_are_known(tmp_path: Path) -> None:
    """And none if they are not."""
    from isthmus.integrations._ray_source import read_blocks

    async with await filled(tmp_path) as db:
        (part,) = await db.partitions(field("n") < 0, 1)

    (empty,) = await asyncio.to_thread(lambda: list(read_blocks(part, SCHEMA)))
    nothing = await asyncio.to_thread(lambda: list(read_blocks(part, None)))

    assert (empty.num_rows, empty.schema) == (0, SCHEMA)
    assert nothing == []


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself, or a partition, or on a worker the variable that holds the URL."""
    from isthmus.integrations._ray_source import read_blocks

    part = Partition(
        number=0, opener=AsyncDatabase, backend="sqlite", settings={}, url_from=URL, collection="records",
        query={}, low=None, high=None,
    )  # fmt: skip
    monkeypatch.delenv(URL, raising=False)
    with pytest.raises(ConfigError, match=URL):
        next(read_blocks(part, None))
    with pytest.raises(UsageError, match="at least one partition"):
        to_ray([])
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r"isthmus\[ray\]"):
        to_ray([part])
