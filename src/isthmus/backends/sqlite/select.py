"""The statements of pages, counts, reads by id and deletions."""

from __future__ import annotations

from dataclasses import replace

from isthmus._core.executor import PageRequest
from isthmus._query.ast import And, Between, Equal, In, Like, Ordered, Predicate, StartsWith
from isthmus._query.order import NONE, OBJECT, Position
from isthmus.backends.sqlite.column_filter import (
    IS_ODD,
    NOT_ODD,
    by_row,
    condition,
    has_columns,
    orders_by_columns,
    page_by_columns,
)
from isthmus.backends.sqlite.fields import LIST, NOTHING, JSONField, field_of
from isthmus.backends.sqlite.filter import ROW
from isthmus.backends.sqlite.order import Ordering, arm_ranks
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.statement import Binder, Statement, quote_name

# Above this number of rows the sorting of the arms costs more than one plain sort.
_MAX_ARM_ROWS = 5_000
_NO_LIMIT = 2**62  # its sum with an offset fits 64 bits


def page(table: Table, request: PageRequest) -> Statement:
    """Return the statement of one page and one more row, which says that there is a next page."""
    binder = Binder()
    order = request.order or ()
    wanted = request.size_up_to(_NO_LIMIT) + 1
    # Later pages of a stream go by id: with an index each would scan and sort the whole range.
    streaming = request.order is None and request.after is not None
    position = None if request.after is None else request.after.position
    after = None if position is None else tuple(position)
    if orders_by_columns(table, order) and wanted + request.offset <= _MAX_ARM_ROWS:
        rows = binder.value(wanted + request.offset)
        limit = f"LIMIT {binder.value(wanted)} OFFSET {binder.value(request.offset)}"
        return binder.statement(page_by_columns(table, order, request.where, after, rows, limit, binder))
    ordering = Ordering(order, binder)
    where = condition(table if not streaming else replace(table, indexed=frozenset()), request.where, binder)
    limit = ""
    # With a LIMIT SQLite sorts in a tree of its own, which for all rows takes four times as long.
    if request.size is not None or request.offset:
        limit = f"LIMIT {binder.value(wanted)} OFFSET {binder.value(min(request.offset, _NO_LIMIT))}"
    if order and wanted + request.offset <= _MAX_ARM_ROWS and _uses_arms(table, request):
        rows = _compile_arms(table, request, where, ordering, after, binder)
        text = f"SELECT {ROW} FROM ({rows}) ORDER BY arm, {_outer_order(ordering)} {limit}"
        return binder.statement(text)
    if after is not None:
        where = f"{where} AND {ordering.after(after)}"
    columns = "id, data" if request.texts else ROW
    return binder.statement(
        f"SELECT {columns} FROM {table.source} WHERE {where} ORDER BY {ordering.by()} {limit}"
    )


def _uses_arms(table: Table, request: PageRequest) -> bool:
    """Return whether the first sort key has an index and no other condition has a better one."""
    assert request.order
    path = request.order[0].path
    if path not in table.indexed or not isinstance(field_of(path), JSONField):
        return False
    terms = request.where.terms if isinstance(request.where, And) else (request.where,)
    return not any(_is_selective(term, table) and getattr(term, "path", path) != path for term in terms)


def _is_selective(term: Predicate, table: Table) -> bool:
    return isinstance(term, Equal | In | Ordered | Between | StartsWith | Like) and term.path in table.indexed


