"""What runs where, and why: the answer of `explain()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus._core.executor import NativePlan, Support
from isthmus._query.ast import TRUE, And, Not, Or, Predicate, SortKey
from isthmus._query.codec import text
from isthmus._query.split import Pushdown, Split
from isthmus._value import Value


class Node(Value):
    """A part of the predicate and where it is judged."""

    label: str
    pushdown: Pushdown
    parts: tuple[Node, ...] = ()

    @property
    def grade(self) -> Pushdown:
        """The name of `pushdown` in 0.1.0."""
        return self.pushdown


class Explanation(Value):
    """A plan: print it, or read its fields.

    `pushed` and `residual` are the two halves of the predicate as text (`true` if empty); `exact`
    says that nothing is judged or sorted on this side.
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

    @property
    def exact(self) -> bool:
        """Whether the store does it all."""
        return self.residual == "true" and self.order_pushed and not self.odd

    @property
    def odd(self) -> int:
        """How many records are judged here because their values disagree with the store's types."""
        return int(self.details.get("judged_here", 0))

    def __str__(self) -> str:
        lines = [f"{self.backend}: {'all at the store' if self.exact else 'partly on this side'}"]
        lines += _tree(self.tree, "  ")
        if self.residual != "true":
            lines.append(f"  judged here: {self.residual}")
        if self.odd:
            lines.append(f"  judged here: {self.odd} odd records")
        lines.append(f"  order: {self.order} ({'at the store' if self.order_pushed else 'sorted here'})")
        lines.append(f"  index: {self.index or 'none'}")
        lines.append("  native: " + self.native.replace("\n", "\n          "))
        return "\n".join(lines)


def _tree(node: Node, indent: str) -> list[str]:
    lines = [f"{indent}{node.label:<50} {node.pushdown.name}"]
    for part in node.parts:
        lines += _tree(part, indent + "  ")
    return lines


def build_explanation(
    backend: str,
    support: Support,
    predicate: Predicate,
    order: tuple[SortKey, ...],
    parts: Split,
    native: NativePlan,
) -> Explanation:
    """Return the explanation of a split query."""
    return Explanation(
        backend=backend,
        tree=_node(predicate, support),
        pushed=text(parts.pushed),
        residual=text(parts.residual) if parts.residual != TRUE else "true",
        order=", ".join([*map(_key_text, order), "_id"]),
        order_pushed=support.orders(order),
        native=native.native,
        index=native.index,
        details=native.details,
    )


def _key_text(key: SortKey) -> str:
    return f"{key.path} {'desc' if key.descending else 'asc'}{' nulls first' if key.nulls_first else ''}"


def _node(predicate: Predicate, support: Support) -> Node:
    match predicate:
        case And(terms):
            return _group("and" if terms else "true", terms, support)
        case Or(terms):
            return _group("or" if terms else "false", terms, support)
        case Not(term):
            return _group("not", (term,), support)
        case leaf:
            return Node(text(leaf), support.pushdown(leaf))


_WORST = [Pushdown.EXACT, Pushdown.SUPERSET, Pushdown.NONE]


def _group(label: str, terms: tuple[Predicate, ...], support: Support) -> Node:
    parts = tuple(_node(term, support) for term in terms)
    return Node(
        label, max((part.pushdown for part in parts), key=_WORST.index, default=Pushdown.EXACT), parts
    )
