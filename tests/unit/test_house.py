"""Each rule of `make house` on small planted sources: what it finds, and what it lets pass."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from textwrap import dedent

import pytest

from tests.house import cycles, names, prose, sizes
from tests.house.__main__ import BASELINE, is_under, main, measures
from tests.house.definitions import Definition, definitions
from tests.house.source import Module, Page, Repository


def module(text: str, path: str = "src/isthmus/planted.py") -> Module:
    """Return a module with a text of its own indentation."""
    return Module(path, dedent(text))


def defined(text: str, path: str = "src/isthmus/planted.py") -> list[Definition]:
    """Return the definitions of a planted module."""
    return definitions(module(text, path))


# Sizes


def test_a_module_is_long_from_its_401st_line() -> None:
    """All lines count, blank ones too."""
    assert list(sizes.long_modules([module("\n" * 400)])) == []

    (found,) = sizes.long_modules([module("\n" * 401)])

    assert found.text == "401 lines"


def test_a_function_is_long_without_its_docstring() -> None:
    """From `def` to the last line; decorators and docstring do not count."""
    body = "\n".join(f"    x = {number}" for number in range(58))
    docstring = '    """One\n\n    of three.\n    """\n'

    assert list(sizes.long_functions([module(f"@cache\ndef f(\n):\n{docstring}{body}")])) == []

    (found,) = sizes.long_functions([module(f"def f(\n):\n{docstring}{body}\n    y = 1")])

    assert (found.line, found.text) == (1, "f: 61 lines")


def test_code_is_neither_comment_nor_docstring_nor_blank() -> None:
    """A string that is a value counts with all its lines; so does code that shares a docstring's line."""
    planted = module(
        '''\
        """Module."""

        import os  # why

        # A comment.
        TEXT = """one
        two"""


        class A: """Shares its line."""


        class B(
            A
        ):
            """Class."""

            x = 1
            """Attribute."""

            def f(self):
                """Docstring
                of two lines.
                """
                return "a value"
        '''
    )

    # import, TEXT twice, class A, class B three times, x, def, return
    assert planted.code_lines == 10
    assert sizes.code_lines([planted]) == {"src/isthmus": 10}


# Cycles


def edges_of(**texts: str) -> tuple[list[Module], cycles.Edges]:
    """Return modules by name (`a__b` is `a/b.py`), and who imports whom."""
    modules = [module(text, f"src/isthmus/{name.replace('__', '/')}.py") for name, text in texts.items()]
    modules.append(module("", "src/isthmus/__init__.py"))
    return modules, cycles.imports(modules)


def test_an_import_inside_a_function_closes_a_cycle() -> None:
    """It only hides the cycle; the shortest one is shown, with its lines."""
    modules, edges = edges_of(
        a="from isthmus import b",
        b="def f():\n    try:\n        from isthmus.c import x\n    except ImportError: ...",
        c="import isthmus.a\nimport os",
    )

    (cycle,) = cycles.module_cycles(modules, edges)

    assert [(one.path, one.line) for one in cycle] == [
        ("src/isthmus/a.py", 1),
        ("src/isthmus/b.py", 3),
        ("src/isthmus/c.py", 1),
    ]


def test_an_import_for_types_closes_none() -> None:
    """It does not run; what stands under its `else` does."""
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from isthmus.a import x\n"

    modules, edges = edges_of(a="import isthmus.b", b=text)
    assert list(cycles.module_cycles(modules, edges)) == []

    modules, edges = edges_of(a="import isthmus.b", b=text + "else:\n    from isthmus.a import x")
    assert len(list(cycles.module_cycles(modules, edges))) == 1


def test_relative_imports_are_imports() -> None:
    """Of a sibling, and of a module above."""
    _, edges = edges_of(p__a="from . import b\nfrom .. import c\nfrom ..c import x", p__b="", c="")

    assert edges["isthmus.p.a"] == {"isthmus.p.b": 1, "isthmus.c": 2}


