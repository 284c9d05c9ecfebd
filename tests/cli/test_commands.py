"""The output and the exit code of each command, for people and as JSON."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Cli
from tests.servers import server

pytestmark = pytest.mark.backend("sqlite")


def test_ping_reports_a_working_store(cli: Cli, people: str) -> None:
    """One line, or JSON with the times."""
    ran = cli("ping", people)
    assert ran.code == 0
    assert "works: connected in" in ran.out

    shape = cli("ping", people, "--json", "-n", 2).json
    assert shape["backend"] == "sqlite"
    assert len(shape["ping_ms"]) == 2


def test_modify_changes_parts_of_a_record(cli: Cli, people: str) -> None:
    """Changes apply in order, on a condition; a refused one changes nothing."""
    cli("put", people, "x", '{"n": 1, "tags": ["a"], "a.b": 1}')

    ran = cli(
        "modify", people, "x", "n.inc(2)", 'tags.push("b", 1.5)', "o.p.set({})", '"a.b".unset()', "n.max(9)",
        "--where", 'n = 1 and tags = "a"', "--json",
    )  # fmt: skip

    assert ran.code == 0
    record = cli("get", people, "x", "--json").json
    assert record["data"] == {"n": 9, "tags": ["a", "b", 1.5], "o": {"p": {}}}
    assert record["version"] == ran.json["version"]
    assert cli("modify", people, "x", "n.inc(1)", "--where", "n = 1").code == 6
    assert cli("modify", people, "x", "n.inc(1)", "tags.inc(1)").code == 6
    assert cli("modify", people, "nobody", "n.inc(1)").code == 6
    for bad in (
        "n.inc()",
        "n.inc(x)",
        "n.inc(1",
        "n.double()",
        ".inc(1)",
        "_id.set(1)",
        'n.inc("1")',
        "n.unset(1)",
    ):
        assert cli("modify", people, "x", bad).code == 2, bad
    assert cli("get", people, "x", "--json").json["data"]["n"] == 9
    assert cli("modify", people, "x", 's.set("a.set(1), b.inc(2)")', 'tags.push("n.max(3)")').code == 0
    assert cli("get", people, "x", "--json").json["data"]["s"] == "a.set(1), b.inc(2)"


def test_index_declares_unique_fields(cli: Cli, people: str, tmp_path: Path) -> None:
    """Not where records have equal values, which are named; until it is ended."""
    ran = cli("index", people, "city", "--unique")
    assert ran.code == 1
    assert "p001" in ran.out
    assert cli("index", people, "city", "--check", "--json").code == 1
    assert cli("index", people, "name", "--check").code == 0

    assert cli("index", people, "name", "city", "--unique").code == 0
    assert cli("index", people, "name", "--unique").code == 0
    assert cli("put", people, "x", '{"name": "Name 1"}').code == 6
    assert cli("index", people, "name", "--drop").code == 0
    assert cli("put", people, "x", '{"name": "Name 1"}').code == 0
    assert cli("index", people, "--unique").code == 2
    (tmp_path / "a.json").write_text("{}")
    assert cli("index", f"files://{tmp_path}/*.json", "name", "--unique").code == 7


def test_a_database_behind_sqlalchemy_is_read_and_declared_unique(cli: Cli, tmp_path: Path) -> None:
    """Commands that only read make no table there."""
    store = f"sqlalchemy+sqlite+aiosqlite:///{tmp_path / 'names.db'}"
    assert cli("count", store).code == 3
    for id, name in (("a", "x"), ("b", "y"), ("c", "x")):
        assert cli("put", store, id, f'{{"name": "{name}"}}').code == 0

    assert cli("count", store).out == "3\n"
    checked = cli("index", store, "name", "--check")
    assert (checked.code, "a, c" in checked.out) == (1, True)
    assert cli("modify", store, "c", 'name.set("z")').code == 0
    assert cli("index", store, "name", "--unique").code == 0
    refused = cli("modify", store, "c", 'name.set("y")')
    assert (refused.code, "'b'" in refused.err) == (6, True)
    assert [record["id"] for record in cli("query", store).lines] == ["a", "b", "c"]


def test_a_store_can_come_from_the_environment(
    cli: Cli, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$ISTHMUS_URL is used for a dash and for a missing argument."""
    assert cli("ping").code == 3
    monkeypatch.setenv("ISTHMUS_URL", people)

    assert cli("ping").code == 0
    assert cli("count", "-", "age<10").out == "10\n"


