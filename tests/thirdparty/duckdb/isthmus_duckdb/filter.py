"""Predicates as SQL over `json_tree`, which lists every value of a document with its path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from isthmus import spi
from isthmus.spi import RANKED, AnyObject, Root


class Value(NamedTuple):
    """A value that a leaf is tested on, as SQL expressions."""

    type: str
    text: str
    number: str = "(null::double, null::hugeint)"


_TIME = "strftime(make_timestamp({}), '%Y-%m-%dT%H:%M:%S.%fZ')"
# The optimizer folds the constant type, so that a comparison of ids can use the primary key.
_ATTRIBUTES = {
    Root.ID: Value("'VARCHAR'", "id"),
    Root.VERSION: Value("'VARCHAR'", "version"),
    Root.CREATED_AT: Value("'VARCHAR'", _TIME.format("created_at")),
    Root.UPDATED_AT: Value("'VARCHAR'", _TIME.format("updated_at")),
}
# A number is compared as its double, then, where doubles are further apart than integers, exactly.
_DOUBLE = "try_cast(atom as double)"
_EXACT = f"case when abs({_DOUBLE}) between 9e15 and 1e19 then try_cast(atom as hugeint) else 0 end"
_IN_TREE = Value("type", "(atom ->> '$')", f"({_DOUBLE}, {_EXACT})")


def pushdown(leaf: spi.Leaf) -> spi.Pushdown:
    """Return EXACT for scalars, SUPERSET where SQL tests the type of a value only."""
    # The regular expression of a path takes memory by its length.
    if isinstance(leaf, (AnyObject, *RANKED)) or leaf.path.root is Root.SCORE or len(str(leaf.path)) > 500:
        return spi.Pushdown.NONE
    match leaf:
        case spi.In(_, long) | spi.Like(_, long) if len(long) > 1_000:
            return spi.Pushdown.NONE
        case spi.EqualList() | spi.Regex() | spi.Equal(value=dict()) | spi.Like(fold=True):
            return spi.Pushdown.SUPERSET
        case _:
            return spi.Pushdown.EXACT


def predicate_sql(predicate: spi.Predicate, args: list[Any]) -> str:
    """Return a predicate as SQL that is true or false, never null; its constants are added to `args`."""
    match predicate:
        case spi.And(terms) | spi.Or(terms):
            word = " and " if isinstance(predicate, spi.And) else " or "
            return f"({word.join(predicate_sql(term, args) for term in terms) or 'true'})"
        case spi.Not(term):
            return f"not {predicate_sql(term, args)}"
    root = predicate.path.root
    if root in _ATTRIBUTES:
        return f"({_test_sql(predicate, _ATTRIBUTES[root], args)})"
    args.append(_path_pattern(predicate.path.keys))
    test = f"regexp_full_match(fullkey, ?) and ({_test_sql(predicate, _IN_TREE, args)})"
    return f"exists (select 1 from json_tree({'data' if root is Root.DATA else 'metadata'}) where {test})"


def _path_pattern(keys: Sequence[str]) -> str:
    """Return a pattern of `fullkey` for the values that these keys lead to, lists entered at every depth."""
    pattern = r"\$"
    for key in keys:
        quoted = re.escape('"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"')
        # A key that is a word stands without quotes, mostly.
        pattern += rf"\.(?:{quoted}|{key})" if re.fullmatch(r"[A-Za-z0-9_]+", key) else rf"\.{quoted}"
        pattern += r"(?:\[\d+\])*"
    return pattern


def _test_sql(leaf: spi.Leaf, value: Value, args: list[Any]) -> str:
    """Return whether one value satisfies a leaf, or the type that it must have, as SQL."""
    is_text = f"{value.type} = 'VARCHAR'"
    match leaf:
        case spi.Exists():
            return f"{value.type} not in ('NULL', 'ARRAY')"
        case spi.EqualList():
            return f"{value.type} = 'ARRAY'"
        case spi.Equal(_, operand):
            if isinstance(operand, dict):
                return f"{value.type} = 'OBJECT'"
            return _compare(value, "=", operand, args)
        case spi.In(_, operands):
            return " or ".join(_compare(value, "=", operand, args) for operand in operands)
        case spi.Ordered(_, operator, operand):
            return _compare(value, operator.value, operand, args)
        case spi.Between(_, low, high):
            return f"{_compare(value, '>=', low, args)} and {_compare(value, '<=', high, args)}"
        case spi.Regex() | spi.Like(fold=True):
            return is_text
        case spi.Like(_, pattern):
            # DuckDB's own LIKE takes time exponential in the number of `%`.
            parts = re.findall(r"\\?.", pattern, re.DOTALL)
            args.append("".join({"%": ".*", "_": "."}.get(part, re.escape(part[-1])) for part in parts))
            return f"{is_text} and regexp_full_match({value.text}, ?, 's')"
        case spi.StartsWith(_, text) | spi.EndsWith(_, text) | spi.Contains(_, text):
            args.append(text)
            function = {spi.StartsWith: "starts_with", spi.EndsWith: "ends_with"}.get(type(leaf), "contains")
            return f"{is_text} and {function}({value.text}, ?)"
        case _:
            raise AssertionError(f"{leaf} is not sent")


def _compare(value: Value, operator: str, operand: bool | float | str, args: list[Any]) -> str:
    """Compare with a scalar, values of its type only."""
    if isinstance(operand, bool | str):
        # Also as text false comes before true.
        type, text = ("VARCHAR", operand) if isinstance(operand, str) else ("BOOLEAN", str(operand).lower())
        args.append(text)
        return f"{value.type} = '{type}' and {value.text} {operator} ?"
    double = float(operand)
    args += [double, int(operand) if 9e15 <= abs(double) <= 1e19 else 0]
    is_number = f"{value.type} in ('UBIGINT', 'BIGINT', 'DOUBLE')"
    return f"{is_number} and {value.number} {operator} (?::double, ?::hugeint)"