def test_folders_may_form_a_cycle_where_modules_do_not() -> None:
    """It is shown apart."""
    modules, edges = edges_of(p__a="import isthmus.q.a", p__b="", q__a="", q__b="import isthmus.p.b")

    assert list(cycles.module_cycles(modules, edges)) == []
    (found,) = cycles.package_cycles(modules, edges)
    assert found.text == "in isthmus: p -> q -> p"


# Classes


def class_at(path: str, base: str = "") -> list[Definition]:
    """Return the definitions of a module with `class A`."""
    return defined(f"class A({base}): ...", f"src/isthmus/{path}")


def test_one_class_name_has_one_meaning() -> None:
    """Two modules are two meanings, also in two backends; two branches of one module are one."""
    two = [*class_at("a.py"), *class_at("backends/s3/b.py")]
    assert [one.path for one in names.ambiguous_classes(two, [])] == [
        "src/isthmus/a.py",
        "src/isthmus/backends/s3/b.py",
    ]
    assert (
        list(names.ambiguous_classes(defined("if x:\n    class A: ...\nelse:\n    class A: ..."), [])) == []
    )


def test_backends_share_the_name_of_a_listed_role() -> None:
    """Each once; elsewhere only what derives from the role's base has the name too."""
    role = [names.Role("A", "why", base="Base")]
    backends = [*class_at("backends/s3/a.py"), *class_at("backends/sqlite/a.py")]

    assert list(names.ambiguous_classes(backends, role)) == []
    assert list(names.ambiguous_classes([*backends, *class_at("cli/a.py", "Base")], role)) == []
    assert len(list(names.ambiguous_classes([*backends, *class_at("cli/a.py")], role))) == 3
    assert len(list(names.ambiguous_classes([*backends, *class_at("backends/s3/b.py")], role))) == 3


# Functions


@pytest.mark.parametrize(
    "name",
    ["settled", "_judged", "begun", "merged_arms", "_told_apart", "found", "missing", "plain", "_reading"],
)
def test_a_participle_is_no_name_of_a_function(name: str) -> None:
    """Neither alone nor before other words; adjectives and participles of the present alone."""
    assert names.is_participle(name)


@pytest.mark.parametrize(
    "name",
    [
        "settle",
        "read",
        "open",
        "need",
        "seed_all",
        "embed",
        "put",
        "plain_text",
        "reading_of",
        "ping",
        "_",
        "flatten",
    ],
)
def test_a_verb_or_a_noun_is(name: str) -> None:
    """Words that only look like participles too."""
    assert not names.is_participle(name)


def test_properties_predicates_and_inner_functions_are_left_out() -> None:
    """An overloaded function is one."""
    found = names.participles(
        defined(
            """\
            class Pool:
                @property
                def closed(self): ...
                @closed.setter
                def closed(self, value): ...
                @functools.cached_property
                def known(self): ...
                def is_closed(self):
                    def closed(): ...
                def _opened(self):
                    def closed(): ...
                @overload
                def given(self): ...
                def given(self): ...
            """
        )
    )

    assert [one.text for one in found] == ["Pool._opened", "Pool.given"]


# Old names


def test_an_old_name_is_found_by_its_kind_and_its_place() -> None:
    """A word is found in any name; an alias is let pass."""
    old = names.old_names_from(
        {
            "old": [
                {"kind": "function", "names": {"place": "sort_key"}, "within": ["_query/*"]},
                {"kind": "word", "names": {"lane": "thread"}, "outside": ["cli/*"]},
                {"kind": "module", "names": {"turn": "fair_lock"}},
                {"kind": "attribute", "names": {"slot": "order"}},
            ]
        }
    )
    text = """\
        def place(place, way): ...
        class Layer:
            slot: int
            def __init__(self):
                self.slot = _last_lane = 1
        class FastLane:
            plane = 1
        """
    aliases = [{"name": "Layer.slot", "reason": "public"}]

    def found(path: str) -> list[tuple[int, str]]:
        places = names.standing_names(defined(text, path), old, aliases)
        return [(one.line, one.text) for one in places]

    assert found("src/isthmus/_query/a.py") == [
        (1, "function place -> sort_key"),
        (5, "local Layer.__init__._last_lane -> thread"),
        (6, "class FastLane -> thread"),
    ]
    assert found("src/isthmus/cli/turn.py") == [(1, "module turn -> fair_lock")]
    aliases.clear()
    assert (3, "attribute Layer.slot -> order") in found("src/isthmus/cli/a.py")
    assert (5, "attribute Layer.slot -> order") in found("src/isthmus/cli/a.py")


