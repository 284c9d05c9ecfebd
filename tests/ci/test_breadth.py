"""A run without ISTHMUS_TEST_ALL keeps a share of the cases marked `breadth`, and some of each test."""

from __future__ import annotations

from tests.breadth import left_out

_CASES = [f"tests/test_a.py::test_wide[{n}]" for n in range(10)]


def test_one_case_in_n_stays_and_the_seed_says_which() -> None:
    """Rounded up; another seed keeps others, so that all are run in time."""
    shares = dict.fromkeys(_CASES, 4)

    kept = {seed: shares.keys() - left_out(shares, seed=seed) for seed in map(str, range(40))}

    assert {len(cases) for cases in kept.values()} == {3}
    assert set().union(*kept.values()) == shares.keys()
    assert kept["1"] == shares.keys() - left_out(dict(reversed(shares.items())), seed="1")


def test_no_test_is_left_out_whole() -> None:
    """Nor is a case that is alone on the command line."""
    shares = {
        "tests/test_a.py::test_one[x]": 9,
        "tests/test_b.py::test_one[x]": 9,
        "tests/test_b.py::test_two": 9,
    }

    assert left_out(shares, seed="1") == set()
