"""What the runs on tables that others made share: types of columns, rows as JSON, and the comparison.

Rows are turned into JSON here, by other code than the backends'.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isthmus import AsyncDatabase, Query
from isthmus._path import Path, Root
from isthmus._record import Record
from isthmus._value import replace
from isthmus._values import JSON, canonical, same
from isthmus.errors import InvalidRecordError
from isthmus.testing.queries import QueryMaker
from isthmus.testing.records import RecordSet
from tests.differential.checks import Check, make
from tests.differential.queries import Report, differs


@dataclass(frozen=True, slots=True)
class Type:
    """A type of columns, SQL literals of its values, and whether it can be part of a key."""

    name: str
    literals: tuple[str, ...]
    key: bool = False
    rotten: tuple[str, ...] = ()
    """Values without a canonical form."""
    collations: tuple[str, ...] = ()
    read: str = "{0}"
    """How the driver is given it."""


class NativeCheck(Check):
    """A check whose search takes records with values that have no canonical form."""

    async def actual(self, db: AsyncDatabase) -> Any:
        """Return the backend's answer; of a record that is invalid what it has else."""
        if self.verb == "search":
            return [[r.id, r._queried] for r in await db.search(self.query)]
        return await super().actual(db)


def id_of_key(key: Sequence[JSON]) -> str:
    """Return the id of a row: the text of its key, or the key as JSON."""
    if len(key) == 1:
        return key[0] if isinstance(key[0], str) else _compact(key[0])
    return _compact(key)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_json(text: str) -> JSON:
    """Return the value of a column of JSON; None if it has no canonical form."""
    if '"a": 1, "a"' in text or "u0000" in text:
        return None
    return json.loads(text, parse_int=_integer)  # type: ignore[no-any-return]


def _integer(digits: str) -> int | float:
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else float(digits)


def canonical_or_none(value: Any) -> JSON:
    """Return a value as records hold it; None if it has no canonical form."""
    try:
        return canonical({"v": value})["v"]
    except InvalidRecordError:
        return None


async def compare(
    db: AsyncDatabase,
    records: list[Record],
    ranks: dict[str, tuple[Any, ...]],
    rng: random.Random,
    wanted: int,
    report: Report,
    *,
    is_clean: bool,
    may_delete: bool = True,
    kind: type[Check] = NativeCheck,
) -> str | None:
    """Read all records, by id too, and run queries; return what differs. `ranks`: what each id sorts by.

    Unless `is_clean` there are values without a canonical form, which a record cannot be made of.
    """

    def id_key(id: str) -> tuple[Any, ...]:
        return ranks[id]

    seen = await differs(db, records, NativeCheck("search", Query(), id_key=id_key))
    if seen is not None:
        return f"rows\nexpected {seen[0]}\nactual   {seen[1]}"
    for record in records:
        if not record.id:  # no id of a record is empty: such a row is found by queries only
            continue
        found = await db.get(record.id)
        if found is None or not same(found._queried, record.data):
            return f"get({record.id!r}) is {found}, expected {record}"
    if not records:
        return None
    maker = QueryMaker(
        rng, RecordSet(tuple(records), everyday=False), records, attributes=[Path(Root.ID, ())]
    )
    support = db._backend.support(db.collection_name)
    for number in range(wanted):
        made = maker.generate()
        check = make(rng, maker, made)
        if not is_clean and check.verb not in ("count", "exists", "aggregate"):
            check = Check("search", replace(check.query, fields=None))
        if number == wanted - 1 and made.comparisons and may_delete:
            check = Check("delete_where", Query(where=made.predicate))
        check = kind(check.verb, check.query, check.size, check.by, check.measures, check.part, id_key=id_key)
        report.tally.add(check.verb, made, len(records), support, everyday=True)
        seen = await differs(db, records, check, made.matching)
        if seen is not None:
            native = "" if check.verb in ("aggregate", "delete_where") else await db.explain(check.query)
            return f"{check}\nexpected {seen[0]}\nactual   {seen[1]}\n{native}"
    return None
