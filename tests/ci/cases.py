"""The planted cases: each is a function that plants a fault in a copy, and what `.ci/run` must make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.ci.project import Project

_TESTS = "tests/planted/test_planted.py"
_MODULE = '''"""Planted by tests/ci."""

from pathlib import Path

import pytest


@pytest.mark.backend("memory")
def test_that_passes() -> None:
    """Passes in every case."""
    assert Path(__file__).exists()
'''

# The file that it leaves lets it pass the second time.
_FLAKY = '''

def test_flaky() -> None:
    """Fails at first."""
    mark = Path(__file__).with_name("ran-once")
    repeated = mark.exists()
    mark.touch()
    assert repeated, "planted flake"
'''
_RED = '''

def test_red() -> None:
    """Fails."""
    raise AssertionError("planted failure")
'''
_SKIPPED = '''

@pytest.mark.skip(reason="planted skip")
def test_skipped() -> None:
    """Is skipped."""
'''
_SKIPPED_WHEN_REPEATED = '''

def test_flaky() -> None:
    """Fails at first and is skipped when repeated."""
    mark = Path(__file__).with_name("ran-once")
    if mark.exists():
        pytest.skip("planted skip")
    mark.touch()
    raise AssertionError("planted flake")
'''
_LOOSE_XFAIL = '''

@pytest.mark.xfail(strict=False, reason="planted xfail")
def test_loose() -> None:
    """Fails, which would go unnoticed."""
    raise AssertionError
'''
_CRASH = '''

def test_crash() -> None:
    """Ends the process."""
    import os

    os._exit(9)
'''
_ON_MOTO = '''

def test_on_a_server(running_server) -> None:
    """Asks for a server."""
    running_server("moto")
'''
_BROKEN_MODULE = '''"""Planted by tests/ci."""

import planted_module  # noqa: F401
'''
_UNUSED_IMPORT = '''

def test_lint() -> None:
    """Imports in vain."""
    import json
'''
_UNFORMATTED = """

_PLANTED = ( 1,2 )
"""
_WRONG_TYPE = """

