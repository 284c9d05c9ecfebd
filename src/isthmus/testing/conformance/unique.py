"""Unique fields: at most one record has a value, no matter who writes it and in whichever way (§5)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from isthmus import AsyncDatabase, Record, field
from isthmus._core.unique import Unique, unique_of
from isthmus._unique import declare_unique, end_unique, find_duplicates
from isthmus.errors import (
    AlreadyExistsError,
    BatchError,
    ConfigError,
    InvalidRecordError,
    NotWrittenError,
    UnsupportedError,
)
from isthmus.testing.conformance._fixtures import requires, store

_EMAIL, _TENANT = unique_of([["email"]]), unique_of([["tenant", "login.name"]])
_email, _n = field("email"), field("n")


async def _declare(db: AsyncDatabase, *declared: Unique) -> None:
    """Make fields of the empty collection unique, as the config does when a collection is made."""
    for unique in declared or (*_EMAIL, *_TENANT):
        await declare_unique(db, [".".join(path.keys) for path in unique.paths])


@pytest.mark.asyncio
@requires("unique")
async def test_no_two_records_have_one_value(db: AsyncDatabase) -> None:
    """By each method that writes; the error has the field and the other record's id."""
    await _declare(db)
    await store(db, {"a": {"email": "x"}, "b": {"email": "y"}, "c": {}})
    x: dict[str, Any] = {"email": "x"}

    async def refused(call: Any) -> None:
        with pytest.raises(AlreadyExistsError) as clash:
            await call
        assert (clash.value.field, clash.value.record_id) == ("email", "a")

    await refused(db.create(Record(x, id="d")))
    await refused(db.replace("b", x))
    await refused(db.update("c", x))
    await refused(db.upsert("d", x))
    await refused(db.upsert("b", x))
    await refused(db.modify("c", field("email").set("x")))
    await refused(db.modify("c", field("n").set(1), field("email").max("x")))
    with pytest.raises(AlreadyExistsError) as taken:
        await db.create(Record({"email": "z"}, id="a"))
    assert taken.value.field is None
    records = await db.get_batch(["a", "b", "c", "d"])
    assert [r and r.data for r in records] == [{"email": "x"}, {"email": "y"}, {}, None]

    await db.replace("a", x)
    await db.update("a", {"n": 1})
    await db.modify("a", field("n").inc(1), field("email").set("x"))
    await db.update("a", {"email": "new"})
    await db.update("b", x)
    await db.delete("b")
    await db.create(Record(x, id="e"))


@pytest.mark.asyncio
@requires("unique")
async def test_equal_means_what_it_means_in_a_query(db: AsyncDatabase) -> None:
    """1 is 1.0 and not true; text differs by code point; a record without a value takes no part."""
    await _declare(db)
    values: list[Any] = [
        1,
        True,
        "1",
        "A",
        "a",
        "\u00e9",
        "e\u0301",
        0.1,
        2**53 + 1,
        2**53,
        "",
        " ",
        False,
        0,
    ]
    ids = await db.create_batch([{"email": value} for value in values])
    assert len(ids) == len(values)
    await db.create_batch([{}, {"email": None}, {"email": None}, {"x": {"email": 1}}])

    for value in (1.0, 0.0, -0.0, float(2**53), True, "\u00e9", 0.1):
        with pytest.raises(AlreadyExistsError) as clash:
            await db.create({"email": value})
        assert clash.value.field == "email"
        same = [
            id for id, other in zip(ids, values, strict=True) if type(other) is type(value) and other == value
        ]
        assert not same or clash.value.record_id in ids


@pytest.mark.asyncio
@requires("unique")
async def test_several_fields_take_long_texts(db: AsyncDatabase) -> None:
    """Each of the longest text that a field may have, which no store can compress."""
    names = ["a", "b", "c", "d"]
    await _declare(db, *unique_of([names]))
    digests = (hashlib.sha256(b"%d" % number).hexdigest() for number in range(64))
    long = "".join(digests)
    texts = [long[at : at + 1_023] + "\\" for at in range(0, 4 * 1_023, 1_023)]
    longest: dict[str, Any] = dict(zip(names, texts, strict=True))
    await db.create(Record(longest, id="first"))
    for other in ({"d": "x"}, {"d": texts[3][:-1]}, {"d": 1}, {"d": [texts[3]]}):
        if isinstance(other["d"], list):
            with pytest.raises(InvalidRecordError):
                await db.create({**longest, **other})
        else:
            await db.create({**longest, **other})

    for call in (db.create(longest), db.upsert("other", {**longest, "n": 1})):
        with pytest.raises(AlreadyExistsError) as clash:
            await call
        assert (clash.value.field, clash.value.record_id) == ("a, b, c, d", "first")


