"""The Makefile's defaults: each is set once, and is what the list of targets says that it is."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter

import pytest

from tests.ci.project import ROOT

_LINES = (ROOT / "Makefile").read_text().splitlines()
_ASSIGNED = re.compile(r"^(?:(?P<target>[a-z0-9-]+): )?(?P<name>[A-Z][A-Za-z0-9_-]*) [?:]?= ?(?P<value>.*)$")
_DOCUMENTED = re.compile(r"^(?P<target>[a-z0-9-]+):.*## .*?: (?P<defaults>[A-Z]+=.*)$")
# The defaults that the list of targets states: the target, the variable, its value ("" if it is empty).
_DEFAULTS = [
    (found["target"], *default.split("="))
    for found in filter(None, map(_DOCUMENTED.match, _LINES))
    for default in re.findall(r"\b[A-Z]+=\w*", found["defaults"])
]


def _commands(target: str, *variables: str, **environment: str) -> str:
    """Return what make would run for a target."""
    inherited = {
        name: text for name, text in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    for _, name, _ in _DEFAULTS:
        inherited.pop(name, None)
    return subprocess.run(
        ["make", "--no-print-directory", "-n", target, *variables],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_each_variable_is_set_in_one_place() -> None:
    """Of two defaults of one variable the first would win for every command."""
    found = [match for match in map(_ASSIGNED.match, _LINES) if match]

    times = Counter((match["target"], match["name"]) for match in found)

    everywhere = {name for target, name in times if target is None}
    assert [name for (_, name), count in times.items() if count > 1] == []
    assert [(target, name) for target, name in times if target is not None and name in everywhere] == []


def test_the_list_of_targets_states_defaults() -> None:
    """Those whose meaning or length a caller would want to change."""
    stated = {f"{target} {name}" for target, name, _ in _DEFAULTS}

    assert stated >= {
        "torture MINUTES",
        "load MINUTES",
        "crash-s3 KILLS",
        "copy-torture KILLS",
        "differential N",
    }


@pytest.mark.parametrize(("target", "name", "value"), _DEFAULTS)
def test_a_documented_default_is_what_the_target_uses(target: str, name: str, value: str) -> None:
    """Stating it changes nothing; another value does, on the command line as in the environment."""
    other = "postgres" if name in {"BACKEND", "SUITE"} else "77"

    by_default = _commands(target)
    changed = _commands(target, f"{name}={other}")

    assert _commands(target, f"{name}={value}") == by_default
    assert changed != by_default
    assert _commands(target, **{name: other}) == changed
