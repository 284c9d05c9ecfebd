"""Converts operands to the terms and bounds by which a field of some type is searched."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Any

from isthmus._query.ast import Order
from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends.elasticsearch.layout import LONGEST_TEXT
from isthmus.backends.elasticsearch.read import patterns

_TIME = re.compile(r"(19[7-9]\d|20\d\d|21\d\d|22[0-5]\d)-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{6}Z")
RANGE = {Order.LT: "lt", Order.LE: "lte", Order.GT: "gt", Order.GE: "gte"}
TESTS: Mapping[str, Any] = {
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
}


def is_time(text: str) -> bool:
    """Return whether a text is a time in the stored form, within the range of the field's type."""
    if _TIME.fullmatch(text) is None:
        return False
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:  # February 30
        return False
    return True


def term(kind: str | None, value: Any) -> Any:
    """Return the term for a scalar in a field of this type; None if no such field can hold it."""
    match value:
        case bool():
            return value if kind == "boolean" else None
        case str():
            if kind == "date_nanos":
                return value[:-1] + "000Z" if is_time(value) else None
            return value if kind == "keyword" and len(value) <= LONGEST_TEXT else None
        case _ if kind == "double":
            return float(value) if float(value) == value else None
        case _ if kind == "long":
            return int(value) if int(value) == value and INT_MIN < value < INT_MAX else None
    return None


def text_bounds(bounds: Mapping[str, str]) -> dict[str, str]:
    """Return the bounds; one that is too long for the server is widened or left out."""
    limits = {}
    for op, bound in bounds.items():
        short = patterns.truncate(bound)
        if short == bound:
            limits[op] = bound
        elif op in ("gt", "gte"):
            limits["gte"] = short
    return limits


def double_bound(op: str, bound: float) -> tuple[str, float]:
    """Return the bound as a double with the same doubles on either side of it."""
    near = float(bound)
    if near == bound:
        return op, near
    if op in ("gt", "gte"):
        return ("gte" if near > bound else "gt"), near
    return ("lt" if near > bound else "lte"), near


def long_bounds(bounds: Mapping[str, float]) -> dict[str, int] | None:
    """Return the bounds as integers; None if no integer lies within them."""
    limits: dict[str, int] = {"gte": INT_MIN, "lte": INT_MAX}
    for op, bound in bounds.items():
        match op:
            case "gt" | "gte":
                least = math.floor(bound) + 1 if op == "gt" else math.ceil(bound)
                limits["gte"] = max(limits["gte"], least)
            case _:
                most = math.ceil(bound) - 1 if op == "lt" else math.floor(bound)
                limits["lte"] = min(limits["lte"], most)
    return limits if limits["gte"] <= limits["lte"] else None
