"""Random queries whose operands come from the stored values, so that they select some and not all."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus._path import Path, Root
from isthmus._query.ast import And, Not, Or, Predicate, SortKey
from isthmus._query.evaluate import matches
from isthmus._query.field import OPERATORS, comparison
from isthmus._query.lookup import value_at, values_at
from isthmus._record import Record
from isthmus._values import INT_MAX, INT_MIN, JSON, kind_of
from isthmus.errors import QueryError
from isthmus.testing import values
from isthmus.testing.records import RecordSet

KINDS = ("bool", "integer", "float", "text", "object", "list", "null")
EVERYDAY = tuple(op for op in OPERATORS if op not in ("ilike", "regex"))
TEXT_OPERATORS = ("like", "not_like", "ilike", "regex", "starts_with", "ends_with", "contains")
WITHOUT_OPERAND = ("exists", "not_exists", "is_null")
ORDERED = ("<", "<=", ">", ">=", "between", "not_between")


def kind(value: JSON) -> str:
    """Return the kind of a value, integers and floats told apart."""
    if isinstance(value, bool):
        return "bool"
    return {int: "integer", float: "float"}.get(type(value)) or kind_of(value)


def operand_kinds(op: str) -> tuple[str, ...]:
    """Return the kinds of operands that an operator takes; nothing for `exists` and the like."""
    if op in WITHOUT_OPERAND:
        return ()
    if op in TEXT_OPERATORS:
        return ("text",)
    return KINDS[:4] if op in ORDERED else KINDS


@dataclass(frozen=True, slots=True)
class Used:
    """One comparison of a made predicate."""

    path: Path
    op: str
    operand: str | None
    """The operand's kind."""
    stored: frozenset[str]
    """The kinds that the records hold at its path."""


@dataclass(frozen=True, slots=True)
class Made:
    """A predicate and what it compares."""

    predicate: Predicate
    used: tuple[Used, ...]
    matching: tuple[Record, ...]
    """The records of the set that it selects, by the evaluator."""


