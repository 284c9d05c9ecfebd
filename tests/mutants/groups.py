"""What is mutated, what must notice it, and which mutants are no bugs, each by a stated rule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.rules import Mutant

Trial = tuple[str, ...]
"""Arguments of Python: a run that ends with 0 if it noticed nothing."""


@dataclass(frozen=True, slots=True)
class Group:
    """Files that mean something, what notices a bug in them, and the server that this needs."""

    files: tuple[str, ...]
    trials: tuple[Trial, ...]
    share: int
    """How many of its mutants are run."""
    server: tuple[str, str] | None = None
    """The variable that the trials read, and the one that `tests.servers run` sets."""


def _pytest(*arguments: str) -> Trial:
    quiet = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=300")
    return ("-m", "pytest", *quiet, *arguments)


# Stop at the first difference, and do not make it small.
_FIRST = ("--jobs", "1", "--first")


def _backend(name: str, n: int, *more: str, own: tuple[Trial, ...] = ()) -> tuple[Trial, ...]:
    """Return the trials of a backend: two slices of the differential run, and the suite.

    `own` are tests of the backend alone that take a few seconds: they come after the first slice.
    """
    first, second = (
        ("-m", "tests.differential", "--backend", name, "--seed", seed, "--n", str(n), *_FIRST, *more)
        for seed in ("1", "2")
    )
    # The suite asks what no random query does, names above all, but takes longest.
    return (first, *own, second, _suite(name))


def _suite(name: str) -> Trial:
    # First what is quick and what no random query asks: names, then patterns.
    files = (f"tests/conformance/test_{part}.py" for part in ("rival_rows", "indexed", "promises"))
    return _pytest(*files, "-k", f"{name} and not large_batch")


_TABLE = _pytest("tests/unit/test_truth_table.py", "tests/unit/test_folds.py")
# A backend that leaves to the planner whatever it can.
_ROUGH = (
    _pytest("tests/thirdparty/test_planning.py"),
    _pytest("tests/thirdparty/test_rough.py", "-k", "some"),
)


# Which index serves what, and what is asked of the server at all: no answer tells.
_PLANS = _pytest(
    *("tests/postgres/test_indexes.py", "tests/postgres/test_meaning.py"),
    *("-k", "not random_queries and not ten_thousand"),
)
_TYPES = _pytest("tests/elasticsearch/test_known_types.py")
_IDS_AND_LOG = _pytest(
    *(f"tests/s3/test_{part}.py" for part in ("ids", "keys", "log", "log_search")), "-k", "not crash"
)


def _files(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names.split())


_MODIFY = _pytest("tests/layers/test_modify.py", "tests/property/test_changes.py")
_COLUMNS_OF_A_FILE = _pytest(
    "tests/sqlite/test_columns.py", "tests/conformance/test_columns_config.py", "-k", "not postgres"
)
_COLUMNS = _pytest(
    "tests/postgres/test_columns.py", "tests/conformance/test_promises.py", "-k", "columns and postgres"
)
_MODIFY_NATIVELY = _pytest("tests/postgres/test_modify.py")

GROUPS: dict[str, Group] = {
    # The slow ones first, so that no thread is left alone with them in the end.
    "elasticsearch": Group(
        _files("backends/elasticsearch/read", "filter order patterns aggregate"),
        _backend("elasticsearch", 400, "--per-set", "80", own=(_TYPES,)),
        8,
        ("ISTHMUS_TEST_ELASTICSEARCH_URL", "ISTHMUS_TEST_ELASTICSEARCH_URL"),
    ),
    "s3": Group(
        _files("backends/s3", "object/byte_filter id_filter keys column_values log/filter log/state"),
        _backend("s3", 200, own=(_IDS_AND_LOG,)),
        8,
        ("ISTHMUS_TEST_S3_URL", "ISTHMUS_TEST_S3_URL"),
    ),
    "sqlite-columns": Group(
        _files("backends/sqlite", "columns column_filter column_aggregate column_methods"),
        _backend("sqlite", 3_000, own=(_COLUMNS_OF_A_FILE,)),
        10,
    ),
    "postgres-columns": Group(
        _files("backends/postgres/sql", "columns column_filter column_order column_aggregate"),
        _backend("postgres", 1_000, own=(_COLUMNS,)),
        12,
        ("ISTHMUS_TEST_POSTGRES_URL", "ISTHMUS_TEST_POSTGRES_ICU_URL"),
    ),
    # On a server whose own collation is a language's: what leaves out COLLATE is seen there only.
    "postgres": Group(
        _files("backends/postgres/sql", "filter index_union fields like leaf regex order select modify"),
        _backend("postgres", 1_000, own=(_MODIFY_NATIVELY, _PLANS)),
        14,
        ("ISTHMUS_TEST_POSTGRES_URL", "ISTHMUS_TEST_POSTGRES_ICU_URL"),
    ),
    "native": Group(
        (
            *_files("backends/postgres/native", "filter order columns aggregate"),
            *_files("backends/_tables", "leaves keys values"),
        ),
        (
            _pytest("tests/unit/test_native_tables.py"),
            ("-m", "tests.differential", "--backend", "postgres-native", "--seed", "1", "--n", "1500"),
            _pytest("tests/postgres/test_native.py", "tests/postgres/test_native_types.py", "-k", "asyncpg"),
        ),
        10,
        ("ISTHMUS_TEST_POSTGRES_URL", "ISTHMUS_TEST_POSTGRES_ICU_URL"),
    ),
    "evaluator": Group(
        _files("_query", "evaluate lookup text order aggregate"),
        (_TABLE, _suite("memory"), _backend("sqlite", 1_500)[0]),
        14,
    ),
    "planner": Group(
        (*_files("_query", "split normalize cursor"), "layers/plan.py"),
        (*_ROUGH, _suite("memory")),
        12,
    ),
    "plan cache": Group(
        _files("_query", "shape plan_cache"),
        (_pytest("tests/property/test_plan_cache.py"),),
        10,
    ),
    "changes": Group(
        ("_query/changes.py", "_core/modify_rows.py", *_files("layers", "_modify merge")),
        (_MODIFY, _pytest("tests/conformance/test_promises.py", "-k", "memory and modif")),
        12,
    ),
    "unique": Group(
        (
            *_files("_core", "unique unique_index"),
            *_files("backends/memory", "transaction committed record_locks"),
        ),
        (
            _pytest("tests/unit/test_unique_index.py", "tests/unit/test_change_streams.py"),
            _pytest("tests/isolation", "tests/layers/test_retry.py", "-k", "memory and not postgres"),
            _pytest("tests/conformance/test_promises.py", "-k", "memory"),
        ),
        12,
    ),
    "followers": Group(
        (
            "_change_stream.py",
            "_change_position.py",
            "layers/_change_filter.py",
            "backends/memory/journal.py",
        ),
        (
            _pytest("tests/unit/test_change_streams.py"),
            _pytest(
                "tests/conformance/test_promises.py",
                "-k",
                "memory and (chang or start or posit or clear or wait or stream)",
            ),
            _backend("sqlite", 100)[0],
        ),
        12,
    ),
    "sqlite changes": Group(
        _files("backends/sqlite", "changes displaced native/changes"),
        (_pytest("tests/changes/test_sqlite.py", "tests/changes/test_native_sqlite.py"),),
        8,
    ),
    # What a checker passes is refused by these, and nowhere else.
    "typed": Group(
        (
            *("_field_proxy.py", "_lambda_calls.py", "_model_operands.py", "_model_paths.py"),
            *("_model_upgrades.py", "_typed_rows.py"),
        ),
        (
            _pytest(
                "tests/typing",
                "tests/integrations/test_typed_queries.py",
                "tests/integrations/test_typed_edges.py",
                "-k",
                "not sqlite and not postgres",
            ),
            _pytest(
                *("tests/integrations/test_model_upgrades.py", "tests/differential/test_typed.py"),
                *(
                    "tests/integrations/test_typed.py",
                    "-k",
                    "not sqlite and not postgres and not s3 and not elastic",
                ),
            ),
        ),
        10,
    ),
    "sqlite": Group(
        _files("backends/sqlite", "filter select order fields aggregate"),
        _backend("sqlite", 1_500, own=(_pytest("tests/sqlite/test_indexes.py"),)),
        16,
    ),
    "mariadb-native": Group(
        (
            *_files("backends/sqlalchemy/native", "filter order read rows mysql"),
            *_files("backends/_tables", "leaves keys binding"),
        ),
        (
            ("-m", "tests.differential", "--backend", "mariadb-native", "--seed", "1", "--n", "600"),
            _pytest(
                *(f"tests/sqlalchemy/test_native_{part}.py" for part in ("tables", "types")),
                "tests/unit/test_native_tables.py",
            ),
        ),
        8,
        ("ISTHMUS_TEST_MARIADB_URL", "ISTHMUS_TEST_MARIADB_URL"),
    ),
    "sqlite-native": Group(
        _files("backends/sqlite/native", "filter keys order index_order aggregate columns"),
        (
            ("-m", "tests.differential", "--backend", "sqlite-native", "--n", "600", "--seed", "1"),
            _pytest("tests/sqlite/test_native_tables.py"),
            ("-m", "tests.differential", "--backend", "sqlite-native", "--n", "1500", "--seed", "2"),
        ),
        10,
    ),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Mutants that change no answer, and why: none is planted."""

    why: str
    files: str
    line: str
    after: str = ""
    """What is planted, as a pattern, if not everything on such a line."""
    kind: str = ""
    """The kind of slip, if not every one."""

    def covers(self, file: str, line: str, mutant: Mutant) -> bool:
        """Return whether a mutant of this line of this file is one of them."""
        if re.fullmatch(self.files, file) is None or re.search(self.line, line) is None:
            return False
        if self.kind not in ("", mutant.kind):
            return False
        return not self.after or re.fullmatch(self.after, mutant.after.strip()) is not None


