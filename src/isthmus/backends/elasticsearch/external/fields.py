"""Fields of an index that isthmus did not make, and queries that miss no match of a leaf.

Such an index coerces: a numeric field holds texts that look like numbers, a text field holds numbers,
dates come in many formats. So no query on it is exact by itself. Each query here finds every record
that the leaf matches (`_ignored` finds those with a value that is not indexed), and the core evaluates
the records client-side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.backends.elasticsearch.read.filter import Query, either

_WHOLE = {"byte": 2**7, "short": 2**15, "integer": 2**31, "long": 2**63}
_BROKEN = {"half_float": 65_504.0, "float": 3.4028234e38, "double": 1.7976931348623157e308}
# The largest error of a half-precision number: of its last bit, and of the smallest one.
_HALF, _HALF_LEAST = 2.0**-10, 2.0**-24
NUMBERS = frozenset({*_WHOLE, *_BROKEN})
DATES = frozenset({"date", "date_nanos"})
SORTED = frozenset({*NUMBERS, *DATES, "keyword", "boolean"})
_DATE = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])"
    r"(T([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?(Z|[+-](0\d|1[0-4]):[0-5]\d)?)?"
)


@dataclass(frozen=True, slots=True)
class ExternalField:
    """A field of the mapping, or its sub-field that holds whole texts."""

    name: str
    kind: str
    text: str | None = None
    """The analyzed field for full-text search, if there is one."""
    nested: tuple[str, ...] = ()
    """The nested objects that contain it, outermost first."""
    normalized: bool = False
    standard: bool = True
    """Whether dates are in Elasticsearch's default format."""
    searchable: bool = True
    sortable: bool = True

    def with_ignored(self, query: Query) -> Query:
        """Return the query, extended to records with a value of this field that is not indexed."""
        for path in reversed(self.nested):
            query = {"nested": {"path": path, "query": query, "ignore_unmapped": True}}
        return either([query, {"term": {"_ignored": {"value": self.name}}}])

    def equal(self, value: Any) -> Query | None:
        """Return the query for a scalar; None if no query finds every value that equals it."""
        if not self.searchable:
            return None
        match value:
            case bool():
                return self._term(value) if self.kind == "boolean" else None
            case str() if self.kind == "keyword":
                return self._term(value)
            case str() if self.kind in DATES and self.standard and _DATE.fullmatch(value):
                return self._between({"gte": value, "lte": value})
            case int() | float() if self.kind in NUMBERS:
                return self.within({"gte": value, "lte": value})
        return None

    def within(self, bounds: Mapping[str, Any]) -> Query | None:
        """Return the query for values within bounds of one type; None if none finds all of them."""
        if not self.searchable:
            return None
        sample = next(iter(bounds.values()))
        if isinstance(sample, str):
            return self._between(bounds) if self.kind == "keyword" and not self.normalized else None
        if isinstance(sample, bool) or self.kind not in NUMBERS:
            return None
        # Truncating or rounding an indexed number keeps the order: the bounds are moved in the same way.
        below = {"gte" if op in ("gt", "gte") else "lte": bound for op, bound in bounds.items()}
        wide = {op: self._cut(bound, down=op == "gte") for op, bound in below.items()}
        return self._between(wide)

    def time_within(self, bounds: Mapping[str, Any]) -> Query | None:
        """Return the query for times within bounds, which is not the order of the texts."""
        dated = all(isinstance(bound, str) and _DATE.fullmatch(bound) for bound in bounds.values())
        return self._between(bounds) if self.kind in DATES and self.standard and dated else None

    def _cut(self, bound: float, *, down: bool) -> float:
        if self.kind in _WHOLE:
            most = _WHOLE[self.kind]
            return max(-most, min(most - 1, int(bound)))
        edge = _BROKEN[self.kind]
        if self.kind == "half_float":  # the one type whose bounds the server does not round as its values
            off = abs(bound) * _HALF + _HALF_LEAST
            bound = bound - off if down else bound + off
        return float(max(-edge, min(edge, bound)))

    def _term(self, value: Any) -> Query:
        return {"term": {self.name: {"value": value}}}

    def _between(self, bounds: Mapping[str, Any]) -> Query:
        return {"range": {self.name: dict(bounds)}}


def read_fields(mappings: Mapping[str, Any]) -> dict[str, ExternalField]:
    """Return the fields of an index by their paths."""
    shadowed = mappings.get("runtime", {})
    found = dict(_walk(mappings.get("properties", {}), "", ()))
    return {name: field for name, field in found.items() if name not in shadowed}


def _walk(
    properties: Mapping[str, Any], before: str, nested: tuple[str, ...]
) -> Iterator[tuple[str, ExternalField]]:
    for key, definition in properties.items():
        name = before + key
        kind = definition.get("type", "object")
        if kind == "nested" or "properties" in definition:
            if definition.get("enabled", True) in (False, "false"):
                continue
            inside = (*nested, name) if kind == "nested" else nested
            yield from _walk(definition.get("properties", {}), name + ".", inside)
        else:
            yield name, _field(name, kind, definition, nested)


def _field(name: str, kind: str, definition: Mapping[str, Any], nested: tuple[str, ...]) -> ExternalField:
    text = name if kind == "text" else None
    for sub, inner in definition.get("fields", {}).items():
        if kind == "text" and inner.get("type") == "keyword" and "normalizer" not in inner:
            name, kind, definition = f"{name}.{sub}", "keyword", inner
        elif kind != "text" and inner.get("type") == "text":
            text = text or f"{name}.{sub}"
    indexed = definition.get("index", True) not in (False, "false")
    columns = kind != "text" and definition.get("doc_values", True) not in (False, "false")
    return ExternalField(
        name,
        kind,
        text,
        nested,
        normalized="normalizer" in definition,
        standard="format" not in definition,
        searchable=indexed or columns,
        sortable=columns and not nested,
    )
