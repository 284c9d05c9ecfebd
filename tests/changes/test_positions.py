"""Texts that no change had as its position, whose checksum fits, are refused on each store (§10)."""

from __future__ import annotations

import pytest

from isthmus import ChangesExpiredError, QueryError
from isthmus._change_position import decode_position, encode_position
from isthmus._changes_declaration import declare_changes
from isthmus._core.changes import Position
from tests.stores import KNOWN, parameters, store_of

_WITHOUT = [name for name in KNOWN if "object" in name or name.startswith(("elasticsearch", "sqlalchemy"))]

_PLACES = (
    *("", "x", "-1", "1_0", " 1", "٣", "9" * 19, "9" * 400),
    *("1.2", "1.2.x", "-1.-1.-1", "1.2.3.4", f"1.{'9' * 20}.0", "1.2.3@x:y:z", "1.2.3@1:2"),
    *("1:2", "x:y:0", "-1:x:0", "1:x:-1"),
)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", parameters(*_WITHOUT))
async def test_a_place_of_none_is_refused(name: str) -> None:
    """None is read from, and none lets a reader wait for ever."""
    async with store_of(name).fresh() as db:
        await declare_changes(db)
        await db.upsert("a", {})
        async with db.changes(since="start") as changes:
            [change] = await changes.read()
        good = decode_position(change.position, db.backend, db.collection_name)
        for place in _PLACES:
            text = encode_position(db.backend, Position(good.source, place))
            with pytest.raises((QueryError, ChangesExpiredError)):
                async with db.changes(since=text) as changes:
                    await changes.read(wait=False)