def test_get_prints_records_and_names_missing_ones(cli: Cli, people: str) -> None:
    """Exit code 1 if an id does not exist; the other records are printed."""
    ran = cli("get", people, "p001", "--json")
    assert ran.code == 0
    assert ran.json["data"] == {"name": "Name 1", "age": 1, "city": "Oslo"}
    assert "Name 1" in cli("get", people, "p001").out

    ran = cli("get", people, "p001", "nobody", "--json")
    assert ran.code == 1
    assert len(ran.lines) == 1
    assert "'nobody'" in ran.err


def test_put_update_and_delete_write(cli: Cli, people: str) -> None:
    """Including compare-and-set."""
    put = cli("put", people, "x", '{"n": 1}', "--metadata", '{"m": 2}', "--json")
    assert put.code == 0
    assert cli("put", people, "x", "{}", "--create").code == 6
    assert cli("put", people, "nobody", "{}", "--replace").code == 6
    version = put.json["version"]
    updated = cli("update", people, "x", '{"k": null}', "--if-version", version, "--json")
    assert updated.code == 0
    stale = cli("update", people, "x", "{}", "--if-version", version)
    assert stale.code == 6
    assert stale.err.count("\n") == 1
    record = cli("get", people, "x", "--json").json
    assert (record["data"], record["metadata"]) == ({"n": 1, "k": None}, {"m": 2})
    assert cli("delete", people, "x", "--json").json == {"x": True}
    assert cli("delete", people, "x").code == 1


def test_an_invalid_json_argument_is_a_usage_error(cli: Cli, people: str) -> None:
    """Neither invalid JSON nor a list is a record."""
    assert cli("put", people, "x", "{n: 1}").code == 2
    assert cli("put", people, "x", "[1]").code == 2


def test_query_prints_lines_tables_and_csv(cli: Cli, people: str) -> None:
    """Filter, sort, limit, offset and select work together in each format."""
    options = ['age>=25 and city="Oslo"', "--sort", "age desc", "--limit", 3, "--offset", 1]

    lines = cli("query", people, *options, "--json").lines
    assert [line["data"]["age"] for line in lines] == [97, 95, 93]
    table = cli("query", people, *options, "--format", "table", "--select", "age, name").out
    assert [row.split()[:3] for row in table.splitlines()] == [
        ["_id", "age", "name"],
        ["p097", "97", "Name"],
        ["p095", "95", "Name"],
        ["p093", "93", "Name"],
    ]
    csv = cli("query", people, *options, "-f", "csv").out.splitlines()
    assert csv == [
        "_id,name,age,city",
        "p097,Name 97,97,Oslo",
        "p095,Name 95,95,Oslo",
        "p093,Name 93,93,Oslo",
    ]


def test_a_truncated_table_is_announced(cli: Cli, people: str) -> None:
    """A table has the first fifty records; other formats have all."""
    ran = cli("query", people, "-f", "table")
    assert len(ran.out.splitlines()) == 51
    assert "there are more" in ran.err
    assert len(cli("query", people).lines) == 100


def test_query_takes_json_and_sorts_nulls(cli: Cli, people: str) -> None:
    """A filter may be JSON; nulls sort first or last as specified."""
    cli("put", people, "z", "{}")
    shape = '{"field": "age", "op": "<", "value": 2}'
    assert [line["id"] for line in cli("query", people, shape).lines] == ["p000", "p001"]
    first = cli("query", people, "--sort", "age desc nulls first, _id", "-n", 2).lines
    assert [line["id"] for line in first] == ["z", "p099"]
    assert cli("query", people, "--sort", "age sideways").code == 2


def test_count_and_agg_compute(cli: Cli, people: str) -> None:
    """Groups and columns have the requested names."""
    assert cli("count", people, "age between 10 and 19").out == "10\n"
    assert cli("count", people, "--json").json == {"count": 100}
    rows = cli("agg", people, "age<10", "--by", "city", "-a", "n=count", "-a", "max:age", "--json").json
    assert rows == [{"city": "Oslo", "n": 5, "max_age": 9}, {"city": "Rome", "n": 5, "max_age": 8}]
    assert "Rome" in cli("agg", people, "--by", "city").out
    assert cli("agg", people, "-a", "median:age").code == 2


