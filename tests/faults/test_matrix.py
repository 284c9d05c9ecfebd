"""The fault matrix: a short slice of it here, all of it by `make faults`."""

from __future__ import annotations

import asyncio
import os
from random import Random

import pytest

from isthmus.testing.proxy import Fault
from tests.faults.cells import Bench
from tests.faults.matrix import MODES, expected, wrong
from tests.faults.run_matrix import possible
from tests.faults.targets import TARGETS
from tests.faults.verbs import VERBS
from tests.seeds import drawn

SLICE = int(os.environ.get("ISTHMUS_FAULT_CELLS", "24"))


@pytest.mark.parametrize("backend", TARGETS)
def test_each_verb_under_each_fault_comes_to_what_the_table_says(backend: str) -> None:
    """Some cells: the word is the table's, it is true, and the fault has struck."""
    seed = drawn()
    cells = [(mode, fault, verb) for mode in MODES for fault in Fault for verb in VERBS.values()]

    async def run() -> list[str]:
        failures = []
        with TARGETS[backend].proxy() as proxy:
            async with Bench(TARGETS[backend], proxy) as bench:
                for mode, fault, verb in Random(seed).sample(cells, SLICE):
                    if not possible(bench, verb):
                        continue
                    outcome = await bench.cell(verb, fault, lasting=mode == "lasting")
                    problem = wrong(outcome, expected(backend, mode, verb.name, fault))
                    if problem:
                        failures.append(f"{mode} / {verb.name} / {fault.name}: {problem}")
        return failures

    assert asyncio.run(run()) == []


@pytest.mark.parametrize("backend", TARGETS)
def test_the_table_has_every_cell(backend: str) -> None:
    """No verb and no fault is left out."""
    missing = [
        (mode, verb.name, fault.name)
        for mode in MODES
        for verb in VERBS.values()
        for fault in Fault
        if not expected(backend, mode, verb.name, fault)
        and not (verb.kind == "transaction" and backend != "postgres")
        and not (verb.kind == "changes" and backend not in ("postgres", "s3-log"))
    ]

    assert missing == []
