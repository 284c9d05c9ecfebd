"""The programs for type checkers, run: right ones work, and what a checker lets through is refused."""

import pytest

from isthmus import IsthmusError
from tests.typing.programs import RIGHT, WRONG, Program, run_program


@pytest.mark.asyncio
@pytest.mark.parametrize("program", RIGHT, ids=lambda program: program.name)
async def test_a_right_program_runs(program: Program) -> None:
    """What all checkers pass is no error at run time either."""
    await run_program(program)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "program", [program for program in WRONG if program.refused], ids=lambda program: program.name
)
async def test_a_wrong_program_that_a_checker_passes_is_refused(program: Program) -> None:
    """By one of our errors; by Python itself where the form is not ours to see (`and` of predicates)."""
    with pytest.raises((IsthmusError, TypeError)):
        await run_program(program)


def test_there_are_enough_programs() -> None:
    """At least 60 of each; 45 wrong ones are red in mypy and 35 in all, the others are refused."""
    assert len(RIGHT) >= 60
    assert len(WRONG) >= 60
    assert sum("mypy" in program.red for program in WRONG) >= 45
    assert sum(len(program.red) == 3 for program in WRONG) >= 35
    assert all(len(program.red) == 3 or program.refused for program in WRONG)
