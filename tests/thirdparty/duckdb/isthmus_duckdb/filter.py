"""Predicates as SQL over `json_tree`, which lists every value of a document with its path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, assert_never

from isthmus import spi
from isthmus.spi import Root


class Value(NamedTuple):
    """A value that a leaf is tested on, as SQL expressions."""

    type: str
    text: str
    double: str = "null::double"
    exact: str = "null::hugeint"


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
_IN_TREE = Value("type", "(atom ->> '$')", _DOUBLE, _EXACT)
_IS_NUMBER = "in ('UBIGINT', 'BIGINT', 'DOUBLE')"


def pushdown(leaf: spi.Leaf) -> spi.Pushdown:
    """Return EXACT for scalars, SUPERSET where SQL tests the type of a value only."""
    # The regular expression of a path takes memory by its length.
    if leaf.path.root is Root.SCORE or sum(len(key) + 1 for key in leaf.path.keys) > 500:
        return spi.Pushdown.NONE
    match leaf:
        case spi.TextMatch() | spi.KNN():
            return spi.Pushdown.NONE
        case spi.EqualList() | spi.Regex() | spi.Equal(value=dict()) | spi.Like(fold=True):
            return spi.Pushdown.SUPERSET
        case _:
            return spi.Pushdown.EXACT


def predicate_sql(predicate: spi.Predicate, args: list[Any]) -> str:
    """Return a predicate as SQL that is true or false, never null; its constants are added to `args`."""
    match predicate:
        case spi.And(terms):
            return "(" + " and ".join(["true", *(predicate_sql(term, args) for term in terms)]) + ")"
        case spi.Or(terms):
            return "(" + " or ".join(["false", *(predicate_sql(term, args) for term in terms)]) + ")"
        case spi.Not(term):
            return f"not {predicate_sql(term, args)}"
    path = predicate.path
    if path.root in _ATTRIBUTES:
        return f"({_test_sql(predicate, _ATTRIBUTES[path.root], args)})"
    column = "data" if path.root is Root.DATA else "metadata"
    args.append(_path_pattern(path.keys))
    test = _test_sql(predicate, _IN_TREE, args)
    return (
        f"exists (select 1 from json_tree(records.{column}) where regexp_full_match(fullkey, ?) and ({test}))"
    )


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
        case spi.Equal(_, dict()):
            return f"{value.type} = 'OBJECT'"
        case spi.EqualList():
            return f"{value.type} = 'ARRAY'"
        case spi.Equal(_, operand):
            return _compare(value, "=", operand, args)
        case spi.In(_, operands):
            return _is_any(value, operands, args)
        case spi.Ordered(_, operator, operand):
            return _compare(value, operator.value, operand, args)
        case spi.Between(_, low, high):
            return f"{_compare(value, '>=', low, args)} and {_compare(value, '<=', high, args)}"
        case spi.Regex() | spi.Like(fold=True):
            return is_text
        case spi.Like(_, pattern):
            # A backslash at the end that escapes nothing stands for itself.
            odd = (len(pattern) - len(pattern.rstrip("\\"))) % 2
            args.append(pattern + "\\" * odd)
            return f"{is_text} and {value.text} like ? escape '\\'"
        case spi.StartsWith(_, text) | spi.EndsWith(_, text) | spi.Contains(_, text):
            args.append(text)
            function = {spi.StartsWith: "starts_with", spi.EndsWith: "ends_with"}.get(type(leaf), "contains")
            return f"{is_text} and {function}({value.text}, ?)"
        case spi.TextMatch() | spi.KNN():
            raise AssertionError(f"{leaf} is never sent")
        case _:
            assert_never(leaf)


def _compare(value: Value, operator: str, operand: bool | float | str, args: list[Any]) -> str:
    """Compare with a scalar, values of its type only."""
    match operand:
        case bool():
            args.append(operand)
            return f"{value.type} = 'BOOLEAN' and ({value.text} = 'true') {operator} ?"
        case str():
            args.append(operand)
            return f"{value.type} = 'VARCHAR' and {value.text} {operator} ?"
    args += _number(operand)
    return f"{value.type} {_IS_NUMBER} and ({value.double}, {value.exact}) {operator} (?::double, ?::hugeint)"


def _is_any(value: Value, operands: Sequence[bool | float | str], args: list[Any]) -> str:
    """Compare with many scalars: as one list for each type, since a statement has few thousand parameters."""
    numbers = [_number(operand) for operand in operands if not isinstance(operand, bool | str)]
    lists: list[list[Any]] = [
        [operand for operand in operands if isinstance(operand, str)],
        [str(operand).lower() for operand in operands if isinstance(operand, bool)],
        [double for double, exact in numbers if not exact],
        [exact for _, exact in numbers if exact],
    ]
    args += lists
    return (
        f"({value.type} = 'VARCHAR' and {value.text} = any(?::varchar[]))"
        f" or ({value.type} = 'BOOLEAN' and {value.text} = any(?::varchar[]))"
        f" or ({value.type} {_IS_NUMBER} and {value.double} = any(?::double[]))"
        f" or ({value.type} {_IS_NUMBER} and {value.exact} = any(?::hugeint[]))"
    )


def _number(operand: float) -> tuple[float, int]:
    double = float(operand)
    return double, int(operand) if 9e15 <= abs(double) <= 1e19 else 0
