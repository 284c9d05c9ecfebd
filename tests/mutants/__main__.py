"""`python -m tests.mutants`: plants bugs by rule, runs the tests of their backend, prints the survivors.

All of it works on a copy of the tree as it is at the start. What caught a mutant is run without one
in the end, unless a survivor has shown already that it passes: a test that fails anyway catches nothing.
"""

from __future__ import annotations

import argparse
import compileall
import concurrent.futures
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.groups import GROUPS, Group, Trial, equivalent
from tests.mutants.rules import Mutant, mutants

ROOT = Path(__file__).parents[2]
CAUGHT_SHARE = 0.95
FEWEST = 50
# Several times what the slowest trial takes: a loop without end works, one that waits does not.
CPU_SECONDS = 120
WALL_SECONDS = 600
# What random tests draw, and the order of sets, is alike for each mutant and in each run.
_SAME_EACH_TIME = {"PYTHONDONTWRITEBYTECODE": "1", "ISTHMUS_TEST_SEED": "1", "PYTHONHASHSEED": "1"}


@dataclass(frozen=True, slots=True)
class Judged:
    """A mutant and the trial that noticed it."""

    group: str
    mutant: Mutant
    by: Trial | None
    seconds: float


def main() -> int:
    """Run the mutants of the chosen groups; return 1 if fewer than 95 % of at least 50 are caught."""
    options = _options()
    started = time.monotonic()
    with _copied() as tree:
        bench = Bench(tree)
        chosen = list(_chosen(options, tree))
        if not chosen:
            print("no mutant is like this")
            return 1
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as threads:
            judged = []
            for done in concurrent.futures.as_completed([threads.submit(bench.judge, *p) for p in chosen]):
                judged.append(done.result())
                print(_line(judged[-1]), flush=True)
            broken = [told for told in threads.map(bench.control, _doubtful(judged)) if told]
    print(_table(judged))
    survivors = [one for one in judged if one.by is None]
    share = 1 - len(survivors) / len(judged)
    print(
        f"seed {options.seed}: {len(judged) - len(survivors)} of {len(judged)} caught ({share:.1%})"
        f" in {time.monotonic() - started:.0f} s"
    )
    for one in survivors:
        print(f"survivor: {one.group}: {_shown(one.mutant)}")
    for told in broken:
        print(f"fails without any mutant, so that it proves nothing: {told}")
    enough = len(judged) >= FEWEST or bool(options.group or options.like)
    return 0 if share >= CAUGHT_SHARE and enough and not broken else 1