@pytest.mark.asyncio
@requires("unique")
async def test_lists_objects_and_long_texts_are_refused_there(db: AsyncDatabase) -> None:
    """A unique field holds one scalar at most, also below a list."""
    await _declare(db)
    await store(db, {"a": {"tenant": 1, "login": {"name": "n"}}})

    for value in ([], ["x"], {}, {"a": 1}, "é" * 513):
        with pytest.raises(InvalidRecordError) as invalid:
            await db.create({"email": value})
        assert invalid.value.path == "data.email"
        with pytest.raises(InvalidRecordError):
            await db.modify("a", field("email").set(value))
    with pytest.raises(InvalidRecordError):
        await db.upsert("b", {"tenant": 1, "login": [{"name": "n"}]})
    await db.create({"email": "é" * 512, "login": "text", "tenant": 1})


@pytest.mark.asyncio
@requires("unique")
async def test_several_fields_together(db: AsyncDatabase) -> None:
    """Each may repeat alone; a record that lacks one takes no part."""
    await _declare(db)
    await store(db, {"a": {"tenant": 1, "login": {"name": "n"}}})

    await db.create_batch([{"tenant": 2, "login": {"name": "n"}}, {"tenant": 1, "login": {"name": "m"}}])
    await db.create_batch([{"tenant": 1}, {"tenant": 1}, {"login": {"name": "n"}}, {"login": {"name": "n"}}])
    with pytest.raises(AlreadyExistsError) as clash:
        await db.create({"tenant": 1.0, "login": {"name": "n"}})

    assert clash.value.record_id == "a"
    assert clash.value.field is not None
    assert set(clash.value.field.split(", ")) == {"tenant", "login.name"}


@pytest.mark.asyncio
@requires("unique")
async def test_items_of_a_batch_clash_in_their_order(db: AsyncDatabase) -> None:
    """With earlier items of the batch too; an atomic one writes nothing."""
    await _declare(db)
    await store(db, {"a": {"email": "x"}})
    items = [
        Record({"email": value}, id=id) for id, value in (("b", "y"), ("c", "x"), ("d", "y"), ("e", "z"))
    ]

    with pytest.raises(BatchError) as refused:
        await db.create_batch(items, atomic=True)
    outcomes = refused.value.outcomes
    assert [type(o) for o in outcomes] == [
        NotWrittenError, AlreadyExistsError, AlreadyExistsError, NotWrittenError,
    ]  # fmt: skip
    assert [(o.field, o.record_id) for o in outcomes[1:3]] == [("email", "a"), ("email", "b")]
    assert await db.count() == 1

    results = await db.upsert_batch(items, atomic=False, on_error="collect")
    assert [isinstance(result, str) for result in results] == [True, False, False, True]
    swapped = await db.update_batch(
        [("b", {"email": "free"}), ("e", {"email": "y"}), ("a", {"email": "y"})],
        atomic=False,
        on_error="collect",
    )
    assert [isinstance(result, str) for result in swapped] == [True, True, False]
    with pytest.raises(BatchError):
        await db.update_where(field("email").exists(), field("email").set("same"))
    # Without transactions the one that was first has it.
    assert await db.count(field("email") == "same") == (not db.capabilities.transactions)


@pytest.mark.asyncio
@requires("unique")
async def test_modifications_of_one_record_are_refused_one_by_one(db: AsyncDatabase) -> None:
    """Those of a batch, and those of several callers at the same time, which may share a write."""
    await _declare(db)
    await store(db, {"a": {"email": "x"}, "b": {"n": 0}})

    results = await db.modify_batch(
        [
            ("b", [field("n").inc(1)]),
            ("b", [field("n").set("text"), field("email").set("x")]),
            ("b", [field("n").inc(1)]),
            ("b", [field("email").set(["x"])]),
        ],
        atomic=False,
        on_error="collect",
    )
    refused = [type(result) for result in results if not isinstance(result, str)]
    assert refused == [AlreadyExistsError, InvalidRecordError]
    assert (await db.require("b")).data == {"n": 2}
    calls = [
        db.modify("b", field("n").inc(1), *([field("email").set("x")] if number % 5 == 0 else []))
        for number in range(25)
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, AlreadyExistsError) for outcome in outcomes) == 5
    assert (await db.require("b")).data == {"n": 22}