EQUIVALENT: tuple[Rule, ...] = (
    Rule(
        "a threshold of size says only which of two right ways is taken, the store's or this side's",
        r"backends/.*|_query/.*|layers/plan\.py",
        r"[<>]=?.*\b_?(MAX|MOST|LARGEST_SCAN|DEEPEST|LONGEST_FREE|LONGEST_WILDCARD|LONGEST_REGEXP|FEW|LIST_TERMS|TERMS|HASHED)\w*\b"
        r"|\b_(DEEPEST|MAX|MOST)\w*\b.*[<>]=?|== _LIST_TERMS",
    ),
    Rule(
        "a key with a blank is evaluated by a function of ours instead, which is as right",
        r"backends/sqlite/fields\.py",
        r'min\(key\) < " "',
        "<=",
    ),
    Rule(
        "where no aside lies before the offset, or nothing is skipped, the short way only asks for less",
        r"layers/plan\.py",
        r"if skip and aside:",
    ),
    Rule(
        "what the store could delete by itself may be deleted record by record, which is as right",
        r"layers/plan\.py",
        r"== TRUE and \(.* or .*delete_where\)",
        "and",
    ),
    Rule("a tuple asks `<` only of what is not equal", r"_query/order\.py", r"other\.value < self\.value"),
    Rule("no object is ever a group key", r"_query/aggregate\.py", r"return \(OBJECT \+ 1,\)"),
    Rule("zero does not overflow", r"_query/aggregate\.py", r"math\.inf if exact > 0 else -math\.inf"),
    Rule(
        "leaves on one path share their condition on lists or have one each, which finds the same",
        r"backends/postgres/sql/filter\.py",
        r"if use_index and \(indexed\.every_element or path in indexed\.elements\):",
        r"or \(|not in",
    ),
    # A database's own collation is always deterministic: whatever the language, only equal bytes are
    # equal. Order is not among these, and a translated pattern has code points, no classes of letters.
    Rule(
        "=, LIKE, strpos and a pattern of code points ask bytes, not the language",
        r"backends/postgres/sql/leaf\.py",
        r'COLLATE "C"( LIKE | ~ |, \{part\})|= \{end\} COLLATE "C"',
        kind="collation",
    ),
    Rule(
        "U+10FFFF folds to itself alone, and is no digit, space or letter",
        r"backends/(postgres/sql/(like|regex)|elasticsearch/read/patterns)\.py",
        r"range\((1, sys\.maxunicode|_LAST) \+ 1\)",
        kind="bound",
    ),
    Rule(
        "where all have one sign, the wider bound of a sum only leaves more sums to this side",
        r"backends/elasticsearch/read/aggregate\.py",
        r"bound = abs\(total\) if low >= 0 or high <= 0 else",
        "and",
    ),
    Rule(
        "ranges that touch stand in a class side by side as well as merged",
        r"backends/postgres/sql/regex\.py",
        r"if merged and low <= merged\[-1\]\[1\] \+ 1:",
        "<?",
    ),
    Rule("x{1,} is x+", r"backends/postgres/sql/regex\.py", r"if high is None and low <= 1:", "<"),
    # In lax mode a missing key or a scalar yields nothing to ask, and type() is defined for every value:
    # a comparison of it is true or false, never unknown. The columns are NOT NULL.
    Rule(
        "whether a list holds a list is never NULL",
        r"backends/postgres/sql/fields\.py",
        r"\{self\.has_nested_list\} IS NOT TRUE",
        kind="null arm",
    ),
    # What is in the span is compared by id as well. Only beyond a prefix that ends in U+10FFFE is it wider.
    Rule(
        "a span that ends later than it could is read further, and finds the same",
        r"backends/s3/id_filter\.py",
        r"if following <= 0x10FFFF:",
        "<",
    ),
    Rule(
        "how much is held in memory is a cost, not an answer",
        r"backends/s3/log/state\.py",
        r"_cost|_max\b|_FEW|_segments",
    ),
    Rule(
        "when the entries that were pruned leave the list is a cost, not an answer",
        r"backends/memory/journal\.py",
        r"gone",
    ),
)


def equivalent(mutant: Mutant, source: Path) -> Rule | None:
    """Return the rule by which a mutant is no bug, if there is one."""
    file = mutant.path.relative_to(source).as_posix()
    line = mutant.path.read_text().splitlines()[mutant.line - 1]
    return next((rule for rule in EQUIVALENT if rule.covers(file, line, mutant)), None)
