"""Makes mutants by rule: at every comparison, negation, connective, bound, escape and SQL token."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tokens of the languages that compilers write, and what a slip would have made of them.
_TOKENS: tuple[tuple[str, str, str], ...] = (
    ("connective", r"\bAND\b", "OR"),
    ("connective", r"\bOR\b(?! REPLACE)", "AND"),
    ("negation", r"\bNOT (?!NULL|EXISTS|IN)", ""),
    ("negation", r"\bBETWEEN\b", "NOT BETWEEN"),
    ("negation", r"\bEXISTS\b", "NOT EXISTS"),
    ("negation", r"\bmust_not\b", "must"),
    ("comparison", r">=", ">"),
    ("comparison", r"<=", "<"),
    ("comparison", r"(?<= )<(?= )", "<="),
    ("comparison", r"(?<= )>(?= )", ">="),
    ("comparison", r"\bgte\b", "gt"),
    ("comparison", r"\blte\b", "lt"),
    ("comparison", r"\bMIN\b|\bmin\b", "max"),
    ("comparison", r"\bMAX\b|\bmax\b", "min"),
    ("null arm", r"\bCOALESCE\(", "("),
    ("null arm", r"\bIS NOT TRUE\b", "IS FALSE"),
    ("null arm", r"\bIS NOT DISTINCT FROM\b", "="),
    ("collation", r' COLLATE "C"', ""),
    ("order", r"\bDESC\b", "ASC"),
    ("order", r"\bNULLS LAST\b", "NULLS FIRST"),
    ("order", r"_last\b", "_first"),
    ("connective", r"^[\"']should[\"']$", '"must"'),
    ("text", r"\blower\(", "("),
    ("bound", r" \+ 1\b", ""),
)
_COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
# Functions of one text that make it harmless in another language.
_ESCAPING = re.compile(r"_?(escape|escaped|quoted|literal|like_literal|escaped_wildcard|path_key|fold)$")
# Functions whose list of alternatives or conditions loses one.
_JOINING = frozenset({"either", "both", "join"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit of one file."""

    path: Path
    line: int
    start: int
    end: int
    before: str
    after: str
    kind: str

    def text(self) -> str:
        """Return the file with the edit."""
        source = self.path.read_text()
        return source[: self.start] + self.after + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before.strip()!r} becomes {self.after.strip()!r}"


def mutants(path: Path) -> list[Mutant]:
    """Return every mutant of a file; none of a docstring, an error's message, an annotation or a guard."""
    return _Planter(path).planted()


class _Planter:
    """Walks one file and notes where a slip could be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = path.read_text()
        self._lines = self._source.splitlines()
        self._starts = [0]
        for line in self._source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._made: dict[tuple[int, int, str], Mutant] = {}

    def planted(self) -> list[Mutant]:
        for node in _live(ast.parse(self._source)):
            match node:
                case ast.Compare():
                    self._comparison(node)
                case ast.UnaryOp(ast.Not(), operand):
                    start, end = self._span(node)[0], self._span(operand)[0]
                    after = self._source[start:end].replace("not", "", 1).lstrip()
                    self._plant("negation", node.lineno, start, end, after)
                case ast.BoolOp():
                    self._connective(node)
                case ast.BinOp(left, ast.Add() | ast.Sub(), ast.Constant(1)):
                    self._plant("bound", node.lineno, self._span(left)[1], self._span(node)[1], "")
                case ast.Call():
                    self._escape(node)
                    self._arm(node)
                case ast.Constant(str()) | ast.JoinedStr():
                    self._tokens(node)
        return [self._made[key] for key in sorted(self._made)]

    def _comparison(self, node: ast.Compare) -> None:
        match node:
            case ast.Compare(left, [op], [right]):
                start, end = self._span(left)[1], self._span(right)[0]
                gap = self._source[start:end]
                if "(" not in gap and ")" not in gap:
                    self._plant("comparison", node.lineno, start, end, f" {_COMPARED[type(op)]} ")

    def _connective(self, node: ast.BoolOp) -> None:
        word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in itertools.pairwise(node.values):
            start, end = self._span(left)[1], self._span(right)[0]
            gap = self._source[start:end]
            if gap.count(word) == 1:
                self._plant("connective", left.lineno, start, end, gap.replace(word, other))

    def _escape(self, node: ast.Call) -> None:
        """Leave out an escape: `escaped(x)` becomes `x`, `x.replace(a, b)` too."""
        start, end = self._span(node)
        match node:
            case ast.Call(ast.Name(name) | ast.Attribute(attr=name), [inner], []) if _ESCAPING.match(name):
                self._plant("escape", node.lineno, start, end, self._text(inner))
            case ast.Call(ast.Attribute(inner, "replace"), [ast.Constant(), ast.Constant()], []):
                self._plant("escape", node.lineno, start, end, self._text(inner))
            case ast.Call(ast.Name("map"), [ast.Name(name) as function, _], []) if _ESCAPING.match(name):
                self._plant("escape", node.lineno, *self._span(function), "str")

    def _arm(self, node: ast.Call) -> None:
        """Drop one of the alternatives or conditions that are joined."""
        match node:
            case ast.Call(ast.Name(name) | ast.Attribute(attr=name), [ast.List(parts)]) if (
                name in _JOINING and len(parts) > 1
            ):
                for dropped in parts:
                    rest = ", ".join(self._text(part) for part in parts if part is not dropped)
                    self._plant("arm", dropped.lineno, *self._span(node.args[0]), f"[{rest}]")

    def _tokens(self, node: ast.Constant | ast.JoinedStr) -> None:
        start, end = self._span(node)
        for kind, pattern, after in _TOKENS:
            for hit in re.finditer(pattern, self._source[start:end]):
                line = node.lineno + self._source.count("\n", start, start + hit.start())
                self._plant(kind, line, start + hit.start(), start + hit.end(), after)

    def _plant(self, kind: str, line: int, start: int, end: int, after: str) -> None:
        before = self._source[start:end]
        self._made[start, end, after] = Mutant(self._path, line, start, end, before, after, kind)

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end]

    def _span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self._offset(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            self._offset(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    def _offset(self, line: int, column: int) -> int:
        # ast counts columns in UTF-8 bytes.
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())


def _live(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that decide something."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Raise() | ast.Assert() | ast.Import() | ast.ImportFrom() | ast.arg():
                continue
            case ast.Expr(ast.Constant(str())):
                continue
            case ast.If(ast.Name("TYPE_CHECKING")):
                continue
            case ast.AnnAssign(value=value):
                if value is not None:
                    yield value
                    yield from _live(value)
                continue
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) if name in ("__repr__", "__str__"):
                continue
        yield child
        yield from _live(child)
