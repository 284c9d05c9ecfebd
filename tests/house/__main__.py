"""Print each measure of `make house` with its bound and its offenders; exit 1 if a bound is broken.

python -m tests.house                                       the whole repository
python -m tests.house --under src/isthmus/backends/postgres what lies in one folder (or file)
python -m tests.house --list participles                    all offenders of one rule
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.house import cycles, names, prose, sizes
from tests.house.definitions import definitions
from tests.house.source import PACKAGE, Module, Offender, Page, Repository

ROOT = Path(__file__).parents[2]
BASELINE = Path(__file__).parent / "baseline.json"
SHOWN = 8


@dataclass(frozen=True)
class Measure:
    """One rule, what it found, and how much of it is allowed."""

    rule: str
    title: str
    offenders: list[Offender]
    at_most: int | None = 0
    """None: shown only."""
    number: int | None = None
    """Where it is not that of the offenders."""

    @property
    def value(self) -> int:
        """What is compared with the bound."""
        return len(self.offenders) if self.number is None else self.number

    @property
    def ok(self) -> bool:
        """Whether the bound is kept."""
        return self.at_most is None or self.value <= self.at_most


def measures(repository: Repository, under: str = "") -> list[Measure]:
    """Return all measures; of offenders those in a folder or file, all for `""`."""

    def here(offenders: Iterable[Offender]) -> list[Offender]:
        return sorted(one for one in offenders if is_under(one.path, under))

    modules = repository.modules
    edges = cycles.imports(modules)
    defined = list(chain.from_iterable(definitions(module) for module in modules))
    allowed = names.read_toml("allowed.toml")
    old = names.read_toml("old_names.toml")
    roles = [names.Role(entry["name"], entry["reason"], entry.get("base", "")) for entry in allowed["role"]]
    bound, reported = prose.dialect(prose.DIALECT.read_text(encoding="utf-8"))
    readable: list[Module | Page] = [*modules, *repository.pages]
    return [
        Measure(
            "long-modules", f"modules over {sizes.MODULE_LINES} lines", here(sizes.long_modules(modules))
        ),
        Measure(
            "long-functions",
            f"functions over {sizes.FUNCTION_LINES} lines, def to end without the docstring",
            here(sizes.long_functions(modules)),
        ),
        _module_cycles(cycles.module_cycles(modules, edges), under),
        Measure(
            "package-cycles",
            "import cycles between folders that are siblings",
            here(cycles.package_cycles(modules, edges)),
            at_most=None,
        ),
        _classes(here(names.ambiguous_classes(defined, roles))),
        *_participles(here(names.participles(defined)), allowed.get("participle", [])),
        Measure(
            "old-names",
            "names that were to go and still stand",
            here(names.standing_names(defined, names.old_names_from(old), old.get("alias", []))),
        ),
        Measure(
            "aliases",
            "old names that are kept for users, each with a reason in old_names.toml",
            here(names.kept_aliases(defined, old.get("alias", []))),
            at_most=None,
        ),
        Measure(
            "parameters",
            f"parameters named {', '.join(sorted(names.VAGUE))}",
            here(names.vague_parameters(defined, allowed.get("parameter", []))),
        ),
        Measure(
            "dialect",
            "words of the old dialect in comments, docstrings, strings and pages",
            here(prose.dialect_words(readable, bound)),
            at_most=19,
        ),
        Measure(
            "dialect-reported",
            "words that often belong to it",
            here(prose.dialect_words(readable, reported)),
            at_most=None,
        ),
        Measure(
            "documents",
            "references to documents that are not in the repository",
            here(prose.missing_documents(repository)),
        ),
        Measure(
            "sections",
            "references to sections that docs/explanation/meaning.md does not have",
            here(prose.missing_sections(repository)),
        ),
        _code_lines(modules, under),
    ]


def is_under(path: str, folder: str) -> bool:
    """Return whether a path is a folder or file, or in it."""
    folder = folder.strip("/")
    return not folder or path == folder or path.startswith(folder + "/")


def _module_cycles(all_cycles: Iterable[list[Offender]], under: str) -> Measure:
    found = [cycle for cycle in all_cycles if any(is_under(one.path, under) for one in cycle)]
    return Measure(
        "cycles",
        "groups of modules that import each other",
        [one for cycle in found for one in cycle],
        number=len(found),
    )


def _classes(found: list[Offender]) -> Measure:
    """Count names, not the places where each is defined."""
    by_name = sorted(found, key=lambda one: (one.text, one))
    number = len({one.text.split(",", maxsplit=1)[0] for one in found})
    return Measure("classes", "class names with two meanings", by_name, number=number)


def _participles(found: list[Offender], entries: list[dict[str, str]]) -> list[Measure]:
    reasons = {entry["name"]: entry["reason"] for entry in entries}
    unexplained = [one for one in found if one.text not in reasons]
    return [
        Measure("participles", "functions named by a participle or adjective, without a reason", unexplained),
        Measure(
            "participles-allowed",
            "the same, each with a reason in allowed.toml",
            [
                Offender(one.path, one.line, f"{one.text}: {reasons[one.text]}")
                for one in found
                if one.text in reasons
            ],
            at_most=9,
        ),
    ]


def _code_lines(modules: list[Module], under: str) -> Measure:
    """Compare lines of code with the baseline; bounded for the whole package, shown for a folder.

    The bound is a number that somebody has to edit: the code does not grow without a decision.
    """
    now = sizes.code_lines(modules)
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    before = baseline["folders"]
    folder = under.strip("/") or PACKAGE
    number = now.get(folder, 0)
    if not under:
        title = f"lines of code in {folder}, {before[folder]} at {baseline['commit']}"
        at_most = baseline["at_most"]
    else:
        was = f"{before[folder]} at {baseline['commit']}" if folder in before else "no such folder before"
        title, at_most = f"lines of code in {folder}, {was}", None
    rows = [one for one in sizes.compared(now, before) if is_under(one.path, folder)]
    return Measure("code-lines", title, rows, at_most=at_most, number=number)


def show(measure: Measure, *, listed: bool, brief: bool) -> None:
    """Print one measure: its line, and its offenders."""
    bound = "shown only" if measure.at_most is None else f"at most {measure.at_most}"
    mark = "    " if measure.at_most is None else "ok  " if measure.ok else "FAIL"
    print(f"{mark} {measure.rule}: {measure.value} {measure.title} ({bound})")
    if brief or (not listed and (measure.at_most is None or measure.rule == "code-lines")):
        return
    shown = measure.offenders if listed else measure.offenders[:SHOWN]
    for one in shown:
        print(f"       {one}")
    if len(shown) < len(measure.offenders):
        print(f"       … and {len(measure.offenders) - len(shown)} more: --list {measure.rule}")


def main(arguments: list[str]) -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__, formatter_class=_Raw)
    parser.add_argument("--under", default="", metavar="PATH", help="only what lies in this folder or file")
    parser.add_argument("--list", default="", metavar="RULE", help="all offenders of one rule; `all` for all")
    parser.add_argument("--brief", action="store_true", help="one line for each measure, no offenders")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    options = parser.parse_args(arguments)

    under = options.under.rstrip("/")
    if not (options.root / under).exists():
        parser.error(f"{under} is not in {options.root}")
    found = measures(Repository(options.root), under)
    rules = [one.rule for one in found]
    if options.list and options.list not in {*rules, "all"}:
        parser.error(f"no rule {options.list!r}; there are: {', '.join(rules)}")
    if options.list not in {"", "all"}:
        found = [one for one in found if one.rule == options.list]
    for one in found:
        show(one, listed=bool(options.list), brief=options.brief)
    if under:
        print("the bounds are those of the whole repository")
    broken = [one.rule for one in found if not one.ok]
    if broken:
        print(f"broken: {', '.join(broken)}")
    return 1 if broken else 0


_Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
