"""The types of the columns of CSV, found over all filled cells, and cells as values of a type."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import orjson

from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends.files.config import Kind

Found: TypeAlias = Literal["empty", "text", "number", "bool"]
"""What the cells of a column are; `empty` if none is filled."""
_EXACT = 2**53
_BOOLS = frozenset({"true", "false"})


class Unreadable(str):
    """Why a cell has no value of its column's type."""

    __slots__ = ()


class KindFinder:
    """Finds the type of each column of one file, chunk by chunk."""

    def __init__(self, headings: Sequence[str], null: Collection[str]) -> None:
        self._found: list[Found] = ["empty"] * len(headings)
        self._headings = headings
        self._null = null

    def add(self, columns: Iterable[Sequence[str]]) -> None:
        """Take in the cells of further rows, column by column."""
        for index, cells in enumerate(columns):
            if self._found[index] != "text":
                kind = find_kind([cell for cell in cells if cell and cell not in self._null])
                self._found[index] = merge_kinds(self._found[index], kind)

    def add_batch(self, batch: Any, find: Callable[[Any, frozenset[str]], Found]) -> None:
        """Take in the cells of further rows, as a batch of Arrow, whose columns' types `find` returns."""
        for index, array in enumerate(batch.columns):
            if self._found[index] != "text":
                kind = find(array, frozenset(self._null))
                self._found[index] = merge_kinds(self._found[index], kind)

    @property
    def kinds(self) -> dict[str, Found]:
        """The type of each column so far."""
        return dict(zip(self._headings, self._found, strict=True))


def find_kind(cells: Sequence[str]) -> Found:
    """Return the type of filled cells: number or bool if each comes back to the letter from its value.

    Checked as one JSON list: some 100 ns a cell.
    """
    if not cells:
        return "empty"
    if cells[0] in _BOOLS:
        return "bool" if _BOOLS.issuperset(cells) else "text"
    if cells[0][0] not in "-0123456789":
        return "text"
    text = f"[{','.join(cells)}]"
    try:
        encoded = text.encode()
        values = orjson.loads(encoded)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return "text"
    if len(values) != len(cells) or not {int, float}.issuperset(map(type, values)):
        return "text"
    if orjson.dumps(values) != encoded and not all(map(_comes_back, cells, values)):
        return "text"
    return "number" if all(map(_is_canonical, values)) else "text"


def _comes_back(cell: str, value: float) -> bool:
    """Return whether a number is written so: an exponent as `e-7`, `e-07`, `e+300` or `e300`."""
    text = repr(value)
    if cell == text or "e" not in cell:
        return cell == text
    digits, _, exponent = cell.partition("e")
    expected, _, power = text.partition("e")
    return digits == expected and len(exponent) <= 4 and power != "" and int(exponent) == int(power)


def _is_canonical(value: float) -> bool:
    """Return whether a number is stored as it is: integral floats from 2^53 on are integers, -0.0 is 0.0."""
    if type(value) is int:
        return INT_MIN <= value <= INT_MAX
    return not _EXACT <= abs(value) < 2.0**63 and (value != 0.0 or str(value) == "0.0")


def merge_kinds(one: Found, other: Found) -> Found:
    """Return the type of a column that has one in some rows and the other in the rest."""
    if other in (one, "empty"):
        return one
    return other if one == "empty" else "text"


def merge_files(findings: Iterable[Mapping[str, Found]]) -> dict[str, Found]:
    """Return the types of columns over several files."""
    merged: dict[str, Found] = {}
    for found in findings:
        for name, kind in found.items():
            merged[name] = merge_kinds(merged.get(name, "empty"), kind)
    return merged


def convert_cells(cells: Sequence[str], kind: Found, null: Collection[str]) -> Sequence[Any]:
    """Return the values of cells of a column whose type was found.

    An empty cell is null in numbers and booleans, and text in text.
    """
    if kind in ("text", "empty"):
        return [None if cell in null else cell for cell in cells] if null else cells
    unfilled = [cell for cell in cells if not cell or cell in null]
    if unfilled:
        texts: Sequence[str] = ["null" if not cell or cell in null else cell for cell in cells]
    else:
        texts = cells
    try:
        values: list[Any] = orjson.loads(f"[{','.join(texts)}]")
    except orjson.JSONDecodeError:
        values = []
    if len(values) == len(cells):
        return values
    return convert_forced(cells, "number" if kind == "number" else "bool", null)


def convert_forced(cells: Sequence[str], kind: Kind, null: Collection[str]) -> list[Any]:
    """Return the values of cells of a type that a setting gives; `Unreadable` for a cell of another one."""
    if kind == "text":
        return [None if cell in null else cell for cell in cells]
    convert = _to_number if kind == "number" else _to_bool
    return [None if not cell or cell in null else convert(cell) for cell in cells]


def _to_bool(cell: str) -> bool | Unreadable:
    if cell in _BOOLS:
        return cell == "true"
    return Unreadable(f"{cell[:40]!r} is not true or false")


def _to_number(cell: str) -> float | Unreadable:
    text = cell.strip()
    if not text.isascii() or "_" in text:
        return Unreadable(f"{cell[:40]!r} is not a number")
    try:
        if len(text.lstrip("+-0")) <= 19:
            whole = int(text)
            if INT_MIN <= whole <= INT_MAX:
                return whole
            return Unreadable(f"{cell!r} is an integer beyond 64 bits")
        if text.lstrip("+-").isdigit():
            return Unreadable(f"{cell[:40]!r} is an integer beyond 64 bits")
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return Unreadable(f"{cell[:40]!r} is not a number")
    if number - number != 0.0:  # infinite, or not a number
        return Unreadable(f"{cell[:40]!r} is not a finite number")
    if number == 0.0:
        return 0.0
    return int(number) if _EXACT <= abs(number) < 2.0**63 else number
