"""The rival in an environment and a process of its own, which runs one round for each request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from benchmarks.harness import Side
from benchmarks.report.storage import ROOT

PYTHON = ROOT / ".venv-rival" / "bin" / "python"
RUNNER = Path(__file__).with_name("dataknobs.py")


class Rival:
    """A process that runs one round of a job for each line on its standard input."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    def side(self, job: str, **arguments: Any) -> Side:
        """Return a side that runs a round of the rival."""

        async def run() -> float:
            return float((await self.request(job, **arguments))["seconds"])

        return run

    async def request(self, job: str, **arguments: Any) -> dict[str, Any]:
        """Run a round and return its `seconds`, and for some jobs `latencies`."""
        process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"job": job, **arguments}).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            self._process = None
            raise RuntimeError("the rival's process ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        if self._process is None:
            if not PYTHON.exists():
                raise RuntimeError("dataknobs-data is not installed: make .venv-rival/.ready")
            self._process = await asyncio.create_subprocess_exec(
                str(PYTHON),
                str(RUNNER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=ROOT,
            )
        return self._process

    async def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
