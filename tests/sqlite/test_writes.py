"""The five kinds of writes: one result for each item, as if item after item, all or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.sqlite.backend import SQLiteBackend
from isthmus.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    NotWrittenError,
)
from tests.sqlite.conftest import Opener

pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.asyncio]
R = "records"


async def _contents(backend: SQLiteBackend) -> dict[str | None, dict[str, Any]]:
    page = await backend.fetch(R, PageRequest(TRUE, (), 100_000))
    return {record.id: record.data for record in page.records}


def _types(results: list[Any]) -> list[type]:
    return [type(result) for result in results]


async def test_an_atomic_batch_with_a_taken_id_names_it_and_writes_nothing(opened: Opener) -> None:
    """The clash is the item's result, the others say that they were not written."""
    backend = await opened()
    await backend.write(R, WriteKind.CREATE, [Mutation("b", {"n": 0})], atomic=True)

    results = await backend.write(R, WriteKind.CREATE, [Mutation(i, {}) for i in "abcdc"], atomic=True)

    assert _types(results) == [
        NotWrittenError, AlreadyExistsError, NotWrittenError, NotWrittenError, AlreadyExistsError
    ]  # fmt: skip
    assert results[1].record_id == "b"  # type: ignore[union-attr]
    assert await _contents(backend) == {"b": {"n": 0}}


async def test_a_batch_that_is_not_atomic_writes_what_it_can(opened: Opener) -> None:
    """Each item is checked as if alone; an id that occurs twice is taken the second time."""
    backend = await opened()

    results = await backend.write(
        R,
        WriteKind.CREATE,
        [Mutation("a", {}), Mutation("a", {}), Mutation("b", {"x": float("nan")}), Mutation("c", {})],
        atomic=False,
    )

    assert results[0] == "a"
    assert _types(results[1:3]) == [AlreadyExistsError, InvalidRecordError]
    assert results[3] == "c"
    assert set(await _contents(backend)) == {"a", "c"}


async def test_an_invalid_record_in_an_atomic_batch_stops_it(opened: Opener) -> None:
    """Every invalid item is named, wherever it stands; nothing is written."""
    backend = await opened()
    changes = [Mutation(f"{n:04}", {"n": float("nan") if n in (7, 2_500) else n}) for n in range(3_000)]

    for kind in (WriteKind.CREATE, WriteKind.UPSERT):
        results = await backend.write(R, kind, changes, atomic=True)

        invalid = [n for n, result in enumerate(results) if isinstance(result, InvalidRecordError)]
        assert invalid == [7, 2_500]
        assert sum(isinstance(result, NotWrittenError) for result in results) == 2_998
        assert await _contents(backend) == {}


async def test_a_repeated_id_in_an_upsert_ends_at_its_last_item(opened: Opener) -> None:
    """Duplicates in one batch count as if one was written after the other."""
    backend = await opened()

    results = await backend.write(
        R, WriteKind.UPSERT, [Mutation("a", {"n": n}) for n in range(5)], atomic=True
    )

    (record,) = await backend.read(R, ["a"])
    assert record is not None
    assert record.data == {"n": 4}
    assert record.version == results[-1]
    assert len(set(results)) == 5


async def test_an_update_merges_the_top_level_and_keeps_the_rest(opened: Opener) -> None:
    """None stores null; metadata merges as data does; created_at stays and the version changes."""
    backend = await opened()
    await backend.write(R, WriteKind.CREATE, [Mutation("a", {"x": {"y": 1}, "z": 2}, {"m": 1})], atomic=True)
    (before,) = await backend.read(R, ["a"])

    await backend.write(
        R,
        WriteKind.UPDATE,
        [Mutation("a", {"x": {"q": 1}}), Mutation("a", {"z": None}, {"n": 2})],
        atomic=True,
    )

    (after,) = await backend.read(R, ["a"])
    assert before is not None
    assert after is not None
    assert after.data == {"x": {"q": 1}, "z": None}
    assert after.metadata == {"m": 1, "n": 2}
    assert after.created_at == before.created_at
    assert after.version != before.version


async def test_what_is_missing_is_told_by_kind(opened: Opener) -> None:
    """Replace and update: not found; delete: False; with a version, upsert and delete: conflict."""
    backend = await opened()

    async def outcome(kind: WriteKind, version: str | None) -> Any:
        (result,) = await backend.write(R, kind, [Mutation("no", {}, None, version)], atomic=False)
        return result if isinstance(result, bool) else type(result)

    assert await outcome(WriteKind.REPLACE, None) is NotFoundError
    assert await outcome(WriteKind.REPLACE, "1") is NotFoundError
    assert await outcome(WriteKind.UPDATE, None) is NotFoundError
    assert await outcome(WriteKind.UPDATE, "1") is NotFoundError
    assert await outcome(WriteKind.UPSERT, "1") is ConflictError
    assert await outcome(WriteKind.DELETE, None) is False
    assert await outcome(WriteKind.DELETE, "1") is ConflictError


@pytest.mark.parametrize("kind", [WriteKind.REPLACE, WriteKind.UPDATE, WriteKind.UPSERT, WriteKind.DELETE])
async def test_a_stale_version_changes_nothing(opened: Opener, kind: WriteKind) -> None:
    """Compare-and-set is decided by the write itself; a version is an opaque token."""
    backend = await opened()
    await backend.write(R, WriteKind.CREATE, [Mutation("a", {"n": 1})], atomic=True)
    (record,) = await backend.read(R, ["a"])
    assert record is not None

    for stale in ("1", f"0{record.version}", f" {record.version}", "x", ""):
        (result,) = await backend.write(R, kind, [Mutation("a", {"n": 2}, None, stale)], atomic=True)
        assert isinstance(result, ConflictError)
    assert await _contents(backend) == {"a": {"n": 1}}
    (result,) = await backend.write(R, kind, [Mutation("a", {"n": 2}, None, record.version)], atomic=True)

    assert result is True if kind is WriteKind.DELETE else isinstance(result, str)


async def test_ids_are_any_text(opened: Opener) -> None:
    """Quotes, slashes, control characters and emoji are ids like others, alone and in a batch."""
    backend = await opened()
    ids = ["'", '"', "a'--", "\x01", "é", "e\u0301", "😀", "../x", "%", "a\nb", "\U0010ffff", "x" * 512]

    await backend.write(R, WriteKind.CREATE, [Mutation(id, {"id": id}) for id in ids], atomic=True)

    assert [record.id for record in await backend.read(R, ids) if record] == ids
    for id in ids:
        (record,) = await backend.read(R, [id])
        assert record is not None
        assert record.data == {"id": id}
    page = await backend.fetch(R, PageRequest(TRUE, (), 100))
    assert [record.id for record in page.records] == sorted(ids)
    deleted = await backend.write(R, WriteKind.DELETE, [Mutation(id) for id in [*ids, ids[0]]], atomic=True)
    assert deleted == [True] * len(ids) + [False]
