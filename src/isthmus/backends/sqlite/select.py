"""Page requests, counts and deletions as statements."""

from __future__ import annotations

from isthmus._core.executor import PageRequest
from isthmus._query.ast import And, Between, Equal, In, Like, Ordered, Predicate, StartsWith
from isthmus._query.order import NONE, OBJECT, Position
from isthmus.backends.sqlite.fields import LIST, NOTHING, JSONField, field_of
from isthmus.backends.sqlite.filter import ROW, FilterCompiler
from isthmus.backends.sqlite.order import Ordering, arm_ranks
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.statement import Binder, Statement, quote_name

# Above so many rows the arms' extra sorting costs more than one plain sort.
_MAX_ARM_ROWS = 5_000
_LARGEST = 2**62  # as good as no limit, and its sum with an offset fits 64 bits


def page(table: Table, request: PageRequest) -> Statement:
    """Return the statement of one page and one row more, which tells that there is a next page."""
    binder = Binder()
    order = request.order or ()
    wanted = request.size_up_to(_LARGEST) + 1
    # The pages of a stream after the first go by id: an index would be scanned and sorted for each.
    streaming = request.order is None and request.after is not None
    conditions = FilterCompiler(binder, table.indexed, use_indexes=not streaming)
    ordering = Ordering(order, table.indexed, binder)
    where = conditions.sql(request.where)
    position = None if request.after is None else request.after.position
    after = None if position is None else tuple(position)
    limit = f"LIMIT {binder.value(wanted)} OFFSET {binder.value(min(request.offset, _LARGEST))}"
    if order and wanted + request.offset <= _MAX_ARM_ROWS and _uses_arms(table, request):
        rows = _compile_arms(table, request, where, ordering, after, binder)
        text = f"SELECT {ROW} FROM ({rows}) ORDER BY arm, {_outer_order(ordering)} {limit}"
        return binder.statement(text)
    if after is not None:
        where = f"{where} AND {ordering.after(after)}"
    return binder.statement(
        f"SELECT {ROW} FROM {quote_name(table.name)} WHERE {where} ORDER BY {ordering.by()} {limit}"
    )


def _uses_arms(table: Table, request: PageRequest) -> bool:
    """Return whether the first sort key has an index and no other one promises to be better."""
    assert request.order
    path = request.order[0].path
    if path not in table.indexed or not isinstance(field_of(path, table.indexed), JSONField):
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
    """Return a UNION ALL of the first key's types, each of which an index yields in order.

    The records with a list there are few as a rule; they are sorted as they are and merged in.
    """
    assert request.order
    field = field_of(request.order[0].path, table.indexed)
    assert isinstance(field, JSONField)
    sort, key = request.order[0], ordering.keys[0]
    type_rank, value = field.index_type_rank(), field.index_scalar()
    limit = f"LIMIT {binder.value(request.size_up_to(_LARGEST) + 1 + request.offset)}"
    source = quote_name(table.name)
    places = arm_ranks(sort)
    places.insert(0 if sort.nulls_first else len(places), NONE)
    arms = []
    start = None if after is None else places.index(after[0][0])
    for number, place in enumerate(places):
        if start is not None and number < start:
            continue
        stored = NOTHING if place == NONE else place
        condition = f"{where} AND {type_rank} = {stored}"
        if after is not None and number == start:
            condition += _after_in_arm(ordering, after, value, binder)
        # Objects and missing values tie: ascending, the index goes on with the id, without a sort.
        direction = "" if place in (NONE, OBJECT) else key.direction
        order = f"{value}{direction}, {ordering.by(1)}"
        arms.append(_compile_arm(source, condition, f"{number}", value, order, limit, ordering))
    condition = f"{where} AND {type_rank} = {LIST}"
    if after is not None:
        condition += f" AND {ordering.after(after)}"
    numbers = " ".join(f"WHEN {key.place(place)} THEN {number}" for number, place in enumerate(places))
    arms.append(
        _compile_arm(
            source,
            condition,
            f"CASE {key.type_rank} {numbers} END",
            key.value,
            ordering.by(),
            limit,
            ordering,
        )
    )
    return " UNION ALL ".join(arms)


def _compile_arm(
    source: str, condition: str, arm: str, value: str, order: str, limit: str, ordering: Ordering
) -> str:
    others = "".join(
        f", {key.type_rank or 0} AS b{at}, {key.value} AS v{at}"
        for at, key in enumerate(ordering.keys[1:], start=1)
    )
    return (
        f"SELECT * FROM (SELECT {ROW}, {arm} AS arm, {value} AS v0{others}"
        f" FROM {source} WHERE {condition} ORDER BY {order} {limit})"
    )


def _after_in_arm(ordering: Ordering, after: Position, value: str, binder: Binder) -> str:
    """Return the condition of coming after a position whose first key is of the arm's type."""
    at = after[0][1]
    following = ordering.after(after, 1)
    if at is None:
        return f" AND {following}"
    sign = "<" if ordering.keys[0].descending else ">"
    bound = binder.value(int(at) if isinstance(at, bool) else at)
    # The first term is implied by the second; an index is entered by it.
    return f" AND {value} {sign}= {bound} AND ({value} {sign} {bound} OR {following})"


def _outer_order(ordering: Ordering) -> str:
    terms = [f"v0{ordering.keys[0].direction}"]
    for at, key in enumerate(ordering.keys[1:], start=1):
        terms += [f"b{at}{key.direction}", f"v{at}{key.direction}"]
    return ", ".join([*terms, "id"])


def count(table: Table, where: Predicate) -> Statement:
    """Return the statement that counts matching rows."""
    binder = Binder()
    condition = FilterCompiler(binder, table.indexed).sql(where)
    filtered = "" if condition == "1" else f" WHERE {condition}"
    return binder.statement(f"SELECT count(*) FROM {quote_name(table.name)}{filtered}")


def remove(table: Table, where: Predicate) -> Statement:
    """Return the statement that deletes matching rows."""
    binder = Binder()
    condition = FilterCompiler(binder, table.indexed).sql(where)
    return binder.statement(f"DELETE FROM {quote_name(table.name)} WHERE {condition}")


def read(table: Table, ids_json: str) -> Statement:
    """Return the statement that reads the rows of some ids, given as a JSON list, in any order."""
    return Statement(
        f"SELECT {ROW} FROM {quote_name(table.name)} WHERE id IN (SELECT value FROM json_each(?1))",
        (ids_json,),
    )


def read_one(table: Table, id: str) -> Statement:
    """Return the statement that reads one row."""
    return Statement(f"SELECT {ROW} FROM {quote_name(table.name)} WHERE id = ?1", (id,))
