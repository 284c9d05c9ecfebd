"""The pytest plugin: the `db` fixture, and each leak that the check names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_LEAKS = {
    "a socket": (
        "import socket\nKEPT = []\n"
        "def test_it():\n    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); KEPT.append(s)\n",
        "still open: socket to port",
    ),
    "a file": (
        "KEPT = []\ndef test_it(tmp_path):\n    KEPT.append((tmp_path / 'f.txt').open('w'))\n",
        "f.txt",
    ),
    "a ResourceWarning": (
        "def test_it(tmp_path):\n    (tmp_path / 'f.txt').open('w')\n",
        "ResourceWarning: unclosed file",
    ),
    "a task": (
        "import asyncio, pytest\n@pytest.mark.asyncio\nasync def test_it():\n"
        "    asyncio.get_running_loop().create_task(asyncio.sleep(60), name='forgotten')\n",
        "task still running: forgotten",
    ),
    "a pool": (
        "import asyncio, pytest\nfrom isthmus._core import loop_pools\nKEPT = []\n"
        "class Pool:\n    async def close(self): pass\n    def discard(self): pass\n"
        "    def is_healthy(self): return True\n"
        "async def opened(): return Pool()\n"
        "@pytest.mark.asyncio\nasync def test_it():\n"
        "    KEPT.append((asyncio.get_running_loop(), await loop_pools.lease('key', opened)))\n"
        "    KEPT[0][0].is_closed = lambda: False\n",
        "1 isthmus pool(s) not closed",
    ),
}
_CLEAN = """
import asyncio, socket, pytest

@pytest.fixture(scope="module")
def wide():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
    yield s
    s.close()

def test_a_wide_fixture_is_no_leak(wide):
    pass

@pytest.mark.asyncio
async def test_what_ends_is_no_leak(tmp_path):
    task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
    task.cancel()
    with (tmp_path / "f").open("w"):
        pass

@pytest.mark.asyncio
async def test_first(db):
    await db.create({"n": 1})
    await db.collection("others").create({"n": 1})
    async with db.transaction() as tx:
        await tx.collection("others").create({"n": 2})
    assert await db.count() == 1
    assert await db.collection("others").count() == 2
    assert "others" in await db.collections()

@pytest.mark.asyncio
async def test_second(db):
    assert await db.count() == 0
    assert await db.collection("others").count() == 0
"""


def _pytest(folder: Path, code: str, *options: str) -> tuple[int, str]:
    (folder / "test_user.py").write_text(code)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    done = subprocess.run(
        [*command, *options],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("leak", _LEAKS)
def test_a_leak_fails_the_test_and_is_named(tmp_path: Path, leak: str) -> None:
    """Each kind of leak is found with the check, and passes without it."""
    code, said = _LEAKS[leak]

    status, output = _pytest(tmp_path, code, "--isthmus-leakcheck")
    unchecked, quiet = _pytest(tmp_path, code)

    assert status == 1, output
    assert said in output
    assert "leak" not in quiet
    assert unchecked == 0, quiet


def test_clean_tests_pass_the_check_and_have_records_of_their_own(tmp_path: Path) -> None:
    """Wide fixtures, ended tasks and closed files are no leaks; `db` is empty in each test."""
    url = f"sqlite:///{tmp_path}/store.db"

    status, output = _pytest(
        tmp_path, _CLEAN, "--isthmus-leakcheck", "--isthmus-url", "memory://", "--isthmus-url", url
    )

    assert status == 0, output
    assert "6 passed" in output


def test_without_its_options_the_plugin_is_silent(tmp_path: Path) -> None:
    """Nothing of it is seen by those who do not ask."""
    status, output = _pytest(tmp_path, "def test_it():\n    pass\n")

    assert status == 0
    assert "isthmus" not in output
