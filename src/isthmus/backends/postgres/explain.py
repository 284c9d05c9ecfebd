"""What the server's planner says about a statement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from isthmus._core.executor import NativePlan
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.statement import Statement


async def explained(connection: Connection, statement: Statement) -> NativePlan:
    """Return the statement, its arguments, the plan, and the indexes that it uses."""
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement.text}", *statement.args)
    plan = (orjson.loads(text) if isinstance(text, str) else text)[0]["Plan"]
    used = dict.fromkeys(node["Index Name"] for node in _nodes(plan) if "Index Name" in node)
    return NativePlan(
        statement.text,
        ", ".join(used) or None,
        {"arguments": list(statement.args), "plan": _lines(plan, 0), "cost": plan.get("Total Cost")},
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _lines(plan: dict[str, Any], depth: int) -> list[str]:
    what = plan["Node Type"]
    if "Index Name" in plan:
        what += f" using {plan['Index Name']}"
    elif "Relation Name" in plan:
        what += f" on {plan['Relation Name']}"
    lines = ["  " * depth + f"{what} (about {plan.get('Plan Rows')} rows)"]
    for inner in plan.get("Plans", ()):
        lines += _lines(inner, depth + 1)
    return lines
