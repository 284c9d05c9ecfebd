"""Python modules and pages as the checks read them: syntax tree, prose blocks, lines of code."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "src/isthmus"
PAGES = ("docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
# Everything that may name a document; this package is left out because its rules quote the forbidden ones.
ALSO_PROSE = ("tests", "benchmarks", "examples")
OWN = ("tests/house/", "tests/unit/test_house.py")

_LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
# From Python 3.12 on an f-string is several tokens; before, it is one STRING with its expressions inside.
_TEXT_IN_F_STRING = getattr(tokenize, "FSTRING_MIDDLE", -1)
_EXPRESSION = re.compile(r"\{[^{}]*\}")
_F_STRING = re.compile(r"[rRbBuU]?[fF]")


@dataclass(frozen=True, order=True)
class Offender:
    """One place that breaks a rule."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Block:
    """Text for readers: a comment of one or more lines, a docstring, a string, or a whole page."""

    kind: str
    line: int
    text: str

    def line_at(self, offset: int) -> int:
        """Return the line in the file of an offset in the text."""
        return self.line + self.text.count("\n", 0, offset)


class Module:
    """One Python file; `path` is relative to the root of the repository."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = ast.parse(text)

    @property
    def name(self) -> str:
        """The dotted name, without `src.`; of a package's `__init__.py` it is the package's."""
        parts = self.path.removeprefix("src/").removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the syntax tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def docstrings(self) -> set[int]:
        """The lines on which a string that is a statement of its own begins."""
        return {
            node.lineno
            for node in self.nodes
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        """All tokens."""
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    def _is_docstring(self, index: int) -> bool:
        token = self.tokens[index]
        if token.type != tokenize.STRING or token.start[0] not in self.docstrings:
            return False
        # `x = "..."` may share a line with nothing that is a docstring; `class A: "..."` may.
        before = self.tokens[index - 1]
        return before.type in _LAYOUT or before.type == tokenize.COMMENT or before.string in {":", ";"}

    @cached_property
    def code_lines(self) -> int:
        """The number of lines that hold code: no comment, docstring or blank line."""
        lines: set[int] = set()
        for index, token in enumerate(self.tokens):
            if token.type in _LAYOUT or token.type == tokenize.COMMENT or self._is_docstring(index):
                continue
            lines.update(range(token.start[0], token.end[0] + 1))
        return len(lines)

    @cached_property
    def blocks(self) -> list[Block]:
        """Comments (adjacent lines joined), docstrings and strings, in order."""
        return sorted(self._blocks(), key=lambda block: block.line)

    def _blocks(self) -> Iterator[Block]:
        comment: list[tokenize.TokenInfo] = []
        for index, token in enumerate(self.tokens):
            if token.type == tokenize.COMMENT:
                if comment and not _continues(comment[-1], token):
                    yield _comment(comment)
                    comment = []
                comment.append(token)
            elif token.type == tokenize.STRING:
                kind = "docstring" if self._is_docstring(index) else "string"
                text = token.string
                if _F_STRING.match(text):
                    text = _EXPRESSION.sub(lambda match: " " * len(match[0]), text)
                yield Block(kind, token.start[0], text)
            elif token.type == _TEXT_IN_F_STRING:
                yield Block("string", token.start[0], token.string)
        if comment:
            yield _comment(comment)


def _continues(last: tokenize.TokenInfo, token: tokenize.TokenInfo) -> bool:
    return last.start[0] + 1 == token.start[0] and last.start[1] == token.start[1]


def _comment(tokens: list[tokenize.TokenInfo]) -> Block:
    text = "\n".join(token.string.lstrip("#:") for token in tokens)
    return Block("comment", tokens[0].start[0], text)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        """The whole page as one block."""
        return [Block("page", 1, self.text)]


class Repository:
    """The files under a root that the checks read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def modules(self) -> list[Module]:
        """The modules of the package."""
        return [Module(path, text) for path, text in self._read(PACKAGE, "*.py")]

    @cached_property
    def pages(self) -> list[Page]:
        """The Markdown pages."""
        return [Page(path, text) for place in PAGES for path, text in self._read(place, "*.md")]

    @cached_property
    def others(self) -> list[tuple[str, str]]:
        """Path and text of tests, benchmarks, examples and the tools of the docs."""
        return [
            (path, text)
            for folder in (*ALSO_PROSE, "docs")
            for path, text in self._read(folder, "*.py")
            if not path.startswith(OWN)
        ]

    def has_document(self, name: str) -> bool:
        """Return whether a document of this name, or at the end of this path, is in the repository."""
        name = name.removeprefix("./")
        return any(path == name or path.endswith("/" + name) for path in self._documents)

    @cached_property
    def _documents(self) -> list[str]:
        skipped = {".git", "site", "node_modules"}
        return [
            path.as_posix()
            for path in (one.relative_to(self.root) for one in self._walk())
            if not skipped & set(path.parts)
        ]

    def _walk(self) -> Iterator[Path]:
        yield from self.root.glob("*.md")
        for folder in ("docs", "src", *ALSO_PROSE):
            yield from (self.root / folder).rglob("*.md")

    def _read(self, place: str, pattern: str) -> Iterator[tuple[str, str]]:
        start = self.root / place
        files = sorted(start.rglob(pattern)) if start.is_dir() else [start] if start.exists() else []
        for file in files:
            yield file.relative_to(self.root).as_posix(), file.read_text(encoding="utf-8")
