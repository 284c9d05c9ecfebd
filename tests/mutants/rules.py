"""Makes mutants by rule: at every comparison, negation, connective, bound and token of a statement."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tokens of the languages that compilers write, and what a slip would have made of them.
_TOKENS: tuple[tuple[str, str], ...] = (
    (r"\bAND\b", "OR"),
    (r"\bOR\b(?! REPLACE)", "AND"),
    (r"\bNOT (?!NULL|EXISTS|IN)", ""),
    (r">=", ">"),
    (r"<=", "<"),
    (r"(?<= )<(?= )", "<="),
    (r"(?<= )>(?= )", ">="),
    (r"\bCOALESCE\(", "("),
    (r' COLLATE "C"', ""),
    (r"\bBETWEEN\b", "NOT BETWEEN"),
    (r"\bEXISTS\b", "NOT EXISTS"),
    (r"\bDESC\b", "ASC"),
    (r"\bNULLS LAST\b", "NULLS FIRST"),
    (r"\bMIN\b|\bmin\b", "max"),
    (r"\bMAX\b|\bmax\b", "min"),
    (r"\bgte\b", "gt"),
    (r"\blte\b", "lt"),
    (r"\bmust_not\b", "must"),
    (r"^[\"']should[\"']$", '"must"'),
    (r"_last\b", "_first"),
    (r"\blower\(", "("),
    (r" \+ 1\b", ""),
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


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit of one file."""

    path: Path
    line: int
    start: int
    end: int
    before: str
    after: str

    def text(self) -> str:
        """Return the file with the edit."""
        source = self.path.read_text()
        return source[: self.start] + self.after + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before.strip()!r} becomes {self.after.strip()!r}"


def mutants(path: Path) -> list[Mutant]:
    """Return every mutant of a file; none of a docstring, an error's message, an annotation or a guard."""
    source = path.read_text()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.splitlines()

    def offset(line: int, column: int) -> int:
        # ast counts columns in UTF-8 bytes.
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def span(node: ast.AST) -> tuple[int, int]:
        return (
            offset(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            offset(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    made: dict[tuple[int, int, str], Mutant] = {}

    def plant(line: int, start: int, end: int, after: str) -> None:
        made[start, end, after] = Mutant(path, line, start, end, source[start:end], after)

    for node in _live(ast.parse(source)):
        match node:
            case ast.Compare(left, [op], [right]):
                after = _COMPARED[type(op)]
                start, end = span(left)[1], span(right)[0]
                gap = source[start:end]
                if "(" not in gap and ")" not in gap:
                    plant(node.lineno, start, end, f" {after} ")
            case ast.UnaryOp(ast.Not(), operand):
                start, end = span(node)[0], span(operand)[0]
                plant(node.lineno, start, end, source[start:end].replace("not", "", 1).lstrip())
            case ast.BoolOp(op, values):
                word, other = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
                for left, right in itertools.pairwise(values):
                    start, end = span(left)[1], span(right)[0]
                    gap = source[start:end]
                    if gap.count(word) == 1:
                        plant(left.lineno, start, end, gap.replace(word, other))
            case ast.BinOp(left, ast.Add() | ast.Sub(), ast.Constant(1)):
                plant(node.lineno, span(left)[1], span(node)[1], "")
            case ast.Constant(str()) | ast.JoinedStr():
                start, end = span(node)
                for pattern, after in _TOKENS:
                    for hit in re.finditer(pattern, source[start:end]):
                        plant(node.lineno, start + hit.start(), start + hit.end(), after)
    return [made[key] for key in sorted(made)]


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
