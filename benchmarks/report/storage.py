"""Results as JSON files, one for each suite, with the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
DRIVERS = ("asyncpg", "elasticsearch", "aiohttp", "aioboto3", "obstore", "orjson", "pydantic")


def load_runs() -> dict[str, dict[str, Any]]:
    """Return each suite's last run."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def load_rows() -> dict[str, dict[str, Any]]:
    """Return the last rows of all suites by their jobs."""
    return {row["job"]: row for run in load_runs().values() for row in run["rows"]}


def store_run(suite: str, rows: Sequence[Mapping[str, Any]], seconds: float, machine: dict[str, Any]) -> None:
    """Write a suite's rows; `machine` is as it was at the start."""
    run = {"machine": machine, "seconds": round(seconds, 1), "rows": rows}
    write_json(RESULTS / f"{suite}.json", run)


def write_json(path: Path, value: Any) -> None:
    """Write a value with six significant digits: more carry no information and make large diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_round(value), indent=1) + "\n")


def _round(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {key: _round(item) for key, item in value.items()}
        case list() | tuple():
            return [_round(item) for item in value]
        case _:
            return value


def describe_machine() -> dict[str, Any]:
    """Return the machine, its load, the commit and the drivers' versions."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "load": round(os.getloadavg()[0], 1),
        "commit": describe_commit(),
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {name: _version(name) for name in DRIVERS},
    }


def describe_commit() -> str:
    """Return the commit, with a plus where the code differs from it."""
    try:
        changed = git("diff", "--stat", "HEAD", "--", "src")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except subprocess.CalledProcessError:  # an archive of the sources
        return "unknown"


def git(*arguments: str) -> str:
    """Return the output of git in this checkout; raise CalledProcessError if it fails."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
