"""The parity page of the docs: `python -m tests.parity [STORE…]` runs the shipped suite and writes it.

`--check` says whether the page is older than the code that it tells of; so does `make docs`. The
page keeps a digest of that code: the backends, the evaluator, the planner, and the suite.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import hashlib
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

from isthmus import AsyncDatabase, __version__
from isthmus.testing.parity import ParityPage, StoreColumn, as_html, markdown, run_suite, version_of
from tests.servers import Session
from tests.servers.s3 import VersityServer
from tests.stores import KNOWN, store_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "reference"
# The page is of this code; a change elsewhere (pools, layers, commands) leaves it as it is.
TOLD = ("backends", "_query", "layers/plan.py", "layers/guard.py", "testing/conformance", "testing/values.py")
# What CI has, and SQLAlchemy on the database that needs no server.
STORES = ("memory", "sqlite", "postgres", "elasticsearch", "s3-object", "s3-log", "sqlalchemy-sqlite")


def main() -> int:
    """Run the suite on the stores and write the page; return 1 if a test failed or was not run."""
    options = _options()
    if options.check:
        return check(options.out)
    session = Session.begin() if Session.current() is None else None
    try:
        return _write(options)
    finally:
        if session is not None:
            session.end()


def _write(options: argparse.Namespace) -> int:
    started = time.monotonic()
    before = digest()
    columns = asyncio.run(_columns(options.stores or STORES))
    outcomes = run_suite(columns, workers=options.workers, only=options.only, quiet=False)
    page = ParityPage(_made(), columns, outcomes)
    options.out.mkdir(parents=True, exist_ok=True)
    text = markdown(page) + _MORE.format(digest=before)
    (options.out / "parity.md").write_text(text, encoding="utf-8")
    (options.out / "parity-tests.html").write_text(as_html(page), encoding="utf-8")
    print(f"{options.out}/parity.md: {page.summary} {time.monotonic() - started:.0f} s")
    for one in page.wrong:
        print(f"{one.verdict.value}: {one.column} {one.test}[{one.case}]: {one.why}")
    if digest() != before:
        print("the code changed meanwhile, so that the page is old already")
        return 1
    return 1 if page.wrong else 0


_MORE = """
[Every test by name](parity-tests.html), on each store. On servers of your own: `isthmus parity URL…`.

<!-- digest {digest}: of the backends, the query core and the suite; `make docs` compares -->
"""


def digest(source: Path = ROOT / "src" / "isthmus") -> str:
    """Return a digest of the code that the page tells of."""
    whole = hashlib.sha256()
    for told in TOLD:
        path = source / told
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            whole.update(f"{file.relative_to(source).as_posix()}\0".encode())
            whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:24]


def check(out: Path = DOCS) -> int:
    """Return 1 if the page is missing or of other code than that which is here."""
    page = out / "parity.md"
    found = re.search(r"<!-- digest (\w+)", page.read_text(encoding="utf-8")) if page.exists() else None
    if found is not None and found[1] == digest():
        return 0
    what = "of other code than this" if found else "missing"
    print(f"the parity page {page} is {what}: make parity", file=sys.stderr)
    return 1


async def _columns(names: list[str]) -> list[StoreColumn]:
    columns = []
    for name in names:
        store = store_of(name)
        settings = {**store.config, **({} if store.url is None else {"url": store.url})}
        async with store.fresh() as db:
            columns.append(StoreColumn(name, store.backend, settings, await _version(name, db)))
    return columns


async def _version(name: str, db: AsyncDatabase) -> str:
    told = await version_of(db)
    if KNOWN[name][1] != "s3":
        return told
    # It does not tell its version to clients.
    return told.replace("VERSITYGW", f"versitygw {VersityServer.release}", 1)


def _made() -> str:
    told = [f"src/isthmus/{part}" for part in TOLD]
    changed = " with changes" if _git("status", "--porcelain", "--", *told) else ""
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return (
        f"isthmus {__version__}, commit {_git('rev-parse', '--short=12', 'HEAD')}{changed}, Python"
        f" {platform.python_version()}, {today}. Made by `make parity`: the suite that is shipped as"
        " `isthmus.testing.conformance`, on real servers."
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description="Write the parity page.")
    parser.add_argument("stores", nargs="*", help=f"of {', '.join(KNOWN)}")
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--workers", type=int, default=0, help="processes at once")
    parser.add_argument("--only", default="", help="a part of the suite, as pytest's -k")
    parser.add_argument("--check", action="store_true", help="only say whether the page is old")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
