"""The parity page: promises × stores, passed, refused or not run, with versions and commit.

`python -m tests.parity [--out DIR] [STORE…]` runs the shipped suite and writes parity.md, parity.html
and parity.json; `--check` fails if the page there is older than the code that it tells of.
"""

from __future__ import annotations

import argparse
import datetime as dt
import html
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from isthmus import __version__
from isthmus.testing import conformance
from tests.servers import server
from tests.stores import FURTHER, STORES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "reference"
# What the page tells of: it is stale when one of these changed since its commit.
TOLD = ("src/isthmus/backends", "src/isthmus/_query", "src/isthmus/layers", "src/isthmus/testing/conformance")

Results = dict[str, dict[str, list[dict[str, Any]]]]


class Collecting:
    """A pytest plugin that writes each test's outcome, by promise and store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: Results = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the outcome of a call, or of a setup that did not get so far."""
        if report.when != "call" and report.outcome == "passed":
            return
        told = dict(report.user_properties)
        name, _, parameter = report.nodeid.partition("::")[2].partition("[")
        promise = getattr(conformance, name).__module__.rpartition(".")[2]
        store = max((s for s in STORES | FURTHER if parameter.startswith(s)), key=len, default="?")
        outcome = "refused" if "refused" in told and report.outcome == "passed" else report.outcome
        why = told.get("refused") if outcome == "refused" else None
        if outcome == "failed":
            why = str(report.longrepr).strip().splitlines()[-1][:200]
        self._results.setdefault(promise, {}).setdefault(store, []).append(
            {"test": f"{name}[{parameter}" if parameter else name, "outcome": outcome, "why": why}
        )

    def pytest_sessionfinish(self) -> None:
        """Write them."""
        self._path.write_text(json.dumps(self._results))


def main() -> int:
    """Run the suite on the stores, write the page, and return 1 if a test failed."""
    options = _options()
    if options.check:
        return _check(options.out)
    stores = options.stores or list(STORES)
    page = {
        "isthmus": __version__,
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", *TOLD)),
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
        "python": sys.version.split()[0],
        "versions": {store: _version(store) for store in stores},
        "results": _run(stores),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "parity.json").write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    (options.out / "parity.md").write_text(markdown(page))
    (options.out / "parity.html").write_text(as_html(page))
    outcomes = Counter(t["outcome"] for row in page["results"].values() for c in row.values() for t in c)
    print(f"{options.out}/parity.md, parity.html: {dict(outcomes)}")
    return 1 if outcomes["failed"] else 0


def _run(stores: list[str]) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:xdist",
                "-p",
                "tests.parity_plugin",
                "tests/conformance",
            ],
            cwd=ROOT,
            env={**os.environ, "ISTHMUS_PARITY": str(path), "ISTHMUS_TEST_STORES": ",".join(stores)},
            check=False,
        )
        if not path.exists():
            sys.exit(f"the suite did not run (exit status {done.returncode})")
        results: Results = json.loads(path.read_text())
        return results


def _version(store: str) -> str:
    kind = (STORES | FURTHER)[store][1]
    if kind is None:
        import sqlite3

        return f"SQLite {sqlite3.sqlite_version}" if store.startswith("sqlite") else "in this process"
    return server(kind).version()


def cell(tests: list[dict[str, Any]]) -> tuple[str, str]:
    """Return a cell's text and its reasons."""
    if not tests:
        return "not run", ""
    counts = Counter(test["outcome"] for test in tests)
    words = [f"{counts['passed']} passed"] if counts["passed"] else []
    words += [f"{counts[word]} {name}" for word, name in _WORDS if counts[word]]
    reasons = sorted({test["why"] for test in tests if test["why"]})
    return ", ".join(words), "; ".join(reasons)


_KINDS = (("FAILED", "bad"), ("refused", "part"), ("not run", "none"))
_WORDS = (("refused", "refused"), ("failed", "FAILED"), ("skipped", "not run"))


def markdown(page: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    stores = list(page["versions"])
    lines = [
        "# Parity",
        "",
        f"isthmus {page['isthmus']}, commit {page['commit']}{' with changes' if page['changed'] else ''},"
        f" Python {page['python']}, {page['made']}.",
        "Made by `make parity`: the shipped suite, on real servers.",
        "",
        "A refusal is an `UnsupportedError` that names the missing capability; it is tested as well.",
        "",
        "| promise | " + " | ".join(stores) + " |",
        "| --- |" + " --- |" * len(stores),
        "| | " + " | ".join(page["versions"][store] for store in stores) + " |",
    ]
    notes: dict[str, str] = {}
    for promise, row in sorted(page["results"].items()):
        cells = []
        for store in stores:
            text, why = cell(row.get(store, []))
            if why:
                notes[f"{promise}, {store}"] = why
            cells.append(text)
        lines.append(f"| {promise} | " + " | ".join(cells) + " |")
    lines += ["", "## Why not", "", *(f"- {where}: {why}" for where, why in notes.items())]
    return "\n".join(lines) + "\n"


def as_html(page: dict[str, Any]) -> str:
    """Return the page as one HTML file without scripts."""
    stores = list(page["versions"])
    head = "".join(
        f"<th>{html.escape(s)}<br><small>{html.escape(page['versions'][s])}</small></th>" for s in stores
    )
    rows = []
    for promise, row in sorted(page["results"].items()):
        cells = []
        for store in stores:
            text, why = cell(row.get(store, []))
            kind = (
                "bad"
                if "FAILED" in text
                else "none"
                if text == "not run"
                else "part"
                if "refused" in text
                else "ok"
            )
            note = f"<br><small>{html.escape(why)}</small>" if why else ""
            cells.append(f'<td class="{kind}">{html.escape(text)}{note}</td>')
        rows.append(f"<tr><th>{html.escape(promise)}</th>{''.join(cells)}</tr>")
    told = f"isthmus {page['isthmus']}, commit {page['commit']}, Python {page['python']}, {page['made']}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>isthmus parity</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; }}
.ok {{ background: #e6f4e6; }} .part {{ background: #fdf6dc; }}
.bad {{ background: #f8d7d7; }} .none {{ color: #888; }}
</style>
<h1>Parity</h1><p>{html.escape(told)}</p>
<table><tr><th>promise</th>{head}</tr>
{chr(10).join(rows)}
</table></html>
"""


def _check(out: Path) -> int:
    """Return 1 if the page is missing or the code changed since its commit."""
    path = out / "parity.json"
    if not path.exists():
        print(f"{path} is not there: make parity")
        return 1
    page = json.loads(path.read_text())
    changed = _git("diff", "--name-only", page["commit"], "--", *TOLD)
    if page["changed"] or changed:
        print(f"the parity page is of {page['commit']}, and the code changed since: make parity\n{changed}")
        return 1
    return 0


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("stores", nargs="*", help=f"of {', '.join(STORES | FURTHER)}")
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument(
        "--check", action="store_true", help="only say whether the page is older than the code"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
