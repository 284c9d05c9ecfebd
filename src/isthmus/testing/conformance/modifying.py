"""Modify: changes of part of a record, by id, in batches and by query (§5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field, match, nearest
from isthmus._query.changes import FieldChange
from isthmus.errors import (
    BatchError,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    NotWrittenError,
    QueryError,
    UsageError,
)
from isthmus.testing.conformance._fixtures import id_set, put_one, requires, store, store_people

n, tags, inner = field("n"), field("tags"), field("o.x")

# The data before, the changes, and the data after or the path of the value that refuses one.
CASES: tuple[tuple[dict[str, Any], tuple[FieldChange, ...], dict[str, Any] | str], ...] = (
    ({"a": 1}, (n.set({"k": [None]}),), {"a": 1, "n": {"k": [None]}}),
    ({"n": [1]}, (n.set(None),), {"n": None}),
    ({}, (field("o.p.q").set(1),), {"o": {"p": {"q": 1}}}),
    ({"o": None}, (inner.set(1),), {"o": {"x": 1}}),
    ({"o.x": 1}, (field(["o.x"]).inc(1), inner.set(2)), {"o.x": 2, "o": {"x": 2}}),
    ({"_id": 1, "": 2}, (field(["_id"]).inc(1), field([""]).inc(1)), {"_id": 2, "": 3}),
    ({"o": [{"x": 1}]}, (inner.set(2),), "data.o"),
    ({"o": 1}, (inner.unset(),), "data.o"),
    ({"o": {"x": 1, "y": 2}}, (inner.unset(),), {"o": {"y": 2}}),
    ({"o": None}, (inner.unset(), field("z.z").unset(), n.unset()), {"o": None}),
    ({}, (n.inc(2),), {"n": 2}),
    ({"n": None}, (n.inc(0.5),), {"n": 0.5}),
    ({"n": 2**53}, (n.inc(1),), {"n": 2**53 + 1}),
    ({"n": 2**63 - 2}, (n.inc(1),), {"n": 2**63 - 1}),
    ({"n": 2**63 - 1}, (n.inc(1),), "data.n"),
    ({"n": -(2**63)}, (n.inc(-1),), "data.n"),
    ({"n": 0.1}, (n.inc(0.2),), {"n": 0.1 + 0.2}),
    ({"n": 3.0}, (n.inc(2**60), n.inc(1)), {"n": 2**60 + 1}),
    ({"n": 1e308}, (n.inc(1e308),), "data.n"),
    ({"n": 1e300}, (n.inc(1),), {"n": 1e300}),
    ({"n": -0.5}, (n.inc(0.5),), {"n": 0.0}),
    ({"n": True}, (n.inc(1),), "data.n"),
    ({"n": "1"}, (n.inc(1),), "data.n"),
    ({"n": 1}, (n.max(1.5), n.min(1.25)), {"n": 1.25}),
    ({"n": 2**53}, (n.max(2**53 + 1),), {"n": 2**53 + 1}),
    ({"n": "B"}, (n.max("a"), n.max("Z")), {"n": "a"}),
    ({"n": None}, (n.max(3), field("m").min("x")), {"n": 3, "m": "x"}),
    ({"n": 1}, (n.max("a"),), "data.n"),
    ({"n": False}, (n.min(1),), "data.n"),
    ({"n": [1]}, (n.min(1),), "data.n"),
    ({}, (tags.push("a", None, ["b"]),), {"tags": ["a", None, ["b"]]}),
    ({"tags": None}, (tags.push(1),), {"tags": [1]}),
    ({"tags": ["a"]}, (tags.push("a"),), {"tags": ["a", "a"]}),
    ({"tags": "a"}, (tags.push("b"),), "data.tags"),
    ({"tags": {"a": 1}}, (tags.add("b"),), "data.tags"),
    ({"tags": 1}, (tags.pull(1),), "data.tags"),
    ({"tags": [1, True, 1.0, "1", [1]]}, (tags.pull(1),), {"tags": [True, "1", [1]]}),
    ({"tags": [{"a": [1, None]}, None]}, (tags.pull({"a": [1.0, None]}), tags.pull(None)), {"tags": []}),
    ({"tags": None}, (tags.pull(1), field("z.z").pull(1)), {"tags": None}),
    ({"tags": [1, {"a": 1}]}, (tags.add(1.0, {"a": 1.0}, True, True),), {"tags": [1, {"a": 1}, True]}),
    ({"tags": None}, (tags.add("x"), tags.push("x"), tags.add("x", "y")), {"tags": ["x", "x", "y"]}),
    ({"n": 1}, (n.unset(), n.inc(5), field("m").set([]), field("m").push(1)), {"n": 5, "m": [1]}),
    ({"n": 1}, (n.inc(1), tags.push(1), n.push(1)), "data.n"),
)


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_each_change_has_one_meaning(db: AsyncDatabase) -> None:
    """In a batch and one by one; a change that a record does not admit changes nothing of it."""
    ids = [f"{number:03}" for number in range(len(CASES))]
    before = {id: data for id, (data, _, _) in zip(ids, CASES, strict=True)}
    await store(db, {**before, **{f"{id}.1": data for id, data in before.items()}})

    results = await db.modify_batch(
        [(id, changes) for id, (_, changes, _) in zip(ids, CASES, strict=True)],
        atomic=False,
        on_error="collect",
    )
    for id, result, (data, changes, expected) in zip(ids, results, CASES, strict=True):
        if isinstance(expected, str):
            assert isinstance(result, InvalidRecordError), (data, changes)
            assert (result.path, result.record_id) == (expected, id)
            with pytest.raises(InvalidRecordError) as refused:
                await db.modify(f"{id}.1", *changes)
            assert (refused.value.path, refused.value.record_id) == (expected, f"{id}.1")
        else:
            assert isinstance(result, str), (data, changes, result)
            assert isinstance(await db.modify(f"{id}.1", *changes), str)

    for kept in (await db.get_batch(ids), await db.get_batch([f"{id}.1" for id in ids])):
        for record, (data, changes, expected) in zip(kept, CASES, strict=True):
            assert record is not None
            wanted = data if isinstance(expected, str) else expected
            assert record.data == wanted, (data, changes)
            number = record.data.get("n")
            assert type(number) is type(wanted.get("n")) or number == wanted["n"]


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_a_modified_record_has_a_new_version_and_keeps_the_rest(db: AsyncDatabase) -> None:
    """Even if nothing differs; the time of creation and the metadata stay."""
    await put_one(db, Record({"n": 1}, id="a", metadata={"by": "me"}))
    before = await db.require("a")

    version = await db.modify("a", n.max(0))

    after = await db.require("a")
    assert after.data == {"n": 1}
    assert after.metadata == {"by": "me"}
    assert after.version == version != before.version
    assert after.created_at == before.created_at
    assert after.updated_at is not None
    assert before.updated_at is not None
    assert after.updated_at >= before.updated_at


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_refusals_come_in_one_order(db: AsyncDatabase) -> None:
    """Missing, another version, the condition, the changes: the first that holds is raised."""
    await put_one(db, Record({"n": "text"}, id="a"))
    version = (await db.require("a")).version
    stale = await db.modify("a", field("m").set(1))
    assert stale != version
    bad, holds, fails = n.inc(1), field("m") == 1, field("m") > 1

    with pytest.raises(NotFoundError) as missing:
        await db.modify("b", bad, where=fails, if_version=version)
    with pytest.raises(ConflictError, match="version") as conflict:
        await db.modify("a", bad, where=fails, if_version=version)
    with pytest.raises(ConflictError, match="condition") as condition:
        await db.modify("a", bad, where=fails, if_version=stale)
    with pytest.raises(InvalidRecordError) as invalid:
        await db.modify("a", bad, where=holds, if_version=stale)

    assert missing.value.record_id == "b"
    assert conflict.value.record_id == condition.value.record_id == invalid.value.record_id == "a"
    record = await db.require("a")
    assert (record.data, record.version) == ({"n": "text", "m": 1}, stale)


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_a_condition_is_any_predicate_on_the_record(db: AsyncDatabase) -> None:
    """Evaluated here or by the store, on data, metadata and attributes."""
    await put_one(db, Record({"n": 1, "t": "Ünï"}, id="a", metadata={"by": "me"}))
    holds = [
        n.between(0, 5) & ~field("gone").exists(),
        field("t").regex("^Ü") | (n > 100),
        field("t").ilike("ÜN_"),
        (field("_metadata.by") == "me") & (field("_id") == "a") & field("_created_at").exists(),
    ]

    for where in holds:
        await db.modify("a", n.inc(1), where=where)
        with pytest.raises(ConflictError):
            await db.modify("a", n.inc(1), where=~where)
    assert (await db.require("a"))["n"] == 1 + len(holds)

    version = (await db.require("a")).version
    await db.modify("a", n.set(0), where=field("_version") == version)
    with pytest.raises(ConflictError):
        await db.modify("a", n.set(0), where=field("_version") == version)


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_concurrent_modifications_of_one_record_are_all_applied(db: AsyncDatabase) -> None:
    """None is lost and none is applied twice; each is evaluated on the record as it is by then."""
    await store(db, {"a": {"n": 0, "stock": 5}})
    buy: Callable[[], Any] = lambda: db.modify(  # noqa: E731
        "a", field("stock").inc(-1), where=field("stock") >= 1
    )

    versions = await asyncio.gather(*(db.modify("a", n.inc(1)) for _ in range(20)))
    sold = await asyncio.gather(*(buy() for _ in range(20)), return_exceptions=True)
    twice = [("a", tags.push(1)), ("a", field("m").inc(1)), ("a", field("m").inc(1))]
    batches = await asyncio.gather(*(db.modify_batch(twice) for _ in range(5)))

    assert all(len(batch) == 3 for batch in batches)
    assert all(isinstance(version, str) for version in versions)
    assert sum(isinstance(result, str) for result in sold) == 5
    assert sum(isinstance(result, ConflictError) for result in sold) == 15
    assert (await db.require("a")).data == {"n": 20, "stock": 0, "tags": [1] * 5, "m": 10}


@pytest.mark.asyncio
@requires("compare_and_set", "atomic_batch")
async def test_an_atomic_batch_of_modifications_is_all_or_nothing(db: AsyncDatabase) -> None:
    """Every item has its own error, or `NotWrittenError`."""
    await store(db, {"a": {"n": 1}, "b": {"n": "x"}})

    with pytest.raises(BatchError) as refused:
        await db.modify_batch(
            [("a", n.inc(1)), ("b", [n.inc(1)]), ("c", n.inc(1)), ("a", n.inc(1), "0")], atomic=True
        )

    kinds = [type(outcome) for outcome in refused.value.outcomes]
    assert kinds == [NotWrittenError, InvalidRecordError, NotFoundError, ConflictError]
    assert [r and r["n"] for r in await db.get_batch(["a", "b", "c"])] == [1, "x", None]


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_items_of_a_batch_apply_one_after_another(db: AsyncDatabase) -> None:
    """An id may be repeated: the later item finds what the earlier one left."""
    await store(db, {"a": {"n": 1}, "b": {"n": 1}})
    version = (await db.require("b")).version

    versions = await db.modify_batch(
        [("a", n.inc(1)), ("b", (n.inc(1),), version), ("a", [n.max(9), n.inc(1)])]
    )
    by_id = await db.modify_batch({"a": tags.push(1), "b": [tags.push(2)]})
    refused = await db.modify_batch(
        [("a", n.set("x")), ("a", n.inc(1)), ("a", tags.push(2))], atomic=False, on_error="collect"
    )

    assert len(versions) == 3
    assert len(by_id) == 2
    assert [type(result) for result in refused] == [str, InvalidRecordError, str]
    assert [r and r.data for r in await db.get_batch(["a", "b"])] == [
        {"n": "x", "tags": [1, 2]},
        {"n": 2, "tags": [2]},
    ]
    assert await db.modify_batch([]) == []


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_update_where_changes_what_a_search_finds(db: AsyncDatabase) -> None:
    """It returns their number; a record that no longer matches afterwards is changed once."""
    await store_people(db)
    age = field("age")

    assert await db.update_where(age >= 30, age.inc(-20), field("seen").set(True)) == 2
    assert {r.id for r in await db.search(field("seen") == True)} == id_set("alice carol")  # noqa: E712
    assert await db.update_where(age < 1_000, age.inc(1)) == await db.count(age.exists())
    assert await db.update_where(field("name").regex("^E"), field("name").set("Eva")) == 1
    assert await db.update_where(field("nobody").exists(), n.set(1)) == 0
    assert (await db.require("alice"))["age"] == 11
    assert await db.count(field("seen").exists()) == 2


@pytest.mark.asyncio
@requires("compare_and_set")
async def test_update_where_names_records_that_do_not_admit_a_change(db: AsyncDatabase) -> None:
    """With transactions nothing is changed then, elsewhere the others are."""
    await store(db, {f"{number}": {"n": "x" if number == 3 else number} for number in range(6)})

    with pytest.raises(BatchError) as refused:
        await db.update_where(n != 5, n.inc(10), field("m").set(1))

    [bad] = [e for e in refused.value.outcomes if isinstance(e, InvalidRecordError)]
    assert (bad.record_id, bad.path) == ("3", "data.n")
    assert len(refused.value.outcomes) == 5
    changed = await db.count(field("m").exists())
    assert changed == (0 if db.capabilities.transactions else 4)
    assert (await db.require("3")).data == {"n": "x"}


@pytest.mark.asyncio
async def test_modifications_without_meaning_are_refused(db: AsyncDatabase) -> None:
    """Where a change is built if possible, and always before any I/O."""
    await put_one(db, Record({"n": 1}, id="a"))
    for name in ("_id", "_version", "_created_at", "_updated_at", "_metadata", "_metadata.by", "_score"):
        with pytest.raises(QueryError):
            field(name).set(1)
    builders: tuple[Callable[[], object], ...] = (
        lambda: n.inc(True),
        lambda: n.inc("1"),  # type: ignore[arg-type]
        lambda: n.inc(None),  # type: ignore[arg-type]
        lambda: n.inc(2**63),
        lambda: n.inc(float("nan")),
        lambda: n.max(None),
        lambda: n.min([1]),
        lambda: n.set({1: 2}),
        lambda: n.set("\0"),
        n.push,
        n.add,
        lambda: n.pull(float("inf")),
    )
    for build in builders:
        with pytest.raises(QueryError):
            build()
    changes: Any = n > 1
    for call in (
        lambda: db.modify("a"),
        lambda: db.modify("a", changes),
        lambda: db.modify_batch({"a": []}),
        lambda: db.modify_batch([("b", n.inc(1)), ("a", {"n": 1})]),  # type: ignore[list-item]
        lambda: db.modify("a", n.inc(1), where=match("n", "x")),
        lambda: db.modify("a", n.inc(1), where=(n > 0) & nearest("n", [1.0])),
        lambda: db.update_where(n > 1),
        lambda: db.update_where(Query().filter("n", ">", 0).sort("n"), n.inc(1)),
        lambda: db.update_where(Query().filter("n", ">", 0).limit(1), n.inc(1)),
    ):
        with pytest.raises(QueryError):
            await call()
    with pytest.raises(UsageError):
        await db.update_where(Query(), n.inc(1))
    with pytest.raises(UsageError):
        await db.modify_batch(["a"])  # type: ignore[list-item]
    assert (await db.require("a")).data == {"n": 1}


@pytest.mark.asyncio
@requires("transactions")
async def test_modifications_belong_to_their_transaction(db: AsyncDatabase) -> None:
    """They see its writes and go with it when it is rolled back."""
    await store(db, {"a": {"n": 1}, "b": {"n": 1}})

    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.modify("a", n.inc(1), where=n == 1)
            await tx.modify_batch({"a": n.inc(1), "b": n.inc(1)})
            assert await tx.update_where(n >= 2, n.inc(10)) == 2
            assert (await tx.require("a"))["n"] == 13
            raise ZeroDivisionError
    assert [r and r["n"] for r in await db.get_batch(["a", "b"])] == [1, 1]

    async with db.transaction() as tx:
        await tx.modify("a", n.inc(1))
        with pytest.raises(InvalidRecordError):
            await tx.modify("a", n.push(1))
        with pytest.raises(BatchError):
            await tx.update_where(n >= 1, n.inc(1), n.push(1))
        with pytest.raises(ConflictError):
            await tx.modify("a", n.inc(1), where=n == 1)
        assert await tx.update_where(n >= 1, n.inc(1)) == 2
    assert [r and r["n"] for r in await db.get_batch(["a", "b"])] == [3, 2]