_REPEATED: dict[str, tuple[list[tuple[str, Any]], str, dict[str, Any]]] = {
    "a value given up before another record takes it": (
        [("a", _email.set("free")), ("b", _email.set("x")), ("a", _email.set("y"))],
        "sss",
        {"a": {"email": "y"}, "b": {"email": "x"}, "c": {"n": 0}},
    ),
    "a value that is taken for one item only": (
        [("c", _email.set("x")), ("c", _email.set("z"))],
        "As",
        {"a": {"email": "x"}, "b": {"email": "y"}, "c": {"n": 0, "email": "z"}},
    ),
    "items that follow a refused one": (
        [("c", [_n.set("t"), _email.set("x")]), ("c", _n.inc(1)),
         ("c", _email.set("y")), ("a", _email.set("z"))],
        "AsAs",
        {"a": {"email": "z"}, "b": {"email": "y"}, "c": {"n": 1}},
    ),
    "both kinds of refusals": (
        [("c", [_n.inc(1), _email.set("x")]), ("c", _n.inc(1)), ("b", _email.set("q")), ("c", _n.push(1)),
         ("c", _email.set("x"))],
        "AssIA",
        {"a": {"email": "x"}, "b": {"email": "q"}, "c": {"n": 1}},
    ),
}  # fmt: skip
_LETTERS = {"A": AlreadyExistsError, "I": InvalidRecordError, "N": NotWrittenError, "s": str}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", _REPEATED)
@requires("unique")
async def test_each_modification_of_a_batch_finds_what_the_earlier_ones_left(
    db: AsyncDatabase, case: str
) -> None:
    """Also where a record is modified several times: each has its own outcome and version."""
    await _declare(db)
    initial: dict[str, dict[str, Any]] = {"a": {"email": "x"}, "b": {"email": "y"}, "c": {"n": 0}}
    await store(db, initial)
    items, letters, after = _REPEATED[case]
    refuses = letters.strip("s") != ""

    whole = await db.modify_batch(items, atomic=True, on_error="collect")
    records = await db.get_batch("abc")
    assert [type(result) for result in whole] == [
        _LETTERS["N" if letter == "s" and refuses else letter] for letter in letters
    ]
    assert {r.id: r.data for r in records if r} == (initial if refuses else after)

    await db.clear()
    await store(db, initial)
    results = await db.modify_batch(items, atomic=False, on_error="collect")
    assert [type(result) for result in results] == [_LETTERS[letter] for letter in letters]
    versions = [result for result in results if isinstance(result, str)]
    assert len(set(versions)) == len(versions)
    assert {r.id: r.data for r in await db.get_batch("abc") if r} == after


@pytest.mark.asyncio
@requires("unique", "transactions")
async def test_a_transaction_goes_on_after_a_clash(db: AsyncDatabase) -> None:
    """It sees its own values, and gives them back when it is rolled back."""
    await _declare(db)
    await store(db, {"a": {"email": "x"}})

    async with db.transaction() as tx:
        await tx.create(Record({"email": "y"}, id="b"))
        for call in (tx.create({"email": "y"}), tx.update("b", {"email": "x"})):
            with pytest.raises(AlreadyExistsError):
                await call
        await tx.modify("a", field("email").set("z"))
        await tx.create(Record({"email": "x"}, id="c"))
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.delete("c")
            await tx.create({"email": "x2"})
            raise ZeroDivisionError
    await db.create({"email": "x2"})
    with pytest.raises(AlreadyExistsError):
        await db.create({"email": "x"})


@pytest.mark.asyncio
@requires("unique")
async def test_of_concurrent_claims_one_wins(db: AsyncDatabase) -> None:
    """Whatever the claimants do meanwhile."""
    await _declare(db)

    results = await asyncio.gather(
        *(db.create({"email": number % 5}) for number in range(40)), return_exceptions=True
    )

    assert sum(isinstance(result, str) for result in results) == 5
    assert sum(isinstance(result, AlreadyExistsError) for result in results) == 35
    assert await db.count() == 5


@pytest.mark.asyncio
@requires("unique")
async def test_a_collection_with_duplicates_is_not_read_unique(db: AsyncDatabase) -> None:
    """The duplicates are named; without them it is, and then the declaration can be ended."""
    await store(db, {"a": {"email": 1}, "b": {"email": 1.0}, "c": {"email": "x"}})
    [unique] = _EMAIL

    assert [ids for _, ids in await find_duplicates(db, ["email"])] == [["a", "b"]]
    with pytest.raises(ConfigError, match=r"'a', 'b'"):
        await _declare(db, unique)
    await db.create({"email": "x"})
    await db.delete_where(field("email") == "x")
    await db.delete("b")
    await _declare(db, unique)
    with pytest.raises(AlreadyExistsError):
        await db.create({"email": 1})
    await end_unique(db, ["email"])
    await db.create({"email": 1})


@pytest.mark.asyncio
async def test_a_backend_without_unique_fields_refuses_them(db: AsyncDatabase) -> None:
    """Before any I/O."""
    if db.capabilities.unique:
        assert await find_duplicates(db, ["email"]) == []
        return
    for call in (declare_unique, find_duplicates, end_unique):
        with pytest.raises(UnsupportedError) as refused:
            await call(db, ["email"])
        assert refused.value.capability == "unique"