def test_an_old_name_for_a_new_thing_still_stands() -> None:
    """Unless it is listed as an alias; what merely has the same name is something else."""
    old = names.old_names_from({"old": [{"kind": "class", "names": {"Grade": "Pushdown", "Tally": "Count"}}]})
    text = "from isthmus.a import Pushdown as Grade, Tally\nclass A:\n    Tally = Count\nTally: int = 1"

    def found(aliases: list[dict[str, str]]) -> list[str]:
        return [one.text for one in names.standing_names(defined(text), old, aliases)]

    assert found([]) == ["alias Grade -> Pushdown", "alias A.Tally -> Count"]
    aliases = [{"name": "A.Tally", "reason": "public"}]
    assert found(aliases) == ["alias Grade -> Pushdown"]
    assert [one.text for one in names.kept_aliases(defined(text), aliases)] == ["A.Tally: public"]


def test_parameters_say_what_they_hold() -> None:
    """`left` next to `right` does; `told` has no excuse."""
    text = "def f(left, right): ...\ndef g(left, *, at): ...\ndef h(told): lambda way: 1"
    reasons = [{"name": "g.at", "reason": "why"}, {"name": "h.told", "reason": "why"}]

    found = [one.text for one in names.vague_parameters(defined(text), reasons)]

    assert found == ["g(left)", "h(told)", "h.lambda(way)"]


# Prose


def words(text: str, path: str = "src/isthmus/planted.py") -> list[tuple[int, str]]:
    """Return the words of the old dialect in a planted module or page."""
    bound, _ = prose.dialect(prose.DIALECT.read_text(encoding="utf-8"))
    source = Page(path, text) if path.endswith(".md") else module(text, path)
    return [(one.line, one.text) for one in prose.dialect_words([source], bound)]


def test_dialect_is_found_in_comments_docstrings_strings_and_pages() -> None:
    """Names are not prose, nor are the expressions of an f-string."""
    text = '''\
        """Set aside."""
        judged = 1  # mended
        print(f"no doubt {judged}", "Lest")
        '''

    assert words(text) == [
        (1, "aside (docstring)"),
        (2, "mended (comment)"),
        (3, "doubt (string)"),
        (3, "Lest (string)"),
    ]
    assert words("One\nwhoever", "docs/a.md") == [(2, "whoever (page)")]


def test_a_phrase_is_found_across_lines() -> None:
    """It is reported where it begins; a new sentence ends it."""
    assert words("x = 1\n# What a lost answer\n# comes to.\n") == [
        (2, "What a lost answer comes to (comment)")
    ]
    assert words("# What is lost. It comes to nothing.\n") == []
    assert words("# judge\n\n# mend\n") == [(1, "judge (comment)"), (3, "mend (comment)")]


@pytest.mark.parametrize(
    "word",
    [
        "aside",
        "asides",
        "judge",
        "judged",
        "judges",
        "mend",
        "mends",
        "mended",
        "mending",
        "doubt",
        "doubts",
        "doubtful",
        "lest",
        "anew",
        "whoever",
        "what it comes to",
    ],
)
def test_the_list_of_words_keeps_what_it_began_with(word: str) -> None:
    """It only grows."""
    assert words(f"# {word}\n")


