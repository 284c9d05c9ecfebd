"""The planted cases: each is a function that plants a fault in a copy, and what `.ci/run` must make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.ci.project import Project

_TESTS = "tests/planted/test_planted.py"
_MODULE = '''"""Planted by tests/ci."""

from pathlib import Path

import pytest

from isthmus._core.registry import BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_that_passes(backend: str) -> None:
    """Passes in every case."""
    assert backend
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
_TWO_FLAKY_CASES = '''

@pytest.mark.breadth(4)
@pytest.mark.parametrize("number", range(8))
def test_broad(number: int) -> None:
    """Fails at first, in each of the cases that run."""
    mark = Path(__file__).with_name(f"ran-once-{number}")
    repeated = mark.exists()
    mark.touch()
    assert repeated, "planted flake"
'''
_FAILS_AFTER_ANOTHER = '''

_LEFT: list[int] = []


def test_that_leaves_something() -> None:
    """Leaves what the next test does not expect."""
    _LEFT.append(1)


def test_after_it() -> None:
    """Would pass alone."""
    assert not _LEFT, "planted failure"
'''
_HANGS = '''

@pytest.mark.timeout(2)
def test_that_hangs() -> None:
    """Waits for nothing."""
    import threading

    threading.Event().wait()
'''
_WARNS = '''

def test_that_warns() -> None:
    """Warns, which is an error."""
    import warnings

    warnings.warn("planted warning", stacklevel=1)
'''
_LEAKS = '''

def test_that_leaks() -> None:
    """Leaves a file open."""
    Path(__file__).open()
'''
_ENDS_THE_RUN = '''

def test_that_ends_the_run() -> None:
    """Ends pytest as if all were well."""
    pytest.exit("planted end", returncode=0)
'''
_NOT_MARKED = '''

async def test_that_is_not_awaited() -> None:
    """Lacks the mark that has it awaited."""
    raise AssertionError
'''
_ENDS_A_SERVER = '''

def test_that_ends_a_server(running_server) -> None:
    """The session's server ends, as by a crash."""
    from tests.servers import Session

    running_server("moto")
    session = Session.current()
    assert session is not None
    server = session.find("moto")
    assert server is not None
    server.kill()
'''
_OUTSIDE = '''"""Planted by tests/ci."""


class PlantedChecks:
    """Not named as pytest expects it of tests."""

    def test_outside(self) -> None:
        """Is run by nobody."""
        raise AssertionError
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
    checks: bool
    """Whether lint and types are run too; elsewhere they have nothing to see, and take most of the time."""

    @property
    def name(self) -> str:
        """The case in words."""
        return self.plant.__name__.replace("_", " ")


CASES: list[Case] = []


def _case(
    *says: str, green: bool = False, never_says: tuple[str, ...] = (), checks: bool = False
) -> Callable[[Callable[[Project], None]], Callable[[Project], None]]:
    def register(plant: Callable[[Project], None]) -> Callable[[Project], None]:
        CASES.append(Case(plant, green, says, never_says, checks))
        return plant

    return register


def _plant_tests(project: Project, *tests: str) -> None:
    project.write("tests/planted/__init__.py", '"""Planted by tests/ci."""\n')
    project.write(_TESTS, _MODULE + "".join(tests))


