"""The pages build without a warning, and a reader's browser asks nobody else for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself; a link that one clicks is no request.
FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["'](?:https?:)?//[^"']+""")


def test_the_pages_build_without_a_warning_and_without_a_foreign_host(tmp_path: Path) -> None:
    """`mkdocs build --strict`: links, anchors, the navigation and every documented name are found."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}

    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    foreign = {found for page in pages for found in FETCHED.findall(page.read_text())}
    assert not foreign


def test_every_file_of_the_map_exists() -> None:
    """The architecture page names files by their last parts; each is somewhere in the package."""
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    drawn = page.partition("```text\n")[2].partition("```")[0]
    source = ROOT / "src" / "isthmus"
    known = {path.name for path in source.rglob("*") if path.suffix == ".py" or path.is_dir()}

    named = {
        word.rstrip("/")
        for line in drawn.splitlines()
        for word in re.findall(r"(?<![\w/])_*[a-z]\w*(?:\.py|/)(?=[\s,;]|$)", line.partition("   ")[0] + line)
    }

    assert len(named) > 40
    assert named - known <= {"src", "isthmus", "tests", "benchmarks"}
