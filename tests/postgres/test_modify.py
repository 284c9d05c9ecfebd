"""Native modifications: what PostgreSQL stores is what the pure function says, and it is left little."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from isthmus import field
from isthmus._core.modify import Modification
from isthmus._query.ast import TRUE
from isthmus._query.changes import FieldChange, apply_changes
from isthmus._values import canonical, encode, same
from isthmus.errors import BatchError, InvalidRecordError
from tests.postgres.databases import opened
from tests.seeds import drawn

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

SEED = drawn()
NUMBERS: list[Any] = [
    0, 1, -1, 2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 0.0, 0.1, 0.2, -0.5, 1.0, 3.0, 1e-7, 5e-324,
    1e14 + 0.5, 999999999999999.0, 1e15, 1e16, 4503599627370495.5, 1e19, 1e22, 1e300, -1e308,
    1.7976931348623157e308,
]  # fmt: skip
OTHERS: list[Any] = [None, True, False, "", "a", "Ä", "￿", "\U00010000", "1", [], [1], [[1.0]], {}, {"n": 1}]


def _change(rng: random.Random) -> FieldChange:
    path = field(rng.choice(["n", "o.n", "o.p.n", ["a.b"], [""]]))
    match rng.randrange(9):
        case 0:
            return path.set(rng.choice(NUMBERS + OTHERS))
        case 1:
            return path.unset()
        case 2:
            return path.push(*rng.choices(NUMBERS + OTHERS, k=2))
        case 3 | 4:
            value = rng.choice([v for v in NUMBERS + OTHERS if isinstance(v, str | float | int)])
            value = str(value) if isinstance(value, bool) else value
            return path.max(value) if rng.random() < 0.5 else path.min(value)
    return path.inc(rng.choice(NUMBERS))


def _data(rng: random.Random) -> dict[str, Any]:
    def value() -> Any:
        return rng.choice(NUMBERS if rng.random() < 0.7 else OTHERS)

    data: dict[str, Any] = {"k": 1}
    for key in ("n", "a.b", ""):
        if rng.random() < 0.8:
            data[key] = value()
    if rng.random() < 0.8:
        data["o"] = {"n": value(), "p": {"n": value()}} if rng.random() < 0.8 else value()
    return data


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_native_modification_is_the_pure_function(driver: str) -> None:
    """For values of every kind; and most of what succeeds is native."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    native = succeeded = 0
    async with opened(driver=driver) as db:
        data = [_data(rng) for _ in range(400)]
        ids = await db.create_batch(data)
        for id, before in zip(ids, map(canonical, data), strict=True):
            changes = tuple(_change(rng) for _ in range(rng.choice((1, 1, 1, 2))))
            try:
                expected: Any = encode(apply_changes(before, changes))
            except InvalidRecordError:
                expected = None
            version = await db._backend.modify(db.collection_name, Modification(id, changes, TRUE))  # type: ignore[attr-defined]
            record = await db.require(id)
            if version is None:
                assert same(record.data, before)
            else:
                assert expected is not None, (before, changes)
                # To the letter: 1.0 is no integer, whatever is added to it later.
                assert _spelled(record.data) == _spelled(apply_changes(before, changes)), (before, changes)
                assert record.version == version
            native += version is not None
            succeeded += expected is not None

    assert native >= 0.4 * succeeded


def _spelled(value: Any) -> Any:
    """Return a value whose numbers are told apart by their type; keys are in no order."""
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return (type(value), value)


async def test_update_where_is_one_statement_unless_a_row_needs_the_core() -> None:
    """Rows that SQL leaves to the core are changed with the others, or none is."""
    n = field("n")
    async with opened() as db:
        await db.create_batch([{"n": number} for number in range(50)])

        assert await db.update_where(n < 10, n.inc(0.5), field("m").push(1)) == 10
        assert await db.aggregate(n < 10, total=("sum", "n")) == [{"total": 50.0}]
        await db.create_batch([{"n": 1e300}, {"n": None}])
        assert await db.update_where(field("_id").exists(), n.inc(1)) == 52
        await db.create({"n": "text"})
        with pytest.raises(BatchError) as refused:
            await db.update_where(field("_id").exists(), n.inc(1))
        assert sum(isinstance(outcome, InvalidRecordError) for outcome in refused.value.outcomes) == 1
        assert await db.aggregate(n < 100, total=("sum", "n")) == [{"total": 1225 + 50 + 5 + 1}]


async def test_a_transaction_goes_on_after_a_row_that_needs_the_core() -> None:
    """The statement that fails is undone alone."""
    n = field("n")
    async with opened() as db:
        await db.create_batch([{"n": 1}, {"n": 1e300}])
        async with db.transaction() as tx:
            assert await tx.update_where(n > 0, n.inc(1)) == 2
            assert await tx.update_where(n == 2, n.inc(1)) == 1
        assert sorted(record["n"] for record in await db.search()) == [3, 1e300]


async def test_an_update_of_another_session_is_not_overwritten() -> None:
    """Two handles, two hundred increments, one record."""

    async with opened() as db, opened(table=db.collection_name, coalesce=False) as other:
        id = await db.create({"n": 0})
        changes = field("n").inc(1)

        await asyncio.gather(*(handle.modify(id, changes) for handle in (db, other) for _ in range(100)))

        assert (await db.require(id))["n"] == 200
