"""Every Python example of the pages runs, and prints what the page says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from docs.tools.blocks import SERVERS, blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if any(block.kind == "python" and "before" not in block.words for block in blocks(path.read_text()))
)


def environment() -> dict[str, str]:
    """Return the environment of a page: no store of this machine's but the test servers."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "POSTGRES_", "DB_", "ES_", "ELASTICSEARCH_", "DATABASE_"))
    }
    for kind, variable in SERVERS.items():
        url = os.environ.get(f"ISTHMUS_TEST_{kind.upper()}_URL")
        if url is None:
            continue
        if kind == "elasticsearch":
            url = f"es+{url}/isthmus_docs_{os.getpid()}"
        if kind == "s3":
            url = url.replace("/isthmus-test", f"/isthmus-test/docs-{os.getpid()}", 1)
        kept[variable] = url
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_examples_run(page: Path, tmp_path: Path) -> None:
    """In order, in one namespace, in a fresh process and folder, warnings being errors."""
    command = [sys.executable, "-W", "error", "-m", "docs.tools.blocks", str(page)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_page_that_lies_about_its_output_is_found(tmp_path: Path) -> None:
    """The runner compares; it does not only run."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text output\n3\n```\n")

    command = [sys.executable, "-m", "docs.tools.blocks", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.returncode == 1
    assert "but this was printed:\n2" in done.stderr


@pytest.mark.parametrize("tool", ["docs.tools.capabilities", "docs.tools.reference"])
def test_generated_pages_are_current(tool: str) -> None:
    """They are made from the code: `python -m docs.tools.reference`."""
    done = subprocess.run([sys.executable, "-m", tool, "--check"], cwd=ROOT, check=False)

    assert done.returncode == 0