def test_agg_takes_buckets_percentiles_and_the_first_groups(cli: Cli, people: str) -> None:
    """`--by price:10`, `at:day@zone`, `percentile:age:90`, `--sort` by columns and `--limit`."""
    columns = ("-a", "n=count", "-a", "p=percentile:age:90", "-a", "count_distinct:city")
    found = cli("agg", people, "--by", "age:50", *columns, "--json").json
    assert [(row["age:50"], row["n"], row["p"], row["count_distinct_city"]) for row in found] == [
        (0, 50, 44, 2),
        (50, 50, 94, 2),
    ]
    first = cli(
        "agg", people, "--by", "age:10", "-a", "top=max:age", "--sort", "age:10 desc", "-n", 1, "--json"
    )
    assert first.json == [{"age:10": 90, "top": 99}]
    by_day = cli("agg", people, "--by", "_created_at:year@Europe/Oslo", "--json").json
    assert sum(row["count"] for row in by_day) == 100
    for wrong in (
        ["--by", "age:days"],
        ["--by", "age:day@Nowhere"],
        ["-a", "percentile:age"],
        ["--sort", "x"],
    ):
        assert cli("agg", people, *wrong).code == 2


def test_explain_shows_the_plan(cli: Cli, people: str) -> None:
    """A tree for people, fields for programs."""
    ran = cli("explain", people, 'age>=25 and name regex "x"', "--sort", "age")
    assert ran.code == 0
    assert "age >= 25" in ran.out
    assert "native" in ran.out
    shape = cli("explain", people, "age>=25", "--json").json
    assert shape["exact"] is True
    assert shape["tree"]["grade"] == "EXACT"


def test_ls_stats_and_index_describe_the_store(cli: Cli, people: str) -> None:
    """Collections, capabilities, and the index that a field uses."""
    cli("put", people, "a", "{}", "-c", "other")
    assert cli("ls", people).out.split() == ["other", "records"]
    assert cli("ls", people, "--count", "--json").json == [
        {"collection": "other", "records": 1},
        {"collection": "records", "records": 100},
    ]
    stats = cli("stats", people, "--json").json
    assert stats["records"] == 100
    assert stats["capabilities"]["transactions"] is True
    assert stats["pool"]["size"] >= 1
    made = cli("index", people, "age", "--json")
    assert made.code == 0
    assert made.json["age"]
    assert cli("explain", people, "age=3", "--json").json["index"]


def test_index_is_refused_without_support(cli: Cli) -> None:
    """An unsupported operation is not emulated."""
    assert cli("index", "memory://", "age").code == 7


def test_copy_diff_and_verify_work_together(cli: Cli, people: str, tmp_path: Path) -> None:
    """A copy is verified; later changes are shown and repaired."""
    other = f"sqlite:///{tmp_path}/other.db"
    assert (
        cli("copy", people, other, "--dry-run", "--json").code == 3
    )  # the file does not exist, and is not created
    assert not (tmp_path / "other.db").exists()
    copied = cli("copy", people, other, "--verify", "--json", "--journal", tmp_path / "journal")
    assert copied.code == 0
    assert copied.json["written"] == 100
    assert copied.json["verified"]["equal"] is True
    assert copied.json["digest"] == copied.json["verified"]["target"]["digest"]
    again = cli("copy", people, other, "--json", "--journal", tmp_path / "journal", "--resume").json
    assert (again["earlier"], again["read"]) == (100, 100)
    assert cli("diff", people, other).code == 0

    cli("update", other, "p050", '{"age": 51}')
    cli("delete", other, "p001")
    cli("put", other, "zz", "{}")
    ran = cli("diff", people, other)
    assert ran.code == 1
    assert ran.out.splitlines() == ["+ p001", "~ p050", "    data.age: 50 -> 51", "- zz"]
    assert [line["kind"] for line in cli("diff", people, other, "--json").lines] == [
        "missing",
        "changed",
        "extra",
    ]
    assert cli("verify", people, other).code == 1
    repaired = cli("verify", people, other, "--repair", "--delete-extra", "--json")
    assert repaired.code == 0
    assert repaired.json["repaired"] == {"written": 2, "deleted": 1, "left": 0}


