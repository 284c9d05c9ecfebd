"""The README's code runs as pasted, and its table is current."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_first_example_runs_as_pasted(tmp_path: Path) -> None:
    """Twenty lines that work."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "['Alice', 'Bob']\nAlice ['admin', 'oslo']\n[{'n': 2, 'oldest': 31}]\nsqlite:"
    )


def test_the_table_of_capabilities_is_current() -> None:
    """It is generated: `python -m docs.tools.capabilities`."""
    command = [sys.executable, "-m", "docs.tools.capabilities", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