def test_documents_that_are_not_there_are_found(tmp_path: Path) -> None:
    """A section needs its page; strings may name any file."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "meaning.md").touch()
    planted = tmp_path / "src" / "isthmus" / "a.py"
    planted.parent.mkdir(parents=True)
    planted.write_text(
        '"""Semantics §3, docs/meaning.md §3, meaning.md."""\n'
        "# See anchors/x.txt and gone.md, or ../shared/y.txt; the feasibility study;\n"
        "# design, section 4 and semantics.md §1.\n"
        'NAME = "other.md"\n'
    )

    found = prose.missing_documents(Repository(tmp_path))

    assert sorted((one.line, one.text) for one in found) == [
        (1, "Semantics §"),
        (2, "../shared"),
        (2, "anchors/"),
        (2, "feasibility"),
        (2, "gone.md"),
        (3, "design, section 4"),
        (3, "semantics.md"),
        (3, "semantics.md §"),
    ]


def test_sections_that_the_contract_does_not_have_are_found(tmp_path: Path) -> None:
    """In the package, its pages and its tests."""
    contract = tmp_path / "docs" / "explanation" / "meaning.md"
    contract.parent.mkdir(parents=True)
    contract.write_text("# Meaning\n\n## 3. Predicates\n\nAs §1 says.\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text('"""Meaning §3, §30."""\n')

    found = prose.missing_sections(Repository(tmp_path))

    assert sorted((one.path, one.line, one.text) for one in found) == [
        ("docs/explanation/meaning.md", 5, "§1"),
        ("tests/test_a.py", 1, "§30"),
    ]


# The command and its data


def test_a_filter_takes_whole_folders() -> None:
    """Not what merely begins alike."""
    assert is_under("src/isthmus/cli/a.py", "src/isthmus/cli")
    assert is_under("src/isthmus/cli/a.py", "src/isthmus/cli/a.py")
    assert is_under("docs/a.md", "")
    assert not is_under("src/isthmus/client.py", "src/isthmus/cli")


def test_the_command_names_what_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a list of one rule, its offenders and its verdict alone."""
    package = tmp_path / "src" / "isthmus"
    (package / "cli").mkdir(parents=True)
    (package / "a.py").write_text("def opened(told): ...\n")
    (package / "cli" / "b.py").write_text("def closed(): ...\n")
    arguments = ["--root", str(tmp_path), "--list", "participles"]

    assert main(arguments) == 1
    assert "src/isthmus/a.py:1: opened" in capsys.readouterr().out

    assert main([*arguments, "--under", "src/isthmus/cli"]) == 1
    out = capsys.readouterr().out
    assert "cli/b.py:1: closed" in out
    assert "opened" not in out

    assert main(["--root", str(tmp_path), "--list", "long-modules"]) == 0

    assert main(["--root", str(tmp_path)]) == 1
    assert "broken: participles, parameters" in capsys.readouterr().out


def test_the_lines_of_code_of_the_whole_package_have_the_bound_of_the_baseline(tmp_path: Path) -> None:
    """A folder's are shown only: code moves between folders."""
    package = tmp_path / "src" / "isthmus"
    (package / "cli").mkdir(parents=True)
    (package / "a.py").write_text("x = 1\ny = 2\n")
    (package / "cli" / "b.py").write_text("x = 1\n")
    bound = json.loads(BASELINE.read_text())["at_most"]

    (whole,) = [one for one in measures(Repository(tmp_path)) if one.rule == "code-lines"]
    (folder,) = [one for one in measures(Repository(tmp_path), "src/isthmus/cli") if one.rule == "code-lines"]

    assert (whole.value, whole.at_most) == (3, bound)
    assert (folder.value, folder.at_most) == (1, None)


def test_each_exception_has_a_reason() -> None:
    """And each old name what it became, and a kind that exists."""
    allowed = names.read_toml("allowed.toml")
    old = names.read_toml("old_names.toml")

    for entry in [*(one for entries in allowed.values() for one in entries), *old.get("alias", [])]:
        assert len(entry["reason"]) > 10, entry
    kinds = {"module", "class", "function", "parameter", "attribute", "variable", "word"}
    for entry in old["old"]:
        assert entry["kind"] in kinds
        assert all(entry["names"].values())
    for pattern in chain(*prose.dialect(prose.DIALECT.read_text())):
        re.compile(pattern)