@_case(
    "planted flake",
    _REPEATED,
    f"flaky: {_TESTS}::test_flaky",
    "passed on memory: 1\n",
    ".ci/run: GREEN: 1 flaky",
    green=True,
    never_says=("not allowed",),
    checks=True,
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


@_case("F401", "json", ".ci/run: RED: lint or types failed", never_says=(_TESTS_STARTED,), checks=True)
def a_lint_error(project: Project) -> None:
    """An unused import is found by ruff."""
    _plant_tests(project, _UNUSED_IMPORT)


@_case(
    "1 file would be reformatted",
    _SOURCE,
    ".ci/run: RED: lint or types failed",
    never_says=(_TESTS_STARTED,),
    checks=True,
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
    checks=True,
)
def a_type_error(project: Project) -> None:
    """A text where a number is declared is found by mypy."""
    _plant_tests(project)
    project.append(_SOURCE, _WRONG_TYPE)


@_case(
    "isthmus.errors is not allowed to import isthmus.layers",
    ".ci/run: RED: lint or types failed",
    never_says=(_TESTS_STARTED,),
    checks=True,
)
def an_import_against_the_contracts(project: Project) -> None:
    """An import from a layer above is found by import-linter."""
    _plant_tests(project)
    project.append(_SOURCE, _IMPORT_FROM_ABOVE)


@_case(
    "The following modules are not listed as layers",
    "_planted",
    ".ci/run: RED: lint or types failed",
    never_says=(_TESTS_STARTED,),
    checks=True,
)
def a_module_without_a_place_in_the_contracts(project: Project) -> None:
    """It could import whatever it likes."""
    _plant_tests(project)
    project.write("src/isthmus/_planted.py", '"""Planted by tests/ci."""\n')


@_case(
    "FAIL long-modules: 1 ",
    ".ci/run: RED: lint or types failed",
    never_says=(_TESTS_STARTED,),
    checks=True,
)
def a_module_that_is_too_long(project: Project) -> None:
    """It is found by `make house`, as are growth without a decision and names that were given up."""
    _plant_tests(project)
    project.append(_SOURCE, "\n\n" + "# planted\n" * 400)


@_case(
    _REPEATED,
    f"flaky: {_TESTS}::test_broad[",
    ".ci/run: GREEN: 2 flaky",
    green=True,
    never_says=("not allowed",),
    checks=True,
)
def two_flaky_cases_of_a_broad_test(project: Project) -> None:
    """Both are repeated, although a run by itself would leave one of them out."""
    _plant_tests(project, _TWO_FLAKY_CASES)


@_case("planted failure", _REPEATED, ".ci/run: RED: a test failed twice", never_says=(_NAMED_FLAKY,))
def a_failure_that_another_test_brings_about(project: Project) -> None:
    """Repeated alone the test would pass; so the one before it is repeated too."""
    project.env["WORKERS"] = "0"
    _plant_tests(project, _FAILS_AFTER_ANOTHER)


@_case("Timeout (>2.0s)", ".ci/run: RED: ", never_says=(_NAMED_FLAKY,))
def a_test_that_hangs(project: Project) -> None:
    """It is stopped, and fails."""
    _plant_tests(project, _HANGS)


@_case("ResourceWarning", ".ci/run: RED: ", never_says=(_NAMED_FLAKY,))
def a_file_that_is_left_open(project: Project) -> None:
    """A ResourceWarning fails the test."""
    _plant_tests(project, _LEAKS)


@_case(_NOT_FAILED_TESTS_ALONE, never_says=(_REPEATED,))
def a_test_that_ends_the_run(project: Project) -> None:
    """The worker ends in order, though tests are left."""
    _plant_tests(project, _ENDS_THE_RUN)


@_case("test_that_is_not_awaited", ".ci/run: RED: ", never_says=(_NAMED_FLAKY,))
def an_asynchronous_test_without_its_mark(project: Project) -> None:
    """It would pass without having been awaited."""
    _plant_tests(project, _NOT_MARKED)


@_case("not allowed: moto: the server ended during the run", _NOT_FAILED_TESTS_ALONE, never_says=(_REPEATED,))
def a_server_that_ends_half_way(project: Project) -> None:
    """Tests that failed for it would pass with another server, and the reason would never be known."""
    _plant_tests(project, _FLAKY, _ENDS_A_SERVER)


@_case("No module named 'planted_module'", ".ci/run: RED: ", never_says=(_REPEATED,))
def a_conftest_that_cannot_be_imported(project: Project) -> None:
    """The tests of its folder are not run."""
    _plant_tests(project)
    project.write("tests/planted/conftest.py", _BROKEN_MODULE)


@_case(
    "not allowed: tests/planted/outside.py::PlantedChecks::test_outside: is not collected",
    _NOT_FAILED_TESTS_ALONE,
    never_says=(_REPEATED,),
)
def a_test_that_is_not_collected(project: Project) -> None:
    """Neither the file nor the class has a name that pytest looks for."""
    _plant_tests(project)
    project.write("tests/planted/outside.py", _OUTSIDE)


@_case("not allowed: files: no test of this backend passed", _NOT_FAILED_TESTS_ALONE, never_says=(_REPEATED,))
def a_backend_without_tests(project: Project) -> None:
    """A list of parameters lost an entry."""
    _plant_tests(project)
    project.write(_TESTS, _MODULE.replace('"backend", BACKENDS', '"backend", BACKENDS[:-1]'))


@_case("not allowed: isthmus: imported from ", _NOT_FAILED_TESTS_ALONE, never_says=(_REPEATED,))
def a_package_of_another_checkout(project: Project) -> None:
    """A checkout that was copied with its environment has the first one's package installed."""
    _plant_tests(project)
    del project.env["PYTHONPATH"]


@_case("planted warning", ".ci/run: RED: a test failed twice", never_says=(_NAMED_FLAKY,))
def a_pytest_ini(project: Project) -> None:
    """It comes before pyproject.toml, and knows nothing of warnings that are errors."""
    _plant_tests(project, _WARNS)
    project.write("pytest.ini", "[pytest]\n")


@_case("F401", "json", ".ci/run: RED: lint or types failed", never_says=(_TESTS_STARTED,), checks=True)
def an_environment_that_ignores_errors(project: Project) -> None:
    """Make would go on after an error; ruff would read settings that exclude everything."""
    project.env["GNUMAKEFLAGS"] = "--ignore-errors"
    project.write("ruff.toml", 'exclude = ["*"]\n')
    _plant_tests(project, _UNUSED_IMPORT)


@_case(
    "error: Incompatible types in assignment",
    ".ci/run: RED: lint or types failed",
    never_says=(_TESTS_STARTED,),
    checks=True,
)
def a_mypy_ini(project: Project) -> None:
    """It comes before pyproject.toml, and turns errors off."""
    project.write("mypy.ini", "[mypy]\nfiles = src/isthmus\nignore_errors = True\n")
    _plant_tests(project)
    project.append(_SOURCE, _WRONG_TYPE)
