"""The programs for type checkers: each is a function of a module, and takes what it needs by name."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from isthmus import AsyncDatabase
from tests.typing import right_programs, wrong_programs
from tests.typing.models import Person

_MARK = re.compile(r"# red: ([a-z, ]+)$")


@dataclass(frozen=True)
class Program:
    """One program: its lines, and for a wrong one the line that is wrong and who sees it."""

    name: str
    run: Callable[..., Any]
    lines: range
    red: tuple[str, ...]
    refused: bool

    def is_red(self, lines: set[int]) -> bool:
        """Return whether one of the lines that a checker found belongs to the program."""
        return any(line in lines for line in self.lines)


def read_programs(module: ModuleType) -> Iterator[Program]:
    """Yield the programs of a module."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    text = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0].lineno
            lines = range(first, (node.end_lineno or first) + 1)
            marks = [mark[1] for line in lines if (mark := _MARK.search(text[line - 1]))]
            names = tuple(re.split(r"[, ]+", marks[0])) if marks else ()
            red = tuple(name for name in names if name != "refused")
            yield Program(node.name, getattr(module, node.name), lines, red, "refused" in names)


RIGHT = list(read_programs(right_programs))
WRONG = list(read_programs(wrong_programs))


async def run_program(program: Program) -> None:
    """Run a program on a store in memory; what it raises is raised."""
    async with AsyncDatabase("memory") as db:
        people = db.collection("people", Person)
        await people.create_batch(Person(id=name, name=name, age=20 + i) for i, name in enumerate("abc"))
        arguments: dict[str, Any] = {"db": db, "people": people}
        wanted = inspect.signature(program.run).parameters
        if "tx" in wanted:
            async with db.transaction() as tx:
                await _call(program.run, {"tx": tx})
        else:
            await _call(program.run, {name: arguments[name] for name in wanted})


async def _call(run: Callable[..., Any], arguments: dict[str, Any]) -> None:
    result = run(**arguments)
    if inspect.isawaitable(result):
        await result
