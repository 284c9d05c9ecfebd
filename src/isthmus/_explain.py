"""Explanations of query plans: which parts run in the store and which client-side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus._core.columns import SupportsColumns
from isthmus._core.executor import AggregateRequest, Executor, NativePlan, Support
from isthmus._query.aggregate import paths_read
from isthmus._query.ast import TRUE, And, Function, Measure, Not, Or, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.codec import text
from isthmus._query.split import Pushdown, Split, leaf_pushdown
from isthmus._value import Value, replace
from isthmus.layers._distinct import distinct_as_groups

IN_THE_STORE = "in the store"


class Node(Value):
    """A part of the predicate, and how far the store evaluates it."""

    label: str
    pushdown: Pushdown
    parts: tuple[Node, ...] = ()

    @property
    def grade(self) -> Pushdown:
        """The name of `pushdown` in 0.1.0."""
        return self.pushdown


class Explanation(Value):
    """The plan of a query: print it, or read its fields.

    `pushed` is the part of the predicate that the store evaluates and `residual` the part that is
    evaluated client-side, both as text (`true` if empty). `native` is the query in the store's own
    language, `index` the index it uses, if that is known, and `details` are backend-specific.
    """

    backend: str
    tree: Node
    pushed: str
    residual: str
    order: str
    order_pushed: bool
    native: str
    index: str | None
    details: Mapping[str, Any]
    aggregate: str | None = None
    """Where the aggregate is computed, if one was asked for: `in the store`, or `client-side` and why."""

    @property
    def exact(self) -> bool:
        """Whether nothing is filtered, sorted or aggregated client-side."""
        aggregated = self.aggregate in (None, IN_THE_STORE)
        return self.residual == "true" and self.order_pushed and not self.unindexed and aggregated

    @property
    def unindexed(self) -> int:
        """How many records are evaluated client-side since their values do not fit the store's types."""
        return int(self.details.get("judged_here", 0))

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields of the query that have a declared column."""
        return tuple(self.details.get("columns", ()))

    @property
    def missing_columns(self) -> tuple[str, ...]:
        """The declared columns that the collection lacks: `isthmus index` adds them."""
        return tuple(self.details.get("missing_columns", ()))

    @property
    def odd(self) -> int:
        """The name of `unindexed` in 0.1.0."""
        return self.unindexed

    def __str__(self) -> str:
        lines = [f"{self.backend}: {'native' if self.exact else 'partly client-side'}"]
        lines += _format_tree(self.tree, "  ")
        if self.residual != "true":
            lines.append(f"  evaluated client-side: {self.residual}")
        if self.unindexed:
            lines.append(f"  evaluated client-side: {self.unindexed} records with unindexed values")
        lines.append(f"  order: {self.order} ({'in the store' if self.order_pushed else 'client-side'})")
        if self.aggregate is not None:
            lines.append(f"  aggregate: {self.aggregate}")
        if self.columns:
            lines.append(f"  columns: {', '.join(self.columns)}")
        if self.missing_columns:
            missing = ", ".join(self.missing_columns)
            lines.append(f"  columns missing: {missing} (`isthmus index` adds them)")
        lines.append(f"  index: {self.index or 'none'}")
        lines += [f"  would serve: {statement}" for statement in self.details.get("would_serve", ())]
        lines.append("  native: " + self.native.replace("\n", "\n          "))
        return "\n".join(lines)


def _format_tree(node: Node, indent: str) -> list[str]:
    lines = [f"{indent}{node.label:<50} {node.pushdown.name}"]
    for part in node.parts:
        lines += _format_tree(part, indent + "  ")
    return lines


def build_explanation(
    backend: str,
    support: Support,
    predicate: Predicate,
    order: tuple[SortKey, ...],
    plan: Split,
    native: NativePlan,
) -> Explanation:
    """Return the explanation of a split query."""
    return Explanation(
        backend=backend,
        tree=_build_node(predicate, support),
        pushed=text(plan.pushed),
        residual=text(plan.residual) if plan.residual != TRUE else "true",
        order=", ".join([*map(_format_key, order), "_id"]),
        order_pushed=support.orders(order),
        native=native.native,
        index=native.index,
        details=native.details,
    )


def explain_aggregate(
    executor: Executor,
    collection: str,
    plan: Explanation,
    measures: tuple[Measure, ...],
    by: tuple[GroupKey, ...],
) -> Explanation:
    """Return the plan of records with where an aggregate over them is computed, and its columns."""
    place = _find_place(executor.support(collection), plan, measures, by)
    if place != IN_THE_STORE or not isinstance(executor, SupportsColumns):
        return replace(plan, aggregate=place)
    columns = {str(column.path) for column in executor.columns(collection)[0]}
    paths = [str(path) for path in paths_read(by, measures)]
    if not columns.issuperset(paths):
        paths = []  # the store then reads all of them from the data
    details = {**plan.details, "columns": list(dict.fromkeys([*plan.columns, *paths]))}
    return replace(plan, aggregate=place, details=details)


def _find_place(
    support: Support, plan: Explanation, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]
) -> str:
    if plan.residual != "true":
        return "client-side: the conditions are"
    if support.aggregates(measures, by):
        return IN_THE_STORE
    counted = distinct_as_groups(AggregateRequest(TRUE, measures, by))
    if counted is not None and support.aggregates(counted.measures, counted.by):
        return IN_THE_STORE
    unknown = [m.name for m in measures if not support.aggregates((m,), ())]
    unknown += [str(key) for key in by if not support.aggregates((Measure("n", Function.COUNT),), (key,))]
    return f"client-side: the store cannot compute {', '.join(unknown) or 'this'} exactly"


def _format_key(key: SortKey) -> str:
    return f"{key.path} {'desc' if key.descending else 'asc'}{' nulls first' if key.nulls_first else ''}"


def _build_node(predicate: Predicate, support: Support) -> Node:
    match predicate:
        case And(terms):
            return _build_group("and" if terms else "true", terms, support)
        case Or(terms):
            return _build_group("or" if terms else "false", terms, support)
        case Not(term):
            return _build_group("not", (term,), support)
        case leaf:
            return Node(text(leaf), leaf_pushdown(leaf, support.pushdown))


_BY_COMPLETENESS = [Pushdown.EXACT, Pushdown.SUPERSET, Pushdown.NONE]


def _build_group(label: str, terms: tuple[Predicate, ...], support: Support) -> Node:
    parts = tuple(_build_node(term, support) for term in terms)
    return Node(
        label,
        max((part.pushdown for part in parts), key=_BY_COMPLETENESS.index, default=Pushdown.EXACT),
        parts,
    )
