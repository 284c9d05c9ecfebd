"""A collection that was dropped through another pool, as by another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus import field
from isthmus._core.executor import AggregateRequest, Mutation, PageRequest, TransactionOptions, WriteKind
from isthmus._path import parse_path
from isthmus._query.ast import TRUE, Function, Measure, SortKey
from isthmus.backends.sqlite.backend import SQLiteBackend
from isthmus.errors import ConfigError
from tests.sqlite.conftest import Opener

pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.asyncio]
R = "records"
COUNT = AggregateRequest(TRUE, (Measure("n", Function.COUNT),))
ORDER = (SortKey(parse_path("age")),)


async def _write(backend: SQLiteBackend, *ids: str, kind: WriteKind = WriteKind.CREATE) -> None:
    data = None if kind is WriteKind.DELETE else {"age": 1}
    await backend.write(R, kind, [Mutation(id, data) for id in ids], atomic=True)


async def _pair(opened: Opener, tmp_path: Path, **settings: object) -> tuple[SQLiteBackend, SQLiteBackend]:
    """Return two backends on one file that share no pool, the second with `settings`."""
    path = str(tmp_path / "d.db")
    return await opened(path=path), await opened(path=path, busy_timeout=4.0, **settings)


async def test_reads_find_nothing_and_the_collection_is_not_created(opened: Opener, tmp_path: Path) -> None:
    """Each kind of read, indexed or not."""
    first, second = await _pair(opened, tmp_path, indexes=["age"])
    await _write(second, "a", "b")
    await first.drop(R)

    assert await second.read(R, ["a"]) == [None]
    assert await second.read(R, ["a", "b"]) == [None, None]
    for request in (
        PageRequest(TRUE, (), 10),
        PageRequest(field("age") > 0, ORDER, None),
        PageRequest(TRUE, None, 10),
        PageRequest(TRUE, None, 10, consistent=True),
    ):
        page = await second.fetch(R, request)
        assert (page.records, page.after) == ([], None)
        assert (await second.explain(R, request)).index is None
    assert (await second.count(R, TRUE)).count == 0
    assert (await second.count(R, field("age") == 1)).count == 0
    assert (await second.aggregate(R, COUNT)).groups.rows(()) == [((), [0])]
    await second.open(R)
    await second.ping()
    assert await second.collections() == []


@pytest.mark.parametrize("kind", list(WriteKind))
@pytest.mark.parametrize("ids", [("a",), ("a", "b")])
async def test_the_next_write_creates_the_collection(
    opened: Opener, tmp_path: Path, kind: WriteKind, ids: tuple[str, ...]
) -> None:
    """With its indexes; an atomic batch that is refused, as a replace of nothing is, leaves no table."""
    first, second = await _pair(opened, tmp_path, indexes=["age"])
    await _write(second, "a")
    await first.drop(R)

    await _write(second, *ids, kind=kind)

    refused = kind in (WriteKind.REPLACE, WriteKind.UPDATE)
    assert await second.collections() == ([] if refused else [R])
    count = len(ids) if kind in (WriteKind.CREATE, WriteKind.UPSERT) else 0
    for backend in (first, second):
        assert (await backend.count(R, TRUE)).count == count
    plan = await second.explain(R, PageRequest(field("age") == 5, (), 10))
    assert plan.index == (None if refused else "records.age")


async def test_deleting_where_creates_it_too(opened: Opener, tmp_path: Path) -> None:
    """It is a write, of nothing."""
    first, second = await _pair(opened, tmp_path)
    await _write(second, "a")
    await first.drop(R)

    assert await second.remove(R, field("age") == 1) == 0


async def test_transactions_find_nothing_and_write_again(opened: Opener, tmp_path: Path) -> None:
    """Read-only ones and others; a snapshot from before the drop keeps its records."""
    first, second = await _pair(opened, tmp_path)
    await _write(second, "a")

    async with second.begin(TransactionOptions(read_only=True)) as before:
        await first.drop(R)
        assert (await before.count(R, TRUE)).count == 1
    async with second.begin(TransactionOptions(read_only=True)) as after:
        assert (await after.count(R, TRUE)).count == 0
        assert await after.read(R, ["a"]) == [None]
    async with second.begin(TransactionOptions()) as transaction:
        assert (await transaction.count(R, TRUE)).count == 0
        await transaction.write(R, WriteKind.CREATE, [Mutation("b", {})], atomic=True)

    assert (await first.count(R, TRUE)).count == 1


async def test_it_is_not_created_where_the_config_forbids_it(opened: Opener, tmp_path: Path) -> None:
    """`create_table="never"`: reads find nothing, a write is a ConfigError."""
    first = await opened(path=str(tmp_path / "d.db"))
    second = await opened(path=str(tmp_path / "d.db"), busy_timeout=4.0, create_table="never")
    await first.drop(R)

    assert (await second.count(R, TRUE)).count == 0
    with pytest.raises(ConfigError, match="never"):
        await _write(second, "a")
    await _write(first, "a")
    assert (await second.count(R, TRUE)).count == 1