_PLANTED: int = "planted"
"""
_IMPORT_FROM_ABOVE = '''

def _planted() -> object:
    """Import from a layer above."""
    from isthmus import layers

    return layers
'''
# Replaces a method of moto's server, which is never taken from a container.
_BROKEN_MOTO = '''

def _planted(server: object = None) -> None:
    """Fail as planted by tests/ci."""
    from tests.servers._places import ProvisionError
    from tests.servers._process import StartError

    raise {{"start": StartError, "provision": ProvisionError}}["{method}"]("planted: it cannot {method}")


MotoServer.{method} = _planted
'''
# Of a module that imports nothing of the package and that any other may import.
_SOURCE = "src/isthmus/errors.py"
_NAMED_FLAKY = "\nflaky: "
_REPEATED = "failed at first, so repeated"
_TESTS_STARTED = "test session starts"
_NOT_FAILED_TESTS_ALONE = "make test failed, and not by a few failed tests alone"


@dataclass(frozen=True, slots=True)
class Case:
    """A planted fault: `.ci/run` must end `green` or not, print all of `says` and none of `never_says`."""

    plant: Callable[[Project], None]
    green: bool
    says: tuple[str, ...]
    never_says: tuple[str, ...]

    @property
    def name(self) -> str:
        """The case in words."""
        return self.plant.__name__.replace("_", " ")


CASES: list[Case] = []


def _case(
    *says: str, green: bool = False, never_says: tuple[str, ...] = ()
) -> Callable[[Callable[[Project], None]], Callable[[Project], None]]:
    def register(plant: Callable[[Project], None]) -> Callable[[Project], None]:
        CASES.append(Case(plant, green, says, never_says))
        return plant

    return register


def _plant_tests(project: Project, *tests: str) -> None:
    project.write("tests/planted/__init__.py", '"""Planted by tests/ci."""\n')
    project.write(_TESTS, _MODULE + "".join(tests))


@_case(
    "planted flake",
    _REPEATED,
    f"flaky: {_TESTS}::test_flaky",
    "passed on memory: 1\npassed on no backend: 1\n",
    ".ci/run: GREEN: 1 flaky",
    green=True,
    never_says=("not allowed",),
)
def one_flaky_test_alone(project: Project) -> None:
    """A test that passes when repeated is named, and the run is green."""
    _plant_tests(project, _FLAKY)


@_case(
    "AssertionError: planted failure",
    _REPEATED,
    ".ci/run: RED: a test failed twice",
    never_says=(_NAMED_FLAKY,),
)
def a_red_test(project: Project) -> None:
    """A test that fails again when repeated is a failure."""
    _plant_tests(project, _RED)


@_case(
    "planted flake",
    f"not allowed: {_TESTS}::test_skipped: Skipped: planted skip",
    _NOT_FAILED_TESTS_ALONE,
    never_says=(_REPEATED, _NAMED_FLAKY),
)
def a_forbidden_skip_beside_a_flaky_test(project: Project) -> None:
    """The repetition of the flaky test, which would pass, must not hide the skip."""
    _plant_tests(project, _FLAKY, _SKIPPED)


@_case(
    _REPEATED,
    f"not allowed: {_TESTS}::test_flaky: Skipped: planted skip",
    ".ci/run: RED: a test failed twice",
    never_says=(_NAMED_FLAKY,),
)
def a_failed_test_that_skips_when_repeated(project: Project) -> None:
    """A skip is no pass, in the repetition neither."""
    _plant_tests(project, _SKIPPED_WHEN_REPEATED)


@_case(
    f"not allowed: {_TESTS}::test_loose: xfail that is not strict: planted xfail",
    _NOT_FAILED_TESTS_ALONE,
    never_says=(_REPEATED,),
)
def an_xfail_that_is_not_strict(project: Project) -> None:
    """It would be green whether the test fails or passes."""
    _plant_tests(project, _LOOSE_XFAIL)


@_case(
    "ModuleNotFoundError: No module named 'planted_module'",
    "not allowed: tests/planted/test_broken.py: cannot be collected",
    _NOT_FAILED_TESTS_ALONE,
    never_says=(_REPEATED,),
)
def a_collection_error(project: Project) -> None:
    """A file of tests that cannot be imported is no failed test."""
    _plant_tests(project, _FLAKY)
    project.write("tests/planted/test_broken.py", _BROKEN_MODULE)


@_case("crashed while running", _NOT_FAILED_TESTS_ALONE, never_says=(_REPEATED,))
def a_crash_of_the_interpreter(project: Project) -> None:
    """A test that ends the process is no failed test."""
    _plant_tests(project, _CRASH)


@_case(
    f"not allowed: {_TESTS}::test_on_a_server: no moto server (planted: it cannot start)",
    _NOT_FAILED_TESTS_ALONE,
    never_says=(_REPEATED,),
)
def a_missing_server(project: Project) -> None:
    """Where a server does not start its tests are neither skipped nor repeated."""
    project.append("tests/servers/_kinds.py", _BROKEN_MOTO.format(method="start"))
    _plant_tests(project, _ON_MOTO)


@_case(
    "moto: not available: planted: it cannot provision",
    _NOT_FAILED_TESTS_ALONE,
    never_says=(_REPEATED, _TESTS_STARTED, "passed on"),
)
def a_provisioning_failure_with_an_old_pytest_cache(project: Project) -> None:
    """The old cache names a test that failed and would now pass; no test may be run."""
    project.append("tests/servers/_kinds.py", _BROKEN_MOTO.format(method="provision"))
    _plant_tests(project)
    project.write(".pytest_cache/v/cache/lastfailed", f'{{"{_TESTS}::test_that_passes": true}}')


@_case("F401", "json", ".ci/run: RED: lint or types failed", never_says=(_TESTS_STARTED,))
def a_lint_error(project: Project) -> None:
    """An unused import is found by ruff."""
    _plant_tests(project, _UNUSED_IMPORT)


@_case(
    "1 file would be reformatted", _SOURCE, ".ci/run: RED: lint or types failed", never_says=(_TESTS_STARTED,)
)
def a_file_that_is_not_formatted(project: Project) -> None:
    """It is found by ruff's formatter."""
    _plant_tests(project)
    project.append(_SOURCE, _UNFORMATTED)


@_case(
    "error: Incompatible types in assignment",
    _SOURCE,
    ".ci/run: RED: lint or types failed",
    never_says=(_TESTS_STARTED,),
)
def a_type_error(project: Project) -> None:
    """A text where a number is declared is found by mypy."""
    _plant_tests(project)
    project.append(_SOURCE, _WRONG_TYPE)


@_case(
    "isthmus.errors is not allowed to import isthmus.layers",
    ".ci/run: RED: lint or types failed",
    never_says=(_TESTS_STARTED,),
)
def an_import_against_the_contracts(project: Project) -> None:
    """An import from a layer above is found by import-linter."""
    _plant_tests(project)
    project.append(_SOURCE, _IMPORT_FROM_ABOVE)
