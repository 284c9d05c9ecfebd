"""The engine for regular expressions: its meaning is `re.search`, its time is linear in the text."""

from __future__ import annotations

import re
import threading
import time
import unicodedata

import pytest

from isthmus._query import regex, unicode_tables
from isthmus._query.find import StoppedError, stoppable
from isthmus._query.regex import charset, machine


@pytest.mark.parametrize("name", ["digit", "space", "word"])
def test_the_shipped_classes_are_the_interpreters(name: str) -> None:
    """But for characters that the interpreter's Unicode does not know yet."""
    if unicodedata.unidata_version > unicode_tables.UNICODE_VERSION:
        pytest.fail("write the tables again with this Python: docs/tools/unicode_tables.py")
    test = re.compile({"digit": r"\d", "space": r"\s", "word": r"\w"}[name]).match
    ranges = charset.character_class(name, ascii=False)  # type: ignore[arg-type]

    for number in range(0x110000):
        if not 0xD800 <= number <= 0xDFFF and unicodedata.category(chr(number)) != "Cn":
            assert charset.contains(ranges, number) == bool(test(chr(number))), hex(number)


def test_the_shipped_cases_are_the_interpreters() -> None:
    """A single letter under `(?i)`, where CPython keeps to its documentation."""
    codes, groups = charset._cases()

    for code, group in zip(codes, groups, strict=True):
        test = re.compile(re.escape(chr(code)), re.IGNORECASE).fullmatch
        assert code in group
        assert all(test(chr(other)) for other in group if unicodedata.category(chr(other)) != "Cn"), hex(code)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("(?i)[^k]", "\u212a", False),
        ("(?ai)k", "\u212a", False),
        (r"(?a)\w", "é", False),
        (r"\bé\b", "a é b", True),
        (r"(?a)\bé", " é", False),
        (r"\B", "", False),
        ("a$", "a\n\n", False),
        ("(?m)a$", "a\n\n", True),
        ("(?m)^$", "a\n", True),
        ("(?s).$", "a\n", True),
        ("a{0}b", "b", True),
        ("(?:^a|b){2}c", "abc", True),
        ("(?:)*a", "ba", True),
        ("[^\\d\\D]", "a", False),
        ("(?!)|a", "a", True),
        ("^a|b", "cb", True),
        (r"\Ab", "ab", False),
        (r"\Aa*$", "a" * 5_000 + "\n", True),
        ("(?:^a)*b", "cb", True),
        ("(?x) a b # c", "ab", True),
        ("a.c", "a\ud800c", True),
    ],
)
def test_corners(pattern: str, text: str, found: bool) -> None:
    """Each as `re` has it."""
    assert regex.compile_regex(pattern).search(text) is found
    assert (re.search(pattern, text) is not None) is found


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+$", "a" * 100_000 + "!"),
        ("(?:a?){500}a{500}b", "ab" + "a" * 2_000),
        ("(?:.*a){20}b", "a" * 100_000 + "c\nb"),
        ("(?:a|b)*a(?:a|b){30}c", "abbabaabab" * 1_000 + "-c"),
        (r"(?:\w{1,100}){1,10}!", "é" * 1_000 + "-!"),
        ("a.{1000}b", "ab" * 2_000 + "c"),
    ],
)
def test_time_is_linear(pattern: str, text: str) -> None:
    """A few steps for each state and character, at most; a backtracking engine would never end."""
    compiled = regex.compile_regex(pattern)

    started = time.process_time()
    compiled.search(text)

    assert time.process_time() - started < 0.5 + 2e-6 * compiled.size * len(text)


def test_what_is_kept_of_a_pattern_is_bounded() -> None:
    """However many sets of states and characters its texts need."""
    compiled = regex.compile_regex("(?:[^x]|x)*x(?:[^x]|y){12}z")
    compiled.search("zx")
    made = compiled._machine
    assert made is not None

    for start in range(0x100, 0x10000, 0x800):
        compiled.search(
            "".join(chr(n) + "xz" for n in range(start, start + 0x800) if not 0xD800 <= n < 0xE000)
        )

    assert len(made._sets) + sum(len(known) for known in made._sets.values()) <= made._most_kept + 2


def test_a_pattern_is_used_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what is kept is forgotten all the time."""
    monkeypatch.setattr(machine, "_KEPT", 20)
    monkeypatch.setattr(machine, "_KEPT_PER_STATE", 0)
    compiled = regex.Pattern(*regex.parse(r"(?:a|b)*a(?:a|b){5}c|\bword\b"))
    texts = [("ab" * n + "abbaabc", True) if n % 2 else ("é" * n + "wordy", False) for n in range(40)]
    wrong: list[str] = []

    def search() -> None:
        for _ in range(20):
            wrong.extend(text for text, found in texts if compiled.search(text) is not found)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


def test_a_long_search_can_be_ended() -> None:
    """It asks every few thousand characters."""
    asked = []

    def proceed() -> bool:
        asked.append(True)
        return len(asked) < 3

    with stoppable(proceed), pytest.raises(StoppedError):
        regex.compile_regex("[ab]+c$").search("ab" * 1_000_000 + "cc!")

    assert len(asked) == 3


def test_the_cache_of_patterns_is_bounded() -> None:
    """By the size of the programs, not by their number."""
    patterns = regex._Patterns()

    for number in range(300):
        patterns.get(f"x{number}[a-z]{{1,900}}")

    assert len(patterns._known) < 100
    assert patterns._total <= patterns._MOST


def test_a_pattern_that_is_refused_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own compiler takes seconds for these sets, as it writes out each without case."""

    def refuse(*_: object) -> None:
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr("re._compiler.compile", refuse)
        compiled = regex.compile_regex("(?i)(?=x)" + "[\u0100-\uffff]" * 1_900)
        with pytest.raises(ValueError):
            re.compile("[a-z]x")
    assert compiled.nonlinear_part == "look-around"


@pytest.mark.parametrize("pattern", ["(?<=a*)b", "(?<!a|bc)d", "(?:x(?=y)(?<=a{1,2}))+"])
def test_a_look_behind_of_no_fixed_width_is_no_pattern(pattern: str) -> None:
    """As Python has it, although it is not compiled."""
    with pytest.raises(re.error):
        re.compile(pattern)
    with pytest.raises(regex.PatternError, match="fixed-width"):
        regex.compile_regex(pattern)
    assert regex.compile_regex("(?<=ab|cd)e").search("xabe")


def test_the_patterns_of_a_query_are_read_once() -> None:
    """Thousands of small ones too; what their searches make is bounded apart from them."""
    patterns = [f"{number}b+c" for number in range(2_000)]
    made = [regex.compile_regex(pattern) for pattern in patterns]
    for number, compiled in enumerate(made):
        compiled.search(f"{number}bb")

    assert [regex.compile_regex(pattern) for pattern in patterns] == made
    machines = [compiled for compiled in made if isinstance(compiled, regex.Pattern) and compiled._machine]
    assert 100 < len(machines) <= 200
