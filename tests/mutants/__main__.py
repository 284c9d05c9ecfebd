"""`python -m tests.mutants`: plants bugs by rule, runs the tests of their backend, prints the survivors."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.rules import Mutant, mutants

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "isthmus"
CAUGHT_SHARE = 0.95
# Many times what the slowest trial takes.
CPU_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Group:
    """Files that mean something, what notices a bug in them, and the server that this needs."""

    files: tuple[str, ...]
    trials: tuple[tuple[str, ...], ...]
    share: int
    """How many of its mutants are run."""
    server: str | None = None


def _pytest(*arguments: str) -> tuple[str, ...]:
    return (
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--timeout=60",
        *arguments,
    )


def _backend(name: str, n: int, *more: str) -> tuple[tuple[str, ...], ...]:
    """Return the trials of a backend: a slice of the differential run, then the suite."""
    slices = tuple(
        (
            "-m",
            "tests.differential",
            "--backend",
            name,
            "--n",
            str(n),
            "--seed",
            seed,
            "--jobs",
            "1",
            "--first",
            *more,
        )
        for seed in ("1", "2")
    )
    return (*slices, _pytest("tests/conformance", "-k", f"{name} and not large_batch"))


_TABLE = _pytest("tests/unit/test_truth_table.py")
_LAWS = _pytest("tests/property/test_laws.py")
_MEMORY = _pytest("tests/conformance", "-k", "memory and not large_batch")
GROUPS: dict[str, Group] = {
    "evaluator": Group(
        ("_query/evaluate.py", "_query/found.py", "_query/text.py", "_query/order.py", "_query/aggregate.py"),
        (_TABLE, _MEMORY, _LAWS),
        14,
    ),
    "planner": Group(
        ("_query/split.py", "_query/normalize.py", "layers/plan.py"),
        (_pytest("tests/thirdparty/test_planning.py"), _LAWS, _MEMORY),
        12,
    ),
    "sqlite": Group(
        tuple(
            f"backends/sqlite/{name}.py"
            for name in ("predicates", "compile", "sorting", "fields", "aggregates")
        ),
        _backend("sqlite", 1_500),
        16,
    ),
    "postgres": Group(
        tuple(
            f"backends/postgres/{name}.py"
            for name in ("filter", "arms", "fields", "patterns", "leaves", "regex", "sort", "pages")
        ),
        _backend("postgres", 1_000),
        14,
        "postgres",
    ),
    "elasticsearch": Group(
        tuple(f"backends/elasticsearch/{name}.py" for name in ("compile", "order", "pattern", "aggregate")),
        _backend("elasticsearch", 400, "--per-set", "80"),
        8,
        "elasticsearch",
    ),
    "s3": Group(("backends/s3/prefilter.py",), _backend("s3", 300), 4, "s3"),
}
# Mutants that change no answer, each with the reason: only work is saved or spent differently.
EQUIVALENT: dict[tuple[str, str], str] = {
    ("_query/aggregate.py", "return math.inf if exact > 0 else -math.inf"): "zero does not overflow",
}


def main() -> int:
    """Run the mutants of the chosen groups; return 1 if fewer than 95 % of at least 50 are caught."""
    options = _options()
    rng = random.Random(options.seed)
    chosen: list[tuple[str, Mutant]] = []
    for name in options.group or GROUPS:
        group = GROUPS[name]
        if group.server and f"ISTHMUS_TEST_{group.server.upper()}_URL" not in os.environ:
            print(f"{name}: not run, it needs python -m tests.servers run {group.server} -- …")
            continue
        every = [m for file in group.files if (SOURCE / file).exists() for m in mutants(SOURCE / file)]
        every = [m for m in every if _key(m) not in EQUIVALENT]
        share = group.share if options.share is None else options.share
        chosen += [(name, mutant) for mutant in rng.sample(every, min(share, len(every)))]
        print(f"{name}: {min(share, len(every))} of {len(every)} mutants")
    started = time.monotonic()
    survivors = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as threads:
        for (name, mutant), caught in zip(
            chosen, threads.map(_caught, *zip(*chosen, strict=True)), strict=True
        ):
            print(
                f"{'caught' if caught else 'SURVIVED':<9}{name}: {_shown(mutant)} {caught or ''}", flush=True
            )
            if not caught:
                survivors.append(mutant)
    count = len(chosen)
    share_caught = 1 - len(survivors) / count
    print(
        f"seed {options.seed}: {count - len(survivors)} of {count} caught ({share_caught:.1%})"
        f" in {time.monotonic() - started:.0f} s"
    )
    for mutant in survivors:
        print(f"survivor: {_shown(mutant)}")
    return 0 if share_caught >= CAUGHT_SHARE and (count >= 50 or options.group) else 1


def _caught(name: str, mutant: Mutant) -> str:
    """Return which trial noticed the mutant; nothing if none did."""
    with tempfile.TemporaryDirectory(prefix="isthmus-mutant-") as folder:
        overlay = Path(folder) / "isthmus"
        shutil.copytree(SOURCE, overlay, ignore=shutil.ignore_patterns("__pycache__"))
        (overlay / mutant.path.relative_to(SOURCE)).write_text(mutant.text())
        env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        for trial in GROUPS[name].trials:
            # A loop without end is noticed by the time that it works, which a busy machine does not stretch.
            done = subprocess.run(
                [sys.executable, *trial],
                cwd=ROOT,
                env=env,
                capture_output=True,
                check=False,
                preexec_fn=_bounded,
            )
            if done.returncode == -signal.SIGXCPU:
                return "by a loop without end"
            if done.returncode:
                return f"by {trial[1]} {trial[-1] if trial[1] == 'pytest' else ''}".strip()
    return ""


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


def _key(mutant: Mutant) -> tuple[str, str]:
    line = mutant.path.read_text().splitlines()[mutant.line - 1].strip()
    return str(mutant.path.relative_to(SOURCE)), line


def _shown(mutant: Mutant) -> str:
    return str(mutant).replace(f"{SOURCE}/", "")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--group", action="append", choices=GROUPS, help="only these; may be given several times"
    )
    parser.add_argument("--share", type=int, help="how many mutants of each group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