class QueryMaker:
    """Makes predicates and orders for one set of records."""

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
        # What everyday queries have not comes twice in the others.
        self._operators = EVERYDAY if records.everyday else (*OPERATORS, "ilike", "regex")
        paths = {path for record in self._records for path in paths_of(record.data)}
        self.paths = [Path(Root.DATA, keys) for keys in sorted(paths)]
        self._values = {path: self._values_at(path) for path in [*self.paths, *self._attributes]}
        self._kinds = {path: self._kinds_at(path) for path in self._values}
        self._by_kind: dict[str, list[Path]] = {
            k: [p for p in self.paths if k in self._kinds[p]] for k in KINDS
        }

    def _values_at(self, path: Path) -> list[JSON]:
        return [v for record in self._records for v in values_at(record, path)][:200]

    def _kinds_at(self, path: Path) -> frozenset[str]:
        kinds = {kind(v) for v in self._values[path]}
        for record in self._records:
            whole = value_at(record, path)
            if whole is None or isinstance(whole, list):
                kinds.add(kind(whole))
        return frozenset(kinds)

    def made(self) -> Made:
        """Return a predicate; mostly one that selects some records and not all."""
        tries = 1 if self._rng.random() < 0.3 else 4
        for attempt in range(tries):
            used: list[Used] = []
            predicate = self._tree(used, self._rng.choice((0, 0, 1, 1, 2)))
            matching = tuple(record for record in self._records if matches(predicate, record))
            if 0 < len(matching) < len(self._records) or attempt == tries - 1:
                break
        return Made(predicate, tuple(used), matching)

    def order(self, made: Made) -> tuple[SortKey, ...]:
        """Return none to three sort keys for a predicate, at times by what it asks about."""
        rng = self._rng
        count = rng.choice((0, 1, 1, 1, 2, 3))
        paths = [self.path() for _ in range(count)]
        if paths and made.used and rng.random() < 0.4:
            paths[0] = rng.choice(made.used).path
        return tuple(SortKey(path, rng.random() < 0.5, rng.random() < 0.3) for path in paths)

    def path(self) -> Path:
        """Return a path that some record has, rarely one that none has or a record attribute."""
        chance = self._rng.random()
        if chance < 0.86 and self.paths:
            return self._rng.choice(self.paths)
        if chance < 0.96:
            return self._rng.choice(self._attributes)
        keys = tuple(values.key(self._rng) for _ in range(self._rng.randint(1, 3)))
        return Path(Root.DATA, keys)

    def _tree(self, used: list[Used], depth: int) -> Predicate:
        rng = self._rng
        if depth == 0:
            leaf = self._leaf(used)
            return Not(leaf) if rng.random() < 0.15 else leaf
        terms = tuple(self._tree(used, depth - 1) for _ in range(rng.choice((0, 1, 2, 2, 2, 3, 3))))
        made: Predicate = And(terms) if rng.random() < 0.5 else Or(terms)
        return Not(made) if rng.random() < 0.25 else made

    def _leaf(self, used: list[Used]) -> Predicate:
        rng = self._rng
        op = rng.choice(self._operators)
        path = self._path_for(op)
        while True:
            operand = None if op in WITHOUT_OPERAND else self._operand(op, path)
            try:
                predicate = comparison(path, op, operand)
            except QueryError:  # a pattern that is none, or bounds that do not fit
                continue
            break
        stored = self._kinds.get(path, frozenset(["null"]))
        used.append(Used(path, op, None if op in WITHOUT_OPERAND else _operand_kind(op, operand), stored))
        return predicate

    def _path_for(self, op: str) -> Path:
        """Return a path that suits the operator, since chance alone would mostly select nothing."""
        rng = self._rng
        if rng.random() < 0.35:
            return self.path()
        wanted = "text" if op in TEXT_OPERATORS and rng.random() < 0.75 else rng.choice(KINDS)
        return rng.choice(self._by_kind[wanted] or self.paths or self._attributes)

    def _operand(self, op: str, path: Path) -> JSON:
        rng = self._rng
        wanted = rng.choice(operand_kinds(op))
        if op in ("=", "!=", "in", "not_in") and rng.random() < (0.15 if self._everyday else 0.2):
            wanted = rng.choice(("list", "object"))  # few paths hold one
        elif rng.random() < 0.55:  # a kind that is stored there
            there = sorted(self._kinds.get(path, frozenset()) & set(operand_kinds(op)))
            wanted = rng.choice(there) if there else wanted
        if self._everyday and wanted in ("list", "object", "null"):
            wanted = rng.choice(KINDS[:4])
        if op in ("in", "not_in"):
            count = rng.choice((0, 1, 2, 3, 8)) if rng.random() < 0.9 else 40
            first = self._value(wanted, path)
            others = [
                self._value(rng.choice(KINDS[:4]) if rng.random() < 0.3 else wanted, path)
                for _ in range(count)
            ]
            return [first, *others] if rng.random() < 0.97 else []
        if op in ("between", "not_between"):
            if rng.random() < 0.3 and (gap := self._gap(path)):
                return list(gap)
            low, high = self._value(wanted, path), self._value(wanted, path)
            if low > high and rng.random() < 0.9:  # type: ignore[operator]
                low, high = high, low
            return [low, high]
        if op in ("like", "not_like", "ilike"):
            return self._pattern(str(self._value("text", path)), folded=op == "ilike")
        if op == "regex":
            return self._regex(str(self._value("text", path)))
        chosen = self._value(wanted, path)
        if isinstance(chosen, str) and op in ("starts_with", "ends_with", "contains"):
            return self._part(chosen, op)
        return chosen

    def _value(self, wanted: str, path: Path) -> JSON:
        """Return a value of a kind: a stored one, a neighbour of it, or a nasty one."""
        rng = self._rng
        if wanted == "list":
            wholes = [w for w in (value_at(r, path) for r in self._records[:20]) if isinstance(w, list)]
            if wholes and rng.random() < 0.7:
                return rng.choice(wholes)
            return [values.value(rng, 1) for _ in range(rng.randint(0, 2))]
        stored = [v for v in self._values.get(path, []) if kind(v) == wanted]
        if stored and rng.random() < 0.85:
            chosen = rng.choice(stored)
            return self._neighbour(chosen) if rng.random() < 0.25 else chosen
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

    def _gap(self, path: Path) -> tuple[JSON, JSON] | None:
        """Return bounds between two numbers of one record: each holds for one of them, both for none."""
        some = self._rng.sample(self._records, min(len(self._records), 5))
        each = (
            {v for v in values_at(record, path) if isinstance(v, int | float) and not isinstance(v, bool)}
            for record in some
        )
        several = [sorted(numbers) for numbers in each if len(numbers) > 1]
        if not several:
            return None
        numbers = self._rng.choice(several)
        at = self._rng.randrange(len(numbers) - 1)
        low, high = _next(numbers[at], 1), _next(numbers[at + 1], -1)
        return (low, high) if low <= high else None

    def _neighbour(self, value: JSON) -> JSON:
        rng = self._rng
        match value:
            case bool():
                return value
            case int() | float():
                return _next(value, rng.choice((-1, 1)))
            case str():
                return rng.choice(
                    (value[:-1], value + "a", value.swapcase(), value[1:], value + "\U0010ffff")
                )
        return value

    def _part(self, text: str, op: str) -> str:
        size = self._rng.randint(0, min(len(text), 40))
        start = {"starts_with": 0, "ends_with": len(text) - size}.get(
            op, self._rng.randint(0, len(text) - size)
        )
        return text[start : start + size]

    def _pattern(self, text: str, *, folded: bool) -> str:
        """Return a LIKE pattern near a text: parts of it as wildcards, escapes right and wrong."""
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

    def _regex(self, text: str) -> str:
        """Return a pattern of Python's that compiles, mostly one that finds a part of the text."""
        rng = self._rng
        size = rng.randint(0, min(len(text), 8))
        start = rng.randint(0, len(text) - size)
        literal = re.escape(text[start : start + size])
        form = rng.choice(_REGEXES)
        pattern = form.replace("L", literal)
        try:
            re.compile(pattern)
        except (re.error, RecursionError):
            return literal
        return pattern


