"""Loops, threads, forks and interpreter exit: right answers, silence, and nothing left.

Each story runs in a process of its own with warnings as errors, whose standard error must stay empty.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.targets import TARGETS

BACKENDS = ("memory", "sqlite", *TARGETS)

_COMMON = """
import asyncio, os, sys, threading, time
from isthmus import AsyncDatabase
from isthmus._core.loop_pools import open_pools, sweep
url, key, name, layout = sys.argv[1:5]
config = {key: name} if url != "memory://" else {}
if layout: config["layout"] = layout

def fds():
    return len(os.listdir("/proc/self/fd"))

async def visit(db, n):
    id = await db.create({"n": n})
    assert (await db.get(id))["n"] == n
"""
_STORIES = {
    "50 loops in a row": """
db = AsyncDatabase(url.split("://")[0], {**config, **({} if url == "memory://" else {"url": url})})
async def once(n):
    if db.closed: await db.connect()
    await visit(db, n)
    if n == 49:
        assert await db.count() >= 50
        await db.close()
for n in range(50):
    asyncio.run(once(n))
sweep()
assert open_pools() == 0, open_pools()
print("done")
""",
    "50 loops, each with a handle that is closed": """
async def once(n):
    async with await AsyncDatabase.open(url, config) as db:
        await visit(db, n)
asyncio.run(once(0)); asyncio.run(once(1))
before = fds()
for n in range(48):
    asyncio.run(once(n))
assert open_pools() == 0
# obstore closes sockets in a thread of its own; at times it leaves that to its timeout of idle ones.
patience = time.monotonic() + 40
while fds() > before and time.monotonic() < patience:
    time.sleep(0.05)
assert fds() <= before, (before, fds())
print("done")
""",
    "4 threads with loops of their own": """
db = AsyncDatabase(url.split("://")[0], {**config, **({} if url == "memory://" else {"url": url})})
asyncio.run(db.connect())
failed = []
def work(k):
    async def main():
        await asyncio.gather(*(visit(db, 100 * k + n) for n in range(25)))
    try:
        asyncio.run(main())
    except BaseException as error:
        failed.append(repr(error))
threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
for t in threads: t.start()
for t in threads: t.join()
assert not failed, failed
async def end():
    assert await db.count() == 100
    await db.close()
asyncio.run(end())
sweep()
assert open_pools() == 0
print("done")
""",
    "a fork, in and after which both sides work": """
import warnings
db = AsyncDatabase(url.split("://")[0], {**config, **({} if url == "memory://" else {"url": url})})
async def parent_first():
    await db.connect()
    await visit(db, 1)
asyncio.run(parent_first())
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forking with threads
    pid = os.fork()
async def side(n):
    await visit(db, n)
    await db.close()
if pid == 0:
    asyncio.run(side(2))
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
async def last():
    await visit(db, 3)
    assert await db.count() == (2 if url == "memory://" else 3), await db.count()
    await db.close()
asyncio.run(last())
print("done")
""",
    "exit without close": """
async def main():
    db = await AsyncDatabase.open(url, config)
    await visit(db, 1)
    stream = db.stream(page_size=1)
    await visit(db, 2)
    async for record in stream:
        break
    globals()["kept"] = (db, stream)
asyncio.run(main())
print("done")
""",
    "exit from within a loop": """
async def main():
    db = await AsyncDatabase.open(url, config)
    await visit(db, 1)
    print("done", flush=True)
    sys.exit(0)
asyncio.run(main())
""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts in /proc")
@pytest.mark.breadth(3)
@pytest.mark.parametrize("story", _STORIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_ends_right_and_silent(backend: str, story: str, tmp_path: Path) -> None:
    """Right answers, exit status 0, nothing on standard error, nothing left in the registry."""
    from isthmus._ids import new_id

    key, layout = "table", ""
    if backend == "memory":
        url = "memory://"
    elif backend == "sqlite":
        url = f"sqlite:///{tmp_path}/store.db"
    else:
        target = TARGETS[backend]
        url, key, layout = target.url(), target.key, str(target.config.get("layout", ""))
    name = f"loops_{new_id().replace('-', '')}"
    command = [sys.executable, "-W", "error", "-c", _COMMON + _STORIES[story], url, key, name, layout]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert done.stderr == ""
    assert done.returncode == 0
    assert "done" in done.stdout
