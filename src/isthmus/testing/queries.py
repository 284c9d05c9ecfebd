"""Generates queries with operands taken from stored values, so that they match some records and not all."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus._path import Path, Root
from isthmus._query.ast import And, AnyObject, Not, Or, Predicate, SortKey
from isthmus._query.evaluate import matches
from isthmus._query.field import OPERATORS, comparison
from isthmus._query.lookup import value_at, values_at
from isthmus._query.regex import PatternError, compile_regex
from isthmus._record import Record
from isthmus._value import replace
from isthmus._values import INT_MAX, INT_MIN, JSON, kind_of
from isthmus.errors import QueryError
from isthmus.testing import values
from isthmus.testing.records import RecordSet, paths_of

KINDS = ("bool", "integer", "float", "text", "object", "list", "null")
COMPARISONS = tuple(op for op in OPERATORS if op != "any")
"""The operators that compare the values at a path with an operand."""
EVERYDAY = tuple(op for op in COMPARISONS if op not in ("ilike", "regex"))
TEXT_OPERATORS = ("like", "not_like", "ilike", "regex", "starts_with", "ends_with", "contains")
WITHOUT_OPERAND = ("exists", "not_exists", "is_null")
ORDERED = ("<", "<=", ">", ">=", "between", "not_between")


def value_kind(value: JSON) -> str:
    """Return the kind of a value; integers and floats are different kinds."""
    if isinstance(value, bool):
        return "bool"
    return {int: "integer", float: "float"}.get(type(value)) or kind_of(value)


def operand_kinds(op: str) -> tuple[str, ...]:
    """Return the kinds of operands that an operator accepts; empty for an operator without operand."""
    if op in WITHOUT_OPERAND:
        return ()
    if op in TEXT_OPERATORS:
        return ("text",)
    return KINDS[:4] if op in ORDERED else KINDS


@dataclass(frozen=True, slots=True)
class GeneratedComparison:
    """One comparison of a generated predicate."""

    path: Path
    op: str
    operand: str | None
    """The kind of the operand; None if the operator takes none."""
    stored: frozenset[str]
    """The kinds of the values that the records hold at the path."""


@dataclass(frozen=True, slots=True)
class GeneratedPredicate:
    """A predicate, its comparisons and the records that match it."""

    predicate: Predicate
    comparisons: tuple[GeneratedComparison, ...]
    matching: tuple[Record, ...]
    """The records of the set that match, as determined by the evaluator."""


# The share of queries with many conditions, or with many sort keys.
_WIDE = 0.06


class QueryMaker:
    """Generates predicates and orders for a set of records.

    `stored` are the records as the store returned them, if they differ from those of the set (by
    timestamps, for example). `attributes` are the paths of record attributes to query.
    """

    def __init__(
        self,
        rng: random.Random,
        records: RecordSet,
        stored: Sequence[Record] | None = None,
        *,
        attributes: Sequence[Path] | None = None,
    ) -> None:
        self._rng = rng
        self._attributes = list(ATTRIBUTES if attributes is None else attributes)
        self._everyday = records.everyday
        self._records = list(records.records if stored is None else stored)
        # Operators that everyday queries lack are chosen twice as often in the others.
        self._operators = EVERYDAY if records.everyday else (*COMPARISONS, "ilike", "regex")
        paths = {path for record in self._records for path in paths_of(record.data)}
        self.paths = [Path(Root.DATA, keys) for keys in sorted(paths)]
        self._parents = [path for path in self.paths if any(_is_below(below, path) for below in self.paths)]
        self._values = {path: self._values_at(path) for path in [*self.paths, *self._attributes]}
        self._kinds = {path: self._kinds_at(path) for path in self._values}
        self._by_kind: dict[str, list[Path]] = {
            k: [p for p in self.paths if k in self._kinds[p]] for k in KINDS
        }

    def _values_at(self, path: Path) -> list[JSON]:
        return [v for record in self._records for v in values_at(record, path)][:200]

    def _kinds_at(self, path: Path) -> frozenset[str]:
        kinds = {value_kind(v) for v in self._values[path]}
        for record in self._records:
            whole = value_at(record, path)
            if whole is None or isinstance(whole, list):
                kinds.add(value_kind(whole))
        return frozenset(kinds)

    def generate(self) -> GeneratedPredicate:
        """Return a predicate; in most cases one that matches some records and not all."""
        attempts = 1 if self._rng.random() < 0.3 else 4
        for attempt in range(attempts):
            comparisons: list[GeneratedComparison] = []
            if self._rng.random() < _WIDE:
                predicate = self._generate_wide(comparisons)
            else:
                predicate = self._generate_tree(comparisons, self._rng.choice((0, 0, 1, 1, 2)))
            matching = tuple(record for record in self._records if matches(predicate, record))
            if 0 < len(matching) < len(self._records) or attempt == attempts - 1:
                break
        return GeneratedPredicate(predicate, tuple(comparisons), matching)

    made = generate
    """The name of `generate` in 0.1.0."""

    def order(self, generated: GeneratedPredicate) -> tuple[SortKey, ...]:
        """Return up to three sort keys, rarely six, sometimes by a field that a predicate compares."""
        rng = self._rng
        count = rng.choice((0, 1, 1, 1, 2, 3)) if rng.random() > _WIDE else 6
        paths = [self.path() for _ in range(count)]
        if paths and generated.comparisons and rng.random() < 0.4:
            paths[0] = rng.choice(generated.comparisons).path
        return tuple(SortKey(path, rng.random() < 0.5, rng.random() < 0.3) for path in paths)

    def path(self) -> Path:
        """Return a path that some record has; rarely a record attribute, or a path that no record has."""
        chance = self._rng.random()
        if chance < 0.86 and self.paths:
            return self._rng.choice(self.paths)
        if chance < 0.96:
            return self._rng.choice(self._attributes)
        keys = tuple(values.key(self._rng) for _ in range(self._rng.randint(1, 3)))
        return Path(Root.DATA, keys)

    def _generate_tree(self, comparisons: list[GeneratedComparison], depth: int) -> Predicate:
        rng = self._rng
        if depth == 0:
            leaf = self._generate_leaf(comparisons)
            return Not(leaf) if rng.random() < 0.15 else leaf
        terms = tuple(
            self._generate_tree(comparisons, depth - 1) for _ in range(rng.choice((0, 1, 2, 2, 2, 3, 3)))
        )
        tree: Predicate = And(terms) if rng.random() < 0.5 else Or(terms)
        return Not(tree) if rng.random() < 0.25 else tree

    def _generate_wide(self, comparisons: list[GeneratedComparison]) -> Predicate:
        """Return a tree of many conditions; stores compile those otherwise than a few."""
        rng = self._rng
        terms = tuple(self._generate_tree(comparisons, 1) for _ in range(rng.choice((3, 6, 12))))
        tree: Predicate = And(tuple(map(Not, terms))) if rng.random() < 0.5 else Or(terms)
        return Not(tree) if rng.random() < 0.25 else tree

    def _generate_leaf(self, comparisons: list[GeneratedComparison]) -> Predicate:
        if self._parents and self._rng.random() < 0.1:
            return self._generate_any(comparisons)
        op = self._rng.choice(self._operators)
        return self._generate_comparison(comparisons, op, self._choose_path(op))

    def _generate_any(self, comparisons: list[GeneratedComparison]) -> Predicate:
        """Return an `any` of one to three conditions on fields of the objects at a path."""
        rng = self._rng
        parent = rng.choice(self._parents)
        fields = [path for path in self.paths if _is_below(path, parent)]
        terms: list[Predicate] = []
        for _ in range(rng.choice((1, 2, 2, 3))):
            path = rng.choice(fields)
            inner = self._generate_comparison(comparisons, rng.choice(self._operators), path)
            between = [p for p in self._parents if _is_below(path, p) and _is_below(p, parent)]
            if between and rng.random() < 0.3:
                outer = rng.choice(between)
                inner = AnyObject(outer, _strip(inner, len(outer.keys)))
            inner = _strip(inner, len(parent.keys))
            terms.append(Not(inner) if rng.random() < 0.2 else inner)
        where: Predicate = And(tuple(terms)) if rng.random() < 0.75 else Or(tuple(terms))
        comparisons.append(GeneratedComparison(parent, "any", "object", self._kinds[parent]))
        return AnyObject(parent, Not(where) if rng.random() < 0.15 else where)

    def _generate_comparison(self, comparisons: list[GeneratedComparison], op: str, path: Path) -> Predicate:
        while True:
            operand = None if op in WITHOUT_OPERAND else self._choose_operand(op, path)
            try:
                predicate = comparison(path, op, operand)
            except QueryError:  # an invalid pattern, or bounds of different types
                continue
            break
        stored = self._kinds.get(path, frozenset(["null"]))
        comparisons.append(
            GeneratedComparison(
                path, op, None if op in WITHOUT_OPERAND else _operand_kind(op, operand), stored
            )
        )
        return predicate

    def _choose_path(self, op: str) -> Path:
        """Return a path that suits the operator, since a random one would rarely match anything."""
        rng = self._rng
        if rng.random() < 0.35:
            return self.path()
        wanted = "text" if op in TEXT_OPERATORS and rng.random() < 0.75 else rng.choice(KINDS)
        return rng.choice(self._by_kind[wanted] or self.paths or self._attributes)

    def _choose_operand(self, op: str, path: Path) -> JSON:
        rng = self._rng
        wanted = rng.choice(operand_kinds(op))
        if op in ("=", "!=", "in", "not_in") and rng.random() < (0.15 if self._everyday else 0.2):
            wanted = rng.choice(("list", "object"))  # rare at random paths
        elif rng.random() < 0.55:  # a kind that is stored at the path
            stored = sorted(self._kinds.get(path, frozenset()) & set(operand_kinds(op)))
            wanted = rng.choice(stored) if stored else wanted
        if self._everyday and wanted in ("list", "object", "null"):
            wanted = rng.choice(KINDS[:4])
        if op in ("in", "not_in"):
            count = rng.choice((0, 1, 2, 3, 8)) if rng.random() < 0.9 else 40
            first = self._choose_value(wanted, path)
            others = [
                self._choose_value(rng.choice(KINDS[:4]) if rng.random() < 0.3 else wanted, path)
                for _ in range(count)
            ]
            return [first, *others] if rng.random() < 0.97 else []
        if op in ("between", "not_between"):
            if rng.random() < 0.3 and (gap := self._choose_gap(path)):
                return list(gap)
            low, high = self._choose_value(wanted, path), self._choose_value(wanted, path)
            if low > high and rng.random() < 0.9:  # type: ignore[operator]
                low, high = high, low
            return [low, high]
        if op in ("like", "not_like", "ilike"):
            return self._derive_pattern(str(self._choose_value("text", path)), folded=op == "ilike")
        if op == "regex":
            return self._derive_regex(str(self._choose_value("text", path)))
        chosen = self._choose_value(wanted, path)
        if isinstance(chosen, str) and op in ("starts_with", "ends_with", "contains"):
            return self._choose_part(chosen, op)
        return chosen

    def _choose_value(self, wanted: str, path: Path) -> JSON:
        """Return a value of a kind: a stored one, one next to it, or an edge case."""
        rng = self._rng
        if wanted == "list":
            lists = [v for v in (value_at(r, path) for r in self._records[:20]) if isinstance(v, list)]
            if lists and rng.random() < 0.7:
                return rng.choice(lists)
            return [values.value(rng, 1) for _ in range(rng.randint(0, 2))]
        stored = [v for v in self._values.get(path, []) if value_kind(v) == wanted]
        if stored and rng.random() < 0.85:
            chosen = rng.choice(stored)
            return self._choose_neighbour(chosen) if rng.random() < 0.25 else chosen
        match wanted:
            case "bool":
                return rng.random() < 0.5
            case "integer":
                return values.integer(rng)
            case "float":
                return values.real(rng)
            case "text":
                return values.text(rng)
            case "object":
                return {values.key(rng): values.value(rng, 1) for _ in range(rng.randint(0, 2))}
        return None

    def _choose_gap(self, path: Path) -> tuple[JSON, JSON] | None:
        """Return bounds between two numbers of a record, so that each number satisfies only one bound."""
        sample = self._rng.sample(self._records, min(len(self._records), 5))
        number_sets = (
            {v for v in values_at(record, path) if isinstance(v, int | float) and not isinstance(v, bool)}
            for record in sample
        )
        candidates = [sorted(numbers) for numbers in number_sets if len(numbers) > 1]
        if not candidates:
            return None
        numbers = self._rng.choice(candidates)
        index = self._rng.randrange(len(numbers) - 1)
        low, high = _next_number(numbers[index], 1), _next_number(numbers[index + 1], -1)
        return (low, high) if low <= high else None

    def _choose_neighbour(self, value: JSON) -> JSON:
        rng = self._rng
        match value:
            case bool():
                return value
            case int() | float():
                return _next_number(value, rng.choice((-1, 1)))
            case str():
                return rng.choice(
                    (value[:-1], value + "a", value.swapcase(), value[1:], value + "\U0010ffff")
                )
        return value

    def _choose_part(self, text: str, op: str) -> str:
        size = self._rng.randint(0, min(len(text), 40))
        start = {"starts_with": 0, "ends_with": len(text) - size}.get(
            op, self._rng.randint(0, len(text) - size)
        )
        return text[start : start + size]

    def _derive_pattern(self, text: str, *, folded: bool) -> str:
        """Return a LIKE pattern derived from a text: parts become wildcards, escapes may be missing."""
        rng = self._rng
        if rng.random() < 0.1:
            return values.text(rng)
        start, end = 0, len(text)
        if rng.random() < 0.5 or end > 60:
            start = rng.randint(0, end)
            end = rng.randint(start, min(end, start + 30))
        parts = ["%"] if start and rng.random() < 0.9 else []
        for c in text[start:end]:
            if c in "%_\\" and rng.random() < 0.8:
                parts.append("\\" + c)
            elif rng.random() < 0.1:
                parts.append(rng.choice(("_", "%")))
            else:
                parts.append(c.swapcase() if folded and rng.random() < 0.4 else c)
        if end < len(text) and rng.random() < 0.9:
            parts.append("%")
        return "".join(parts)

    def _derive_regex(self, text: str) -> str:
        """Return a valid regular expression of Python, in most cases one that finds a part of the text."""
        rng = self._rng
        size = rng.randint(0, min(len(text), 8))
        start = rng.randint(0, len(text) - size)
        literal = re.escape(text[start : start + size])
        form = rng.choice(_REGEXES)
        pattern = form.replace("L", literal)
        try:
            compile_regex(pattern)
        except PatternError:
            return literal
        return pattern


# L stands for a literal part of a stored text.
# fmt: off
_REGEXES = (
    "L", "^L", "L$", "^L$", r"\AL", r"L\Z", "L.", ".L", "L.*", "L+", "L?", "(?:L)?a", "L|b", "(L)",
    "(?:L|x)y?", "(?:L+)+$", r"\d", r"\w+", r"\s", r"\D", r"\W", r"\S+", "[a-c]L?", "[^a]", "[0-9]+", "a{2}",
    "L{1,2}", "^$", "^.$", "^.*$", ".", "(?i)L", "(?s)L.", "(?m)^L", r"\bL", r"L\b", r"L\B",
    "(?i:L)", "[é-ü]", "💥|L", "$", "^", r"L\n", r"[\]\-^]",
)
# fmt: on

ATTRIBUTES = (
    Path(Root.ID, ()),
    Path(Root.CREATED_AT, ()),
    Path(Root.UPDATED_AT, ()),
    Path(Root.VERSION, ()),
    Path(Root.METADATA, ("source",)),
    Path(Root.METADATA, ("n",)),
)


def _is_below(path: Path, parent: Path) -> bool:
    return len(path.keys) > len(parent.keys) and path.keys[: len(parent.keys)] == parent.keys


def _strip(predicate: Predicate, count: int) -> Predicate:
    """Return the predicate without the first `count` keys of each path."""
    match predicate:
        case And(terms):
            return And(tuple(_strip(term, count) for term in terms))
        case Or(terms):
            return Or(tuple(_strip(term, count) for term in terms))
        case Not(term):
            return Not(_strip(term, count))
        case leaf:
            return replace(leaf, path=Path(leaf.path.root, leaf.path.keys[count:]))


def _next_number(number: float, direction: int) -> float:
    """Return the next number above (1) or below (-1), or the number itself if there is none of its type."""
    if isinstance(number, int):
        return number + direction if INT_MIN <= number + direction <= INT_MAX else number
    neighbour = math.nextafter(number, direction * math.inf)
    return neighbour if math.isfinite(neighbour) else number


def _operand_kind(op: str, operand: JSON) -> str:
    if op in ("in", "not_in", "between", "not_between") and isinstance(operand, list):
        return value_kind(operand[0]) if operand else "list"
    return value_kind(operand)