# L is a literal part of a stored text. No form can backtrack for long.
# fmt: off
_REGEXES = (
    "L", "^L", "L$", "^L$", r"\AL", r"L\Z", "L.", ".L", "L.*", "L+", "L?", "(?:L)?a", "L|b", "(L)",
    "(?:L|x)y?", r"\d", r"\w+", r"\s", r"\D", r"\W", r"\S+", "[a-c]L?", "[^a]", "[0-9]+", "a{2}",
    "L{1,2}", "^$", "^.$", "^.*$", ".", "(?i)L", "(?s)L.", "(?m)^L", r"\bL", r"L(?=.)", r"(?<!a)L",
    r"(.)\1", "(?i:L)", "[é-ü]", "💥|L", "$", "^", r"L\n", r"[\]\-^]",
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


def _next(number: float, way: int) -> float:
    """Return the number one step up (1) or down (-1), or itself where there is none of its kind."""
    if isinstance(number, int):
        return number + way if INT_MIN <= number + way <= INT_MAX else number
    moved = math.nextafter(number, way * math.inf)
    return moved if math.isfinite(moved) else number


def _operand_kind(op: str, operand: JSON) -> str:
    if op in ("in", "not_in", "between", "not_between") and isinstance(operand, list):
        return kind(operand[0]) if operand else "list"
    return kind(operand)


def paths_of(data: JSON) -> set[tuple[str, ...]]:
    """Return every key sequence that leads somewhere in a JSON value, lists passed through."""
    paths: set[tuple[str, ...]] = set()
    _walk(data, (), paths)
    return paths


def _walk(value: JSON, prefix: tuple[str, ...], paths: set[tuple[str, ...]]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            paths.add((*prefix, name))
            _walk(item, (*prefix, name), paths)
    elif isinstance(value, list):
        for item in value:
            _walk(item, prefix, paths)