def _compile_arms(
    table: Table,
    request: PageRequest,
    where: str,
    ordering: Ordering,
    after: Position | None,
    binder: Binder,
) -> str:
    """Return a UNION ALL with an arm for each type of the first key, which an index yields in order.

    Records with a list at the key are usually few; they are an arm of their own that is sorted.
    """
    assert request.order
    field = field_of(request.order[0].path)
    assert isinstance(field, JSONField)
    sort, key = request.order[0], ordering.keys[0]
    type_rank, value = field.index_type_rank(), field.index_scalar()
    limit = f"LIMIT {binder.value(request.size_up_to(_NO_LIMIT) + 1 + request.offset)}"
    source = table.source
    ranks = arm_ranks(sort)
    ranks.insert(0 if sort.nulls_first else len(ranks), NONE)
    arms = []
    start = None if after is None else ranks.index(after[0][0])
    for number, rank in enumerate(ranks):
        if start is not None and number < start:
            continue
        stored = NOTHING if rank == NONE else rank
        selected = f"{where} AND {type_rank} = {stored}"
        if after is not None and number == start:
            selected += _after_in_arm(ordering, after, value, binder)
        # Objects are equal, and so are missing values: ascending, the index then yields them by id.
        direction = "" if rank in (NONE, OBJECT) else key.direction
        order = f"{value}{direction}, {ordering.by(1)}"
        arms.append(_compile_arm(source, selected, f"{number}", value, order, limit, ordering))
    selected = f"{where} AND {type_rank} = {LIST}"
    if after is not None:
        selected += f" AND {ordering.after(after)}"
    numbers = " ".join(f"WHEN {key.rank(rank)} THEN {number}" for number, rank in enumerate(ranks))
    arms.append(
        _compile_arm(
            source,
            selected,
            f"CASE {key.type_rank} {numbers} END",
            key.value,
            ordering.by(),
            limit,
            ordering,
        )
    )
    return " UNION ALL ".join(arms)


def _compile_arm(
    source: str, matching: str, arm: str, value: str, order: str, limit: str, ordering: Ordering
) -> str:
    others = "".join(
        f", {key.type_rank or 0} AS b{index}, {key.value} AS v{index}"
        for index, key in enumerate(ordering.keys[1:], start=1)
    )
    return (
        f"SELECT * FROM (SELECT {ROW}, {arm} AS arm, {value} AS v0{others}"
        f" FROM {source} WHERE {matching} ORDER BY {order} {limit})"
    )


def _after_in_arm(ordering: Ordering, after: Position, value: str, binder: Binder) -> str:
    """Return the condition of coming after a position whose first key has the arm's type."""
    operand = after[0][1]
    following = ordering.after(after, 1)
    if operand is None:
        return f" AND {following}"
    sign = "<" if ordering.keys[0].descending else ">"
    bound = binder.value(int(operand) if isinstance(operand, bool) else operand)
    # The second term implies the first, which is the one that an index can seek.
    return f" AND {value} {sign}= {bound} AND ({value} {sign} {bound} OR {following})"


def _outer_order(ordering: Ordering) -> str:
    terms = [f"v0{ordering.keys[0].direction}"]
    for index, key in enumerate(ordering.keys[1:], start=1):
        terms += [f"b{index}{key.direction}", f"v{index}{key.direction}"]
    return ", ".join([*terms, "id"])


def count(table: Table, where: Predicate) -> Statement:
    """Return the statement that counts matching rows."""
    binder = Binder()
    if has_columns(table, where):
        # Two counts: the odd rows have an index of their own.
        usual, odd = by_row(table, where, binder)
        counts = [
            f"(SELECT count(*) FROM {table.source} WHERE {part})"
            for part in (f"{NOT_ODD} AND {usual}", f"{IS_ODD} AND {odd}")
        ]
        return binder.statement(f"SELECT {' + '.join(counts)}")
    matching = condition(table, where, binder)
    filtered = "" if matching == "1" else f" WHERE {matching}"
    return binder.statement(f"SELECT count(*) FROM {table.source}{filtered}")


def remove(table: Table, where: Predicate) -> Statement:
    """Return the statement that deletes matching rows."""
    binder = Binder()
    matching = condition(table, where, binder)
    return binder.statement(f"DELETE FROM {quote_name(table.name)} WHERE {matching}")


def read(table: Table, ids_json: str) -> Statement:
    """Return the statement that reads the rows of some ids, given as a JSON list; in no order."""
    return Statement(
        f"SELECT {ROW} FROM {table.source} WHERE id IN (SELECT value FROM json_each(?1))",
        (ids_json,),
    )


def read_one(table: Table, id: str) -> Statement:
    """Return the statement that reads one row."""
    return Statement(f"SELECT {ROW} FROM {table.source} WHERE id = ?1", (id,))
