"""Words of the old dialect, and references to documents that are not in the repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.house.source import Module, Offender, Page, Repository

DIALECT = Path(__file__).parent / "dialect.txt"

# Documents that were never part of the repository, however they are named.
_ABSENT = re.compile(r"\banchors/|\.\./shared\b|\bfeasibility\b", re.I)
# A section of the contract or the design needs the page that it is on.
_SECTION = re.compile(r"\b(semantics|design|faults|targets|servers)(\.md)?,?\s+(§|sections?\s+\d)", re.I)
# The page whose numbered sections comments refer to.
_CONTRACT = "docs/explanation/meaning.md"
_HEADING = re.compile(r"^## (\d+)\. ", re.M)
_REFERENCE = re.compile(r"§(\d+)")
_DOCUMENT = re.compile(r"(?<![\w/*.-])((?:\.{0,2}/)?[\w-][\w./-]*\.md)\b")


def dialect(text: str) -> tuple[list[str], list[str]]:
    """Return the patterns that are bound, and those that are only reported."""
    sections: dict[str, list[str]] = {"[bound]": [], "[reported]": []}
    current = sections["[bound]"]
    for line in text.splitlines():
        if line in sections:
            current = sections[line]
        elif line.strip() and not line.startswith("#"):
            current.append(line)
    return sections["[bound]"], sections["[reported]"]


def dialect_words(sources: Iterable[Module | Page], patterns: Iterable[str]) -> Iterator[Offender]:
    """Yield each occurrence of a pattern in comments, docstrings, strings and pages, also across lines."""
    either = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.I)
    for source in sources:
        for block in source.blocks:
            for match in either.finditer(block.text):
                shown = " ".join(match[0].split())
                yield Offender(source.path, block.line_at(match.start()), f"{shown} ({block.kind})")


def missing_documents(repository: Repository) -> Iterator[Offender]:
    """Yield references to documents that are not there, in modules, pages, tests and benchmarks."""
    for module in repository.modules:
        yield from _missing_in(module, repository)
    for page in repository.pages:
        yield from _missing_in(page, repository)
    for path, text in repository.others:
        # Most need no closer look, and taking them apart is the slow part.
        if _ABSENT.search(text) or _SECTION.search(text):
            yield from _missing_in(Module(path, text), repository)


def _missing_in(source: Module | Page, repository: Repository) -> Iterator[Offender]:
    for block in source.blocks:
        if block.kind == "string":
            continue
        for match in (*_ABSENT.finditer(block.text), *_SECTION.finditer(block.text)):
            page = match[1] + match[2] if match.re is _SECTION and match[2] else ""
            if not (page and repository.has_document(page)):
                yield Offender(source.path, block.line_at(match.start()), " ".join(match[0].split()))
        if block.kind == "page":
            continue  # a page's links are checked when the site is built
        for match in _DOCUMENT.finditer(block.text):
            if not repository.has_document(match[1]):
                yield Offender(source.path, block.line_at(match.start()), match[1])


def missing_sections(repository: Repository) -> Iterator[Offender]:
    """Yield references to sections, such as `§3`, that the contract does not have."""
    contract = (page.text for page in repository.pages if page.path == _CONTRACT)
    known = {number for text in contract for number in _HEADING.findall(text)}
    texts = [*((one.path, one.text) for one in (*repository.modules, *repository.pages)), *repository.others]
    for path, text in texts:
        for match in _REFERENCE.finditer(text):
            if match[1] not in known:
                yield Offender(path, text.count("\n", 0, match.start()) + 1, match[0])
