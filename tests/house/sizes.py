"""Sizes: lines of modules, of functions, and of code in all."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from tests.house.source import Module, Offender

MODULE_LINES = 400
FUNCTION_LINES = 60

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"


def long_modules(modules: Iterable[Module]) -> Iterator[Offender]:
    """Yield modules of more than `MODULE_LINES` lines, of any kind."""
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > MODULE_LINES:
            yield Offender(module.path, 1, f"{lines} lines")


def long_functions(modules: Iterable[Module]) -> Iterator[Offender]:
    """Yield functions of more than `FUNCTION_LINES` lines.

    Counted are whole lines from `def` to the last one, without decorators and without the docstring;
    a function inside of another counts for itself and for the other.
    """
    for module in modules:
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = function_lines(node)
                if lines > FUNCTION_LINES:
                    yield Offender(module.path, node.lineno, f"{node.name}: {lines} lines")


def function_lines(node: Function) -> int:
    """Return the lines of a function by the rule above."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None and len(node.body) > 1:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def code_lines(modules: Iterable[Module]) -> dict[str, int]:
    """Return the lines of code in each folder, those of its folders included; keys are paths."""
    folders: dict[str, int] = {}
    for module in modules:
        parts = module.path.split("/")
        for end in range(2, len(parts)):
            folder = "/".join(parts[:end])
            folders[folder] = folders.get(folder, 0) + module.code_lines
    return dict(sorted(folders.items()))


def compared(now: Mapping[str, int], before: Mapping[str, int]) -> list[Offender]:
    """Return one line for each folder: lines of code now and at the baseline."""
    return [
        Offender(folder, 0, f"{now.get(folder, 0)} lines of code, {before.get(folder, 0)} before")
        for folder in sorted({*now, *before})
    ]
