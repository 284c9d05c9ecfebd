"""Small searches and counts of one loop turn, merged into one statement.

Only look-ups are merged, so that none is slow for its neighbours: the server's plan for the merged
statement must reach every row by an index condition, and one run of it must read few blocks. That is checked
now and then for each statement; until it is known, and if it does not hold, calls run alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from isthmus._core.executor import PageRequest
from isthmus._query.shape import shape_of
from isthmus.backends.postgres.coalesce import Coalescer
from isthmus.backends.postgres.sql.statement import Statement
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import IsthmusError

Fetch = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]
"""Runs a statement and returns its rows; none if the table does not exist."""

MAX_ROWS = 100
"""Rows of a search that may be merged."""
MAX_MERGED = 50
MAX_BLOCKS = 400
"""Blocks that one look-up may read: about four for each row, and some for each index.

The planner's cost is no measure: it has no statistics of an index without rows.
"""
SLOW = 1.0
"""Seconds after which the calls of a statement are no longer merged for a while."""
_RECHECK = 10.0
_MAX_KEPT = 200
_QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")
_PLACEHOLDER = re.compile(r"\$(\d+)::(text|int4|int8|numeric|boolean|float8|jsonb)\b(?!\[)")
_READS_TABLE = ("Seq Scan", "Sample Scan", "Tid Scan", "Tid Range Scan")
_READS_INDEX = ("Index Scan", "Index Only Scan", "Bitmap Index Scan")


def may_merge(request: PageRequest) -> bool:
    """Return whether a request is a small search."""
    size = request.size
    return (
        size is not None
        and size + request.offset <= MAX_ROWS
        and request.after is None
        and not (request.for_update or request.consistent or request.streamed)
        and (shaped := shape_of(request.where)) is not None
        and bool(shaped.operands)
    )


def merge_text(text: str, json_array: str) -> str | None:
    """Return a statement that runs another for each element of its arguments, which are arrays.

    The last column is the number of the element, from 1. Returns None for a statement without arguments or
    with an array among them.
    """
    types: dict[int, str] = {}

    def reference(found: re.Match[str]) -> str:
        types[int(found[1])] = found[2]
        return f"k.p{found[1]}"

    parts = _QUOTED.split(text)
    parts[::2] = [_PLACEHOLDER.sub(reference, part) for part in parts[::2]]
    if not types or any("$" in part for part in parts[::2]):
        return None
    inner = "".join(parts)
    arrays = ", ".join(
        f"${n}::{json_array if types[n] == 'jsonb' else types[n] + '[]'}" for n in sorted(types)
    )
    names = ", ".join(f"p{n}" for n in sorted(types))
    # A row of `k` is joined by a nested loop, which keeps the order of the rows of each.
    return (
        f"SELECT r.*, k.n FROM unnest({arrays}) WITH ORDINALITY AS k({names}, n)"
        f" CROSS JOIN LATERAL ({inner}) AS r"
    )


def is_lookup(plan: dict[str, Any]) -> bool:
    """Return whether a plan reaches all rows by index conditions."""
    waiting = [plan]
    while waiting:
        node = waiting.pop()
        kind = node.get("Node Type")
        if kind in _READS_TABLE or (kind in _READS_INDEX and "Index Cond" not in node):
            return False
        waiting += node.get("Plans", ())
    return True


def blocks_read(plan: dict[str, Any]) -> int:
    """Return how many blocks a statement has read, from memory or from disk."""
    return int(plan.get("Shared Hit Blocks", 0)) + int(plan.get("Shared Read Blocks", 0))


@dataclass(slots=True)
class _Merged:
    """A statement that may be merged, with the result of its last check."""

    text: str
    calls: Coalescer[Sequence[Any], list[Any]]
    checked: float = float("-inf")
    is_lookup: bool = False
    running: int = 0


class Lookups:
    """Merges the look-ups on one table in one event loop."""

    def __init__(self, table: Table, fetch: Fetch) -> None:
        self.table = table
        self._fetch = fetch
        self._statements: dict[str, _Merged | None] = {}

    async def fetch(self, statement: Statement) -> list[Any]:
        """Return the rows of a statement, alone or together with others of the same text."""
        text, args = statement
        if text not in self._statements:
            self._add(text)
        merged = self._statements[text]
        if merged is None:
            return await self._fetch(text, args)
        merged.running += 1
        try:
            # A call that is alone has nothing to be merged with.
            if merged.running > 1 and time.monotonic() - merged.checked > _RECHECK:
                await self._check(merged, args)
            return await (merged.calls(args) if merged.is_lookup else self._fetch(text, args))
        finally:
            merged.running -= 1

    def _add(self, text: str) -> None:
        if len(self._statements) >= _MAX_KEPT:
            self._statements.clear()
        found = merge_text(text, self.table.json_array)
        if found is None:
            self._statements[text] = None
            return

        async def run(calls: Sequence[Sequence[Any]]) -> list[list[Any]]:
            return await self._run(text, merged, calls)

        merged = self._statements[text] = _Merged(found, Coalescer(run, max_batch=MAX_MERGED))

    async def _check(self, merged: _Merged, args: Sequence[Any]) -> None:
        # Calls of the meantime run alone.
        merged.checked, merged.is_lookup = time.monotonic(), False
        one = [[value] for value in args]
        try:
            plan = await self._explain("FORMAT JSON", merged.text, one)
            if plan is None or not is_lookup(plan):
                return
            plan = await self._explain("ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON", merged.text, one)
        except IsthmusError:  # the call itself raises it
            return
        merged.is_lookup = plan is not None and blocks_read(plan) <= MAX_BLOCKS

    async def _explain(self, options: str, text: str, args: Sequence[Any]) -> dict[str, Any] | None:
        """Return the plan of a statement; None if the table was dropped."""
        rows = await self._fetch(f"EXPLAIN ({options}) {text}", args)
        if not rows:
            return None
        plan = rows[0][0]
        return (orjson.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]  # type: ignore[no-any-return]

    async def _run(self, text: str, merged: _Merged, calls: Sequence[Sequence[Any]]) -> list[list[Any]]:
        if len(calls) == 1:
            return [await self._fetch(text, calls[0])]
        started = time.monotonic()
        rows = await self._fetch(merged.text, [list(values) for values in zip(*calls, strict=True)])
        if time.monotonic() - started > SLOW:
            merged.is_lookup = False
        found: list[list[Any]] = [[] for _ in calls]
        for row in rows:
            found[row[-1] - 1].append(row)
        return found
