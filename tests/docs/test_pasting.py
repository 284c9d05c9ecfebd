"""The tutorial's blocks can be pasted one by one into the interactive interpreter of Python 3.11."""

from __future__ import annotations

import ast
import codeop
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    pytest.param(page, block, id=f"{page}-{number}")
    for page in ("tutorial.md", "index.md")
    for number, block in enumerate(
        re.findall(r"^```python[^\n]*\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_block_can_be_pasted(page: str, block: str) -> None:
    """Line by line, as a terminal sends it: an empty line ends a compound statement, and only that does.

    The end of the paste is followed by Enter.
    """
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    pasted: list[str] = []
    waiting: list[str] = []
    for line in [*block.splitlines(), ""]:
        waiting.append(line)
        source = "\n".join(waiting)
        if compiler(source, page, "single") is not None:
            pasted.append(source)
            waiting = []

    assert waiting == []
    assert ast.dump(ast.parse("\n".join(pasted))) == ast.dump(ast.parse(block))
