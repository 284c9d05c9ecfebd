"""The tests that are written in the files of a checkout, whether pytest collects them or not."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from isthmus.testing import conformance

# The file that runs the shipped suite.
_PROMISES = "tests/conformance/test_promises.py"


def written_tests(root: Path) -> set[str]:
    """Return the ids of all tests under `root`/tests and in the shipped suite, without their parameters.

    Functions named `test_…` count wherever they are: in a file that pytest does not take for one of tests,
    in a class, or under a condition. One inside of another function does not.
    """
    written = {
        f"{path.relative_to(root).as_posix()}::{name}"
        for path in (root / "tests").rglob("*.py")
        for name in _named(ast.parse(path.read_text()).body)
    }
    if (root / _PROMISES).exists():
        written |= {f"{_PROMISES}::{name}" for name in conformance.__all__ if name.startswith("test_")}
    return written


def not_collected(root: Path, collected: Iterable[str]) -> list[str]:
    """Return the tests of which not one case is among the `collected` ids."""
    return sorted(written_tests(root) - {test.partition("[")[0] for test in collected})


def _named(body: Sequence[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test_"):
                yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{name}" for name in _named(node.body))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _named(node.body)
            yield from _named(getattr(node, "orelse", []))
