"""Evaluates the condition of a page of changes, which no store does."""

from __future__ import annotations

from isthmus._core.changes import ChangePage
from isthmus._core.evaluation import select_matching
from isthmus._core.op import ReadChanges
from isthmus._core.stack import Next
from isthmus._query.ast import TRUE
from isthmus._query.codec import text
from isthmus._value import replace
from isthmus.errors import UnsupportedError
from isthmus.layers._policy import Policy


async def read_changes(op: ReadChanges, policy: Policy, call_next: Next) -> ChangePage:
    """Return a page whose changes have no record where it does not match.

    Of the records that were there before the changes only those that match are returned.
    """
    where = op.where
    policy.check_patterns(where)
    if where != TRUE and policy.residual == "refuse":
        raise UnsupportedError(
            f"the policy refuses to evaluate client-side, as changes() has to: {text(where)}",
            capability="exact",
        )
    page: ChangePage = await call_next(replace(op, where=TRUE))
    if where == TRUE or not page.changes:
        return page
    records = [change.record for change in page.changes if change.record is not None]
    matching = {record.id for record in await select_matching(records, where)}
    if op.position is not None and op.position.after is not None:
        return replace(page, changes=[change for change in page.changes if change.id in matching])
    return replace(
        page,
        changes=[
            change if change.id in matching else replace(change, record=None) for change in page.changes
        ],
    )