def test_copy_maps_fields_and_applies_a_function(
    cli: Cli, people: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--map, --where and --transform are passed to the library."""
    (tmp_path / "hook_of_test.py").write_text(
        "def keep(record):\n    return record if record['years'] != 7 else None\n"
    )
    monkeypatch.chdir(tmp_path)
    other = f"sqlite:///{tmp_path}/other.db"

    ran = cli(
        "copy",
        people,
        other,
        "--where",
        "age<10",
        "--map",
        "age=years",
        "--map",
        "city=",
        "--transform",
        "hook_of_test:keep",
        "--json",
    )

    assert ran.code == 0, ran.err
    assert (ran.json["read"], ran.json["written"], ran.json["left_out"]) == (10, 9, 1)
    assert cli("get", other, "p003", "--json").json["data"] == {"name": "Name 3", "years": 3}
    assert cli("copy", people, other, "--transform", "hook_of_test:none").code == 3
    assert cli("copy", people, other, "--map", "a").code == 2
    assert cli("copy", people, other, "--resume").code == 2


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_dump_and_load_give_the_same_records(cli: Cli, tmp_path: Path, suffix: str) -> None:
    """Unusual keys and texts, nulls, nested values and mixed types survive each format."""
    unusual = [
        {"text": "5", "n": 5, "f": 1.5, "mixed": 1, "": "empty key", "a.b": True},
        {"text": "", "n": -(2**63), "f": 1e300, "mixed": "x", "null": None, "_id": "data"},
        {"text": "true", "n": 2**53 + 1, "list": [1, None], "obj": {"k": []}, "_metadata": 3},
        {"text": 'quote " comma , \r\n line', "mixed": None, "data:x": 1, "all": 1},
        {"text": "{}", "mixed": {"deep": [True]}, "emoji": "\U0001f600", "data": {"x": 1}},
        {},
    ]
    one, two = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    lines = [
        {"id": f"k{i}", "data": data, "metadata": {"i": i} if i % 2 else {}} for i, data in enumerate(unusual)
    ]
    source = tmp_path / "source.jsonl"
    source.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    assert cli("load", one, source, "--records").code == 0

    dumped = cli("dump", one, tmp_path / f"dump.{suffix}", "--json")
    loaded = cli("load", two, tmp_path / f"dump.{suffix}", "--json")

    assert dumped.json["written"] == loaded.json["written"] == len(unusual)
    ran = cli("diff", one, two)
    assert (ran.code, ran.out) == (0, "")
    assert not list(tmp_path.glob("*.part"))


def test_plain_lines_are_data(cli: Cli, tmp_path: Path) -> None:
    """Ids come from --id, or are generated; --plain reads no line as a dumped record."""
    file = tmp_path / "plain.jsonl"
    file.write_text('{"key": 7, "v": 1}\n\n{"key": "b", "v": 2}\n')
    url = f"sqlite:///{tmp_path}/x.db"
    assert cli("load", url, file, "--id", "key").code == 0
    assert [line["id"] for line in cli("query", url).lines] == ["7", "b"]
    file.write_text('{"id": "e", "data": {"v": 3}}\n')
    assert cli("load", url, file, "--plain", "-c", "plain").code == 0
    assert cli("query", url, "-c", "plain").lines[0]["data"] == {"id": "e", "data": {"v": 3}}


def test_a_rejected_line_is_named_by_number(cli: Cli, tmp_path: Path) -> None:
    """`stop` ends there, `skip` continues; both report the number of written records."""
    good = [orjson.dumps({"id": f"k{i}", "data": {"n": i}}) for i in range(6)]
    bad = [b'{"id": "x", "data": ', b"[1]", b'{"id": "", "data": {}}', b'{"v": "\\u0000"}']
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\n".join([*good[:3], bad[0], good[3], bad[1], bad[2], bad[3], *good[4:]]))
    url = f"sqlite:///{tmp_path}/x.db"

    stopped = cli("load", url, file, "--records")
    assert stopped.code == 6
    assert f"{file}:4: not JSON" in stopped.err
    assert "3 records were written" in stopped.err
    skipped = cli("load", url, file, "--records", "--on-error", "skip", "--json")
    assert skipped.code == 6
    assert skipped.json["written"] == 6
    assert [error["line"] for error in skipped.json["errors"]] == [4, 6, 7, 8]


def test_create_mode_rejects_existing_ids(cli: Cli, tmp_path: Path) -> None:
    """The line of the existing id is named; nothing of its batch is written."""
    file = tmp_path / "lines.jsonl"
    file.write_text('{"id": "a", "data": {}}\n{"id": "b", "data": {}}\n')
    url = f"sqlite:///{tmp_path}/x.db"
    cli("put", url, "b", '{"old": true}')

    stopped = cli("load", url, file, "--records", "--mode", "create")
    assert stopped.code == 6
    assert f"{file}:2:" in stopped.err
    assert cli("count", url).out == "1\n"
    assert cli("load", url, file, "--records", "--mode", "create", "--on-error", "skip").code == 6
    assert cli("count", url).out == "2\n"


def test_csv_and_parquet_from_elsewhere_can_be_loaded(cli: Cli, tmp_path: Path) -> None:
    """Numbers are numbers, leading zeros stay text, rejected rows are named by number."""
    url = f"sqlite:///{tmp_path}/x.db"
    file = tmp_path / "foreign.csv"
    file.write_text("\ufeffcode,zip,n\nA,0123,5\nB,x\nC,99,1.5\n", encoding="utf-8")
    ran = cli("load", url, file, "--id", "code", "--on-error", "skip")
    assert ran.code == 6
    assert f"{file}:3: 2 cells under 3 headings" in ran.err
    assert cli("get", url, "A", "--json").json["data"] == {"code": "A", "zip": "0123", "n": 5}

    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"code": ["D", "E"], "when": pa.array([0, None], pa.timestamp("ms", "UTC"))})
    pq.write_table(table, tmp_path / "foreign.parquet")
    assert cli("load", url, tmp_path / "foreign.parquet", "--id", "code").code == 0
    assert cli("get", url, "D", "--json").json["data"]["when"] == "1970-01-01T00:00:00.000000Z"


COLUMN_STORES = [pytest.param(name, marks=pytest.mark.backend(name)) for name in ("postgres", "sqlite")]


@pytest.mark.parametrize("backend", COLUMN_STORES)
def test_index_adds_columns_and_says_what_they_cost(cli: Cli, backend: str, tmp_path: Path) -> None:
    """The doctor reports missing ones and records that do not fit; --drop ends it."""
    address = _column_store(backend, tmp_path)
    for number in range(20):
        assert cli("put", address, f"p{number}", json.dumps({"n": number or "zero", "t": "x"})).code == 0
    declared = f"{address}{'&' if '?' in address else '?'}columns.n=number"
    assert "--column n=number" in cli("doctor", declared).out

    checked = cli("index", address, "--column", "n=number", "--column", "t=text", "--check", "--json").json
    assert checked["records"] == 20
    assert [column["odd"] for column in checked["columns"]] == [1, 0]
    assert "columns" not in cli("explain", address, "n>5").out
    ran = cli("index", address, "--column", "n=number", "--column", "t=text")
    assert ran.code == 0
    assert "format 2" in ran.out
    assert "columns: n" in cli("explain", address, "n>5").out
    assert cli("count", address, "n>5").out == "14\n"
    assert "do not fit" in cli("doctor", address).out or "something else" in cli("doctor", address).out

    assert cli("index", address, "--column", "n", "--column", "t", "--drop").code == 0
    assert "columns" not in cli("explain", address, "n>5").out
    for wrong in (["n"], ["n=integer"], ["n=number", "--column", "n=text"], ["n=number", "--unique"]):
        assert cli("index", address, "--column", *wrong).code in (2, 3)
    assert cli("index", "memory://", "--column", "n=number").code == 7


def _column_store(backend: str, folder: Path) -> str:
    if backend == "sqlite":
        return f"sqlite:///{folder / 'columns.db'}"
    return f"{server('postgres').url}?table=t_{uuid.uuid4().hex[:12]}"


def test_index_declares_changes(cli: Cli, tmp_path: Path) -> None:
    """It is about the collection, so it takes no fields; a store without changes refuses."""
    ran = cli("index", "memory://", "--changes")
    assert (ran.code, "kept from now on" in ran.out) == (0, True)
    assert cli("index", "memory://", "--changes", "--drop", "--json").json == {"changes": False}
    assert cli("index", "memory://", "name", "--changes").code == 2
    (tmp_path / "a.json").write_text("{}")
    refused = cli("index", f"files://{tmp_path}/*.json", "--changes")
    assert (refused.code, "has no changes" in refused.err) == (7, True)
