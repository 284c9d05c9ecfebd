"""An earlier commit with an environment of its own, and databases that only one side uses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import tomllib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.report.storage import git

POSTGRES = "ISTHMUS_TEST_POSTGRES_URL"
EXTRAS = ("postgres", "elasticsearch", "s3")


@dataclass(frozen=True)
class Checkout:
    """A commit and the interpreter that has its isthmus installed."""

    commit: str
    python: Path


@contextlib.contextmanager
def check_out(commit: str) -> Iterator[Checkout]:
    """Yield a commit, checked out and installed in a temporary folder that is removed afterwards.

    Raises CalledProcessError for an unknown commit. Dependencies have the versions of this interpreter's,
    so that only isthmus differs.
    """
    name = git("rev-parse", "--short", "--verify", f"{commit}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="isthmus-base-") as folder:
        tree = Path(folder) / "tree"
        git("worktree", "add", "--quiet", "--detach", str(tree), name)
        try:
            yield Checkout(name, _install(tree, Path(folder)))
        finally:
            git("worktree", "remove", "--force", str(tree))


def _install(tree: Path, folder: Path) -> Path:
    """Install a checkout with the drivers into a new environment; return its interpreter."""
    python = folder / "venv" / "bin" / "python"
    constraints = folder / "constraints.txt"
    frozen = _uv("pip", "freeze", "--exclude-editable", "--python", sys.executable)
    constraints.write_text(frozen)
    _uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    extras = ",".join(extra for extra in EXTRAS if extra in project["optional-dependencies"])
    target = ["--python", str(python), "--constraint", str(constraints), "--editable", f"{tree}[{extras}]"]
    _uv("pip", "install", "--quiet", *target)
    return python


def _uv(*arguments: str) -> str:
    command = [sys.executable, "-m", "uv", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@contextlib.asynccontextmanager
async def separate_databases(*sides: str) -> AsyncIterator[dict[str, dict[str, str]]]:
    """Yield for each side the environment that keeps its tables and indexes apart from the other's.

    PostgreSQL gets a database for each side, other stores names with a suffix.
    """
    suffix = uuid.uuid4().hex[:8]
    environments = {side: {"ISTHMUS_BENCH_SUFFIX": f"-{side}-{suffix}"} for side in sides}
    url = os.environ.get(POSTGRES)
    if url is None:
        yield environments
        return
    import asyncpg

    names = {side: f"isthmus_bench_{side}_{suffix}" for side in sides}
    connection = await asyncpg.connect(url)
    try:
        for side, name in names.items():
            await connection.execute(f"CREATE DATABASE {name}")
            environments[side][POSTGRES] = urlsplit(url)._replace(path=f"/{name}").geturl()
        yield environments
    finally:
        for name in names.values():
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.close()