@contextlib.contextmanager
def _copied() -> Iterator[Path]:
    """Copy the code and its tests, compiled, to where nobody edits them."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="isthmus-mutants-", dir=shared) as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns("__pycache__")
        for part in ("src", "tests", "docs"):
            shutil.copytree(ROOT / part, tree / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", tree)
        compileall.compile_dir(tree / "src", quiet=2)
        compileall.compile_dir(tree / "tests", quiet=2)
        yield tree


def _chosen(options: argparse.Namespace, tree: Path) -> Iterator[tuple[str, Mutant]]:
    """Yield the mutants of a run: of each group its share, the kinds of slips in turn."""
    source = tree / "src" / "isthmus"
    for name in options.group or GROUPS:
        group = GROUPS[name]
        if group.server is not None and group.server[1] not in os.environ:
            print(f"{name}: not run, it needs {group.server[1]} (make mutants)")
            continue
        made = [mutant for file in group.files for mutant in mutants(source / file)]
        every = [mutant for mutant in made if equivalent(mutant, source) is None]
        wanted = every if options.like is None else [m for m in every if options.like in str(m)]
        share = group.share if options.share is None else options.share
        picked = wanted if options.like else _in_turn(wanted, share, random.Random(f"{options.seed}/{name}"))
        print(f"{name}: {len(picked)} of {len(every)} mutants; {len(made) - len(every)} are no bugs by rule")
        for mutant in picked:
            yield name, mutant


def _in_turn(every: Sequence[Mutant], count: int, rng: random.Random) -> list[Mutant]:
    """Return so many mutants, one of each kind after another, so that rare kinds are among them."""
    by_kind: dict[str, list[Mutant]] = {}
    for mutant in rng.sample(every, len(every)):
        by_kind.setdefault(mutant.kind, []).append(mutant)
    picked: list[Mutant] = []
    while by_kind and len(picked) < count:
        for kind in list(by_kind):
            picked.append(by_kind[kind].pop())
            if not by_kind[kind]:
                del by_kind[kind]
    return picked[:count]


class Bench:
    """Runs trials on copies of the tree, each with one edit or none."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def judge(self, name: str, mutant: Mutant) -> Judged:
        """Run the trials of a group until one notices the mutant."""
        started = time.monotonic()
        source = self._tree / "src"
        with tempfile.TemporaryDirectory(prefix="mutant-", dir=self._tree.parent) as folder:
            # copytree keeps the times by which Python knows its compiled files again.
            shutil.copytree(source / "isthmus", Path(folder) / "isthmus")
            edited = Path(folder) / mutant.path.relative_to(source)
            edited.write_text(mutant.text())
            for compiled in (edited.parent / "__pycache__").glob(f"{edited.stem}.*.pyc"):
                compiled.unlink()
            by = next((trial for trial in GROUPS[name].trials if self._code(name, trial, folder) != 0), None)
        return Judged(name, mutant, by, time.monotonic() - started)

    def control(self, name_and_trial: tuple[str, Trial]) -> str:
        """Run a trial without any mutant; return its name and exit code if it fails."""
        name, trial = name_and_trial
        code = self._code(name, trial, str(self._tree / "src"))
        return f"{name}: {_named(trial)} (exit {code})" if code != 0 else ""

    def _code(self, name: str, trial: Trial, package: str) -> int:
        """Run a trial; return its exit code, below 0 for one that ran out of time."""
        path = f"{package}{os.pathsep}{self._tree}"
        env = {**os.environ, **_server_of(GROUPS[name]), "PYTHONPATH": path, **_SAME_EACH_TIME}
        try:
            done = subprocess.run(
                [sys.executable, *trial],
                cwd=self._tree,
                env=env,
                capture_output=True,
                check=False,
                preexec_fn=_bounded,
                timeout=WALL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return -signal.SIGALRM
        return done.returncode


def _server_of(group: Group) -> dict[str, str]:
    return {} if group.server is None else {group.server[0]: os.environ[group.server[1]]}


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    # Killed by a signal that Python does not turn into a trace.
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)


def _doubtful(judged: Sequence[Judged]) -> list[tuple[str, Trial]]:
    """Return the trials that caught something and that no survivor has passed."""
    passed = {one.group for one in judged if one.by is None}
    caught = dict.fromkeys((one.group, one.by) for one in judged if one.by is not None)
    return [(group, trial) for group, trial in caught if group not in passed]


def _named(trial: Trial) -> str:
    if trial[1] == "tests.differential":
        return f"differential, seed {trial[trial.index('--seed') + 1]}"
    return " ".join(argument for argument in trial[2:] if argument.startswith("tests/") or " " in argument)


def _line(one: Judged) -> str:
    word = "SURVIVED" if one.by is None else "caught"
    by = "" if one.by is None else f" by {_named(one.by)}"
    return f"{word:<9}{one.group}: {_shown(one.mutant)}{by} ({one.seconds:.0f} s)"


def _shown(mutant: Mutant) -> str:
    return str(mutant).partition("/src/isthmus/")[2]


def _table(judged: Sequence[Judged]) -> str:
    """Return caught of planted, by group and kind of slip."""
    planted = Counter((one.group, one.mutant.kind) for one in judged)
    caught = Counter((one.group, one.mutant.kind) for one in judged if one.by is not None)
    groups, kinds = (sorted({pair[at] for pair in planted}) for at in (0, 1))
    rows = [["", *kinds]]
    for group in groups:
        cells = (f"{caught[group, kind]}/{planted[group, kind]}" for kind in kinds)
        rows.append([group, *("-" if cell == "0/0" else cell for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plants bugs by rule.")
    parser.add_argument("--group", action="append", choices=GROUPS, help="only these; may be repeated")
    parser.add_argument("--share", type=int, help="how many mutants of each group")
    parser.add_argument("--like", help="all mutants that are shown with this text: sqlite/compile.py:84")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
