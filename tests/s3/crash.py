"""`python -m tests.s3.crash --url s3://… --kills 200 --seed 1`: writers of a log killed at random requests.

Each round forks a process that writes atomic batches to one log, with checkpoints and removals as
often as they can be, and kills it (SIGKILL) at a random request, before or after that was sent.
Then a new process opens the log and looks: every acknowledged batch is there whole, at most the
one that was on its way is there besides, whole too, and nothing else. A reader that stays open
over all rounds must see the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from isthmus._core.executor import Mutation, WriteKind
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.transport import conditional_put_probe
from isthmus.backends.s3.transport.requests import Requests
from tests.s3.stores import config_for, every

SIZE = 7  # records a batch
_MOST = 60  # requests until a kill


def settings(transport: str) -> dict[str, Any]:
    """Return a config that checkpoints and removes all the time."""
    return {"layout": "log", "transport": transport, "log": {"checkpoint_entries": 3, "grace": 0.05}}


def _die_at(request: int, *, after: bool) -> None:
    """Kill this process at its n-th request, before it is sent or after it was answered."""
    left = request
    send = Requests.send

    async def counted(self: Requests, work: Callable[[Any], Awaitable[Any]]) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            try:
                if after:
                    await send(self, work)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        return await send(self, work)

    Requests.send = counted  # type: ignore[method-assign]


async def _write(url: str, prefix: str, tag: str, transport: str, acknowledged: int) -> None:
    """Write batches until killed; the name of each goes to a pipe before and after it is written."""
    backend = S3Backend(config_for(url, prefix=prefix, **settings(transport)))
    # The race that probes the server is 67 requests, and nothing of the log: not run in each round.
    conditional_put_probe._puts[backend.config.endpoint_url, backend.config.bucket] = True
    await backend.open(DEFAULT)
    for number in range(1_000):
        name = f"{tag}-{number:04d}"
        os.write(acknowledged, f"begun {name}\n".encode())
        changes = [Mutation(f"{name}-{item}", {"batch": name}) for item in range(SIZE)]
        results = await backend.write(DEFAULT, WriteKind.CREATE, changes, atomic=True)
        assert all(isinstance(result, str) for result in results), results
        os.write(acknowledged, f"written {name}\n".encode())


async def _look(url: str, prefix: str, transport: str) -> dict[str, int]:
    backend = S3Backend(config_for(url, prefix=prefix, **settings(transport)))
    try:
        return _batches(await every(backend))
    finally:
        await backend.close()


def _batches(records: list[Any]) -> dict[str, int]:
    return Counter(record.data["batch"] for record in records)


def _forked(work: Callable[[int], None]) -> tuple[int, str]:
    """Run work in a child with a pipe to write to; return how it ended and what it wrote."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            work(writing)
            code = 0
        except BaseException as error:  # the child must not run on into the parent's code
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    return os.waitpid(pid, 0)[1], told


def run(url: str, kills: int, seed: int, transport: str) -> tuple[int, int]:
    """Kill so many writers; return how many died by it and how many batches were acknowledged."""
    rng = random.Random(seed)
    prefix = f"crash/{secrets.token_hex(6)}"
    acknowledged: set[str] = set()
    allowed: set[str] = set()
    died = 0
    # Over aioboto3: a process that has used obstore must not fork users of it.
    loop = asyncio.new_event_loop()
    staying = S3Backend(config_for(url, prefix=prefix, **settings("aioboto3")))
    loop.run_until_complete(staying.open(DEFAULT))
    for round in range(kills):
        at, after = rng.randint(1, _MOST), rng.random() < 0.5
        tag = f"r{round:04d}"

        def writer(pipe: int, at: int = at, after: bool = after, tag: str = tag) -> None:
            _die_at(at, after=after)
            asyncio.run(_write(url, prefix, tag, transport, pipe))

        status, told = _forked(writer)
        if not os.WIFSIGNALED(status):
            raise AssertionError(f"round {round}: the writer ended by itself ({status})")
        died += 1
        words = [line.split() for line in told.splitlines()]
        acknowledged |= {name for word, name in words if word == "written"}
        allowed |= {name for word, name in words if word == "begun"}

        def looker(pipe: int) -> None:
            found = asyncio.run(_look(url, prefix, transport))
            os.write(pipe, "\n".join(f"{name} {count}" for name, count in found.items()).encode())

        status, told = _forked(looker)
        assert status == 0, f"round {round}: the log could not be opened"
        found = {name: int(count) for name, count in (line.split() for line in told.splitlines())}
        where = f"seed {seed}, round {round}, request {at}, {'after' if after else 'before'}"
        assert acknowledged <= found.keys(), f"{where}: lost {sorted(acknowledged - found.keys())}"
        assert set(found.values()) <= {SIZE}, f"{where}: half of a batch is there"
        assert found.keys() <= allowed, f"{where}: {sorted(found.keys() - allowed)} out of nowhere"
        stayed = _batches(loop.run_until_complete(every(staying)))
        assert stayed == found, (
            f"{where}: a reader that stayed open sees {len(stayed)} of {len(found)} batches"
        )
        # What was on its way is now known to be there, or gone for good.
        acknowledged = set(found)
        allowed = set(found)
    loop.run_until_complete(staying.close())
    loop.close()
    return died, len(acknowledged)


def main() -> int:
    """Run and print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.s3.crash", description=__doc__)
    parser.add_argument("--url", default=os.environ.get("ISTHMUS_TEST_S3_URL"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transport", default="obstore")
    options = parser.parse_args()
    if options.url is None:
        sys.exit("give --url, or: python -m tests.servers run s3 -- python -m tests.s3.crash")
    print(f"log crash test: {options.kills} kills, seed {options.seed}, {options.transport}", flush=True)
    died, batches = run(options.url, options.kills, options.seed, options.transport)
    print(
        f"{died} writers killed at random requests: {batches} batches, each whole; 0 lost, 0 half, 0 others"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
