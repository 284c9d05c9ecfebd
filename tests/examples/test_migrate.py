"""The migration, as a process, on both shapes of an export."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus import AsyncDatabase

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the migration."""
    command = [sys.executable, "-W", "error", "-m", "examples.migrate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.asyncio
async def test_an_export_arrives_under_its_new_names_and_is_proved(tmp_path: Path) -> None:
    """Ids and metadata are kept, fields renamed or dropped; running it again changes nothing."""
    shapes = [
        {
            "fields": {
                "full_name": {"value": "Ada", "type": "string"},
                "tmp": {"value": 1, "type": "integer"},
            },
            "metadata": {"source": "x"},
            "id": "ada",
        },
        {"full_name": "Grace", "age": 45, "_id": "grace", "_metadata": {"k": "v"}},
        {"full_name": "nobody"},
    ]
    export = tmp_path / "export.jsonl"
    export.write_text("".join(json.dumps(shape) + "\n" for shape in shapes))
    urls = [f"sqlite:///{tmp_path / 'staging.db'}", f"sqlite:///{tmp_path / 'new.db'}"]

    first = run(str(export), *urls)
    second = run(str(export), *urls)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == "3 loaded, 3 copied, 0 rejected\nequal\n"
    assert second.stdout.endswith("equal\n")
    async with await AsyncDatabase.open(urls[1]) as db:
        ada = await db.require("ada")
        assert (ada.data, ada.metadata) == ({"name": "Ada"}, {"source": "x"})
        assert (await db.require("grace")).metadata == {"k": "v"}
        assert (await db.require("line-000000003"))["name"] == "nobody"
        assert await db.count() == 3


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    """No traceback, and an exit code of its own."""
    export = tmp_path / "export.jsonl"
    export.write_text("{\n")

    done = run(str(export), "memory://", "memory://")

    assert done.returncode == 2
    assert done.stderr.startswith("JSONDecodeError: ")
