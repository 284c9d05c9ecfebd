"""The values of unique fields in a side table, written in the transaction of the records.

A value is one row, whose primary key is a digest of the field and the value: of two writers that
claim it one waits for the other's end, and then finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.unique import Duplicate, Key, Unique
from isthmus._core.unique_index import Claim, DuplicateSearch, UniqueChanges
from isthmus._values import decode
from isthmus.backends.sqlalchemy.schema import (
    claim_digest,
    claims_table,
    field_digest,
    id_of,
    key_of,
    unique_in,
)
from isthmus.backends.sqlalchemy.statements import chunks
from sqlalchemy import Table, bindparam, delete, insert, select

_ROWS = 1_000


class StoredClaims:
    """The stored values of some records, and the holders of some values, read as they are needed."""

    def __init__(self, connection: AsyncConnection, table: Table) -> None:
        self._connection = connection
        self._source = claims_table(table.name)
        self.declared = unique_in(table)
        self._claims: dict[str, tuple[Claim, ...]] = {}
        self._holders: dict[Claim, str | None] = {}

    def holder(self, claim: Claim) -> str | None:
        """Return the id of the record that has a value, if it was read."""
        return self._holders.get(claim)

    def claims_of(self, id: str) -> tuple[Claim, ...]:
        """Return the values that a record has, if they were read."""
        return self._claims.get(id, ())

    async def read_records(self, ids: Iterable[str]) -> None:
        """Read the values of records, whose rows the caller has locked; a query for each 500."""
        source = self._source
        for part in chunks(sorted({key_of(id) for id in ids})):
            for row in await self._connection.execute(select(source).where(source.c.key.in_(part))):
                if row.field:
                    id = id_of(row.key)
                    self._claims[id] = (*self._claims.get(id, ()), row.claim)
                    self._holders[row.claim] = id

    async def read_holders(self, claims: Iterable[Claim]) -> bool:
        """Read who has values that were not read yet, a query for each 500; return whether any is new.

        Waits for transactions that claim or give up one of them.
        """
        missing = sorted(set(claims) - self._holders.keys())
        for part in chunks(missing):
            source = self._source
            statement = select(source.c.claim, source.c.key).where(source.c.claim.in_(part))
            found = {
                row.claim: id_of(row.key)
                for row in await self._connection.execute(statement.with_for_update())
            }
            self._holders.update({claim: found.get(claim) for claim in part})
        return bool(missing)

    async def write(self, changes: ClaimChanges) -> bool:
        """Store changes; return False if another writer has changed one of the values meanwhile."""
        source = self._source
        gone: list[dict[str, Any]] = []
        new: list[dict[str, Any]] = []
        for id, claims in changes.claims():
            before = self.claims_of(id)
            gone += [{"b_claim": claim, "b_key": key_of(id)} for claim in before if claim not in claims]
            new += [
                {"claim": claim, "field": changes.fields[claim], "key": key_of(id), "declared": None}
                for claim in claims
                if claim not in before
            ]
        held = (source.c.claim == bindparam("b_claim")) & (source.c.key == bindparam("b_key"))
        for row in gone:
            if (await self._connection.execute(delete(source).where(held), row)).rowcount != 1:
                return False
        # In one order, so that two batches do not wait for each other in a circle.
        for part in chunks(sorted(new, key=lambda row: str(row["claim"]))):
            await self._connection.execute(insert(source), part)
        return True


class ClaimChanges(UniqueChanges):
    """What a batch changes about stored values; a value is its digest."""

    def __init__(self, base: StoredClaims) -> None:
        super().__init__(base)
        self.fields: dict[Claim, str] = {}
        """The digest of each value's field."""

    def claim_of(self, unique: Unique, key: Key) -> Claim:
        """Return the digest of a value."""
        claim = claim_digest(unique, key)
        self.fields[claim] = field_digest(unique)
        return claim


async def clear_claims(connection: AsyncConnection, table: Table) -> None:
    """Delete all values; declarations stay."""
    if unique_in(table):
        source = claims_table(table.name)
        await connection.execute(delete(source).where(source.c.field != ""))


async def read_all(connection: AsyncConnection, table: Table) -> Any:
    """Yield lists of ids and data of all records, a query for each 1,000."""
    after = ""
    while True:
        statement = select(table.c.key, table.c.data).where(table.c.key > after).order_by(table.c.key)
        rows: Sequence[Any] = (await connection.execute(statement.limit(_ROWS))).all()
        if not rows:
            return
        yield [(id_of(row.key), decode(row.data)) for row in rows]
        after = rows[-1].key


async def find_duplicates(connection: AsyncConnection, table: Table, unique: Unique) -> list[Duplicate]:
    """Return values that several records have, each with some of their ids; 20 values at most.

    Reads all records and keeps their values in memory.
    """
    search = DuplicateSearch(unique)
    async for part in read_all(connection, table):
        for id, data in part:
            search.add(id, data)
    return search.duplicates()
