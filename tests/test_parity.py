"""The parity page tells what the suite found: what was kept, what was refused and why, and what failed."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from isthmus import Capabilities
from isthmus._core.registry import BACKENDS, plugin
from isthmus.testing.parity import ParityPage, StoreColumn, as_html, markdown, run_suite
from isthmus.testing.parity._page import sentence
from isthmus.testing.parity._reasons import reason
from tests import parity

_FEW = " or ".join(
    f"test_{some}"
    for some in ("a_transaction_commits_on_exit", "a_match_is_ranked", "delete_returns", "lists_of_every")
)
# The capabilities whose absence is no refusal of a call: speed, and what a write survives.
_QUIET = {"durable", "indexes", "drop", "delete_where", "isolation", "max_record_bytes"}


def test_the_page_tells_what_was_kept_refused_and_failed(tmp_path: Path) -> None:
    """Each cell has its counts, each "no" its reason, and no page shows a secret."""
    columns = [
        StoreColumn("one", "memory", {}, "in this process"),
        StoreColumn("two", "sqlite", {"path": str(tmp_path / "x.db")}, "SQLite"),
        StoreColumn("down", "postgres", {"url": "postgres://u:hunter2@127.0.0.1:9/none"}, "nobody | there"),
    ]

    page = ParityPage("made here", columns, run_suite(columns, only=_FEW))

    assert page.counts == {"passed": 6, "refused": 2, "FAILED": 4}
    assert {one.column for one in page.wrong} == {"down"}
    assert all("127.0.0.1" in one.why for one in page.wrong)
    text, whole = markdown(page), as_html(page)
    assert "| 1 | 1 | 1 FAILED |" in text
    assert "| 1 refused | 1 refused | 1 FAILED |" in text
    assert "| one | relevance | 1 | has no full-text index | memory cannot do match()" in text
    assert "nobody \\| there" in text
    assert "at every depth; `=` with" in text
    assert "at every depth; <code>=</code> with" in whole
    assert 'class="refused">1 refused<br><small>has no full-text index' in whole
    assert "a transaction commits on exit" in whole
    assert "hunter2" not in text + whole
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as left:
        tables = {name for (name,) in left.execute("SELECT tbl_name FROM sqlite_master")}
    assert tables <= {"isthmus_collections", "records"}, "the suite drops what it made in a user's file"


@pytest.mark.parametrize("name", BACKENDS)
def test_each_refusal_of_a_backend_of_ours_has_its_reason(name: str) -> None:
    """A "no" without a reason would leave the reader to guess."""
    can = plugin(name).capabilities
    missing = [field for field in Capabilities._fields if field not in _QUIET and not getattr(can, field)]

    assert [field for field in missing if not reason(name, field)] == []


def test_a_promise_is_quoted_in_full() -> None:
    """A line loses the name of its promise; any other text before the colon is part of what it says."""
    assert sentence("order").startswith("total, across types")
    assert sentence("nulls") == "Null, missing and empty list: each has no value."
    assert sentence("pages").startswith("Pages by cursor: they never overlap")


def test_a_page_of_other_code_is_found_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed backend, query or promise makes it old; `make docs` then says what to do."""
    copy = tmp_path / "isthmus"
    shutil.copytree(parity.ROOT / "src" / "isthmus", copy, ignore=shutil.ignore_patterns("__pycache__"))
    page = tmp_path / "parity.md"
    page.write_text(f"<!-- digest {parity.digest()}: … -->")
    assert parity.digest(copy) == parity.digest()
    assert parity.check(tmp_path) == 0

    (copy / "_pools.py").write_text("# not told of\n")
    assert parity.digest(copy) == parity.digest()
    with (copy / "backends" / "memory" / "backend.py").open("a") as file:
        file.write("# changed\n")

    assert parity.digest(copy) != parity.digest()
    page.write_text(f"<!-- digest {parity.digest(copy)}: … -->")
    assert parity.check(tmp_path) == 1
    assert parity.check(tmp_path / "nowhere") == 1
    assert "make parity" in capsys.readouterr().err
