"""The Python blocks of a Markdown page: which run, and a runner that runs them in order.

`python -m docs.tools.blocks docs/tutorial.md` runs a page in the current folder. The words after
`python` in a fence say more:

* `before`: code for another library, shown for comparison; it does not run.
* `postgres`, `elasticsearch`, `s3`, `mariadb`: needs that server; its URL is in the variable that `SERVERS`
  names.
* `cluster`: needs processes of its own to be started, which the tests of that integration do.
* `file=name.py`: is written to that file instead of being run, for a page that shows whole programs.

Blocks share one namespace and one event loop; `await` may stand at the top level. A fence
`text output` holds what has been printed since the one before it (`text output postgres` if that needs
the server).
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>python|text output)(?P<words>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```",
    re.S | re.M,
)
SERVERS = {"postgres": "DATABASE_URL", "elasticsearch": "ES_URL", "s3": "S3_URL", "mariadb": "MARIADB_URL"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fence of a page."""

    line: int
    kind: str
    words: tuple[str, ...]
    code: str

    @property
    def server(self) -> str | None:
        """The server that the block needs, or None."""
        return next((word for word in self.words if word in SERVERS), None)

    @property
    def runs(self) -> bool:
        """Whether the block is ours to run, its server being there."""
        return not {"before", "cluster"} & set(self.words) and (
            self.server is None or SERVERS[self.server] in os.environ
        )

    @property
    def file(self) -> str | None:
        """The file that the block is to be written to, or None."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)


def blocks(text: str) -> Iterator[Block]:
    """Yield the Python and output fences of a page."""
    for found in FENCE.finditer(text):
        lines = found["code"].splitlines()
        code = "\n".join(line.removeprefix(found["indent"]) for line in lines) + "\n"
        line = text.count("\n", 0, found.start()) + 2
        yield Block(line, found["kind"], tuple(found["words"].split()), code)


class OutputError(AssertionError):
    """A page shows other output than its code prints."""


def run(page: Path) -> int:
    """Run a page; return how many blocks ran."""
    namespace: dict[str, Any] = {"__name__": "__page__"}
    printed = io.StringIO()
    ran = 0
    with asyncio.Runner() as runner:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.kind == "text output":
                if block.runs:
                    _compare(page, block, printed.getvalue())
                printed.seek(0)
                printed.truncate()
            elif block.runs:
                ran += 1
                if block.file is not None:
                    Path(block.file).write_text(block.code, encoding="utf-8")
                    continue
                with contextlib.redirect_stdout(printed):
                    _run_block(page, block, namespace, runner)
    return ran


def _run_block(page: Path, block: Block, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
    # Empty lines in front make a traceback name the page's own line.
    source = "\n" * (block.line - 1) + block.code
    code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        work = eval(code, namespace)  # noqa: S307 - our own pages

        async def whole() -> None:
            await work

        runner.run(whole())
    else:
        exec(code, namespace)  # noqa: S102 - our own pages


def _compare(page: Path, block: Block, printed: str) -> None:
    if printed.strip() != block.code.strip():
        raise OutputError(
            f"{page}:{block.line}: the page shows\n{block.code}\nbut this was printed:\n{printed}"
        )


def main() -> int:
    """Run the pages that are named as arguments."""
    for name in sys.argv[1:]:
        print(f"{name}: {run(Path(name))} blocks ran")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
