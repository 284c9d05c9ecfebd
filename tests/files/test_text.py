"""JSON, JSON lines, CSV and TSV in a folder: rows, ids, types of columns, damage."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from isthmus import (
    AsyncDatabase,
    ConfigError,
    InvalidRecordError,
    Query,
    UnavailableError,
    UnsupportedError,
    UsageError,
    field,
)
from tests.files.folder import all_records, opened, rows, write

pytestmark = [pytest.mark.backend("files"), pytest.mark.asyncio]

CITIES = (
    "name,zip,n,big,open,share\r\nOslo,0150,1,9007199254740993,true,0.5\r\n"
    '"Nice, ""Côte""",06000,,2,false,1\r\n'
)


async def test_rows_are_numbered_in_each_file_in_the_order_of_names(tmp_path: Path) -> None:
    """The id is the name, `#` and 12 digits; streams, pages and gets agree (§8)."""
    write(
        tmp_path,
        {
            "b.csv": CITIES,
            "a.jsonl": '{"n": 1}\n\n{"n": "x"}\n',
            "sub/c.json": '[{"n": [1, 2]}, {"n": null}]',
            "a.json": '{"n": 4}',
            "notes.txt": "not read",
            ".hidden.json": "{}",
        },
    )

    async with opened(tmp_path) as db:
        found = await all_records(db)
        assert [record.id for record in found] == [
            "a.json#000000000000",
            "a.jsonl#000000000000",
            "a.jsonl#000000000001",
            "b.csv#000000000000",
            "b.csv#000000000001",
            "sub/c.json#000000000000",
            "sub/c.json#000000000001",
        ]
        assert [
            r and r.data for r in await db.get_batch(["b.csv#000000000001", "b.csv#000000000009", "x"])
        ] == [
            found[4].data,
            None,
            None,
        ]
        assert await db.count(field("n") == 1) == 3
        assert await db.count(field("_id") > "b.csv#000000000000") == 3
        assert [r.id for r in await db.search(field("_id").between("a.jsonl#000000000001", "b.csv"))] == [
            "a.jsonl#000000000001"
        ]
        assert found[0].version is not None
        assert found[0].created_at is None
        explained = (await db.explain(field("n") == 1)).details
        assert explained["files"] == 4
        assert explained["formats"] == {"csv": 1, "json": 2, "jsonl": 1}


async def test_a_column_has_one_type_over_all_files(tmp_path: Path) -> None:
    """Numbers and booleans where every filled cell comes back to the letter; else text (§9)."""
    write(tmp_path, {"a.csv": CITIES, "b.csv": "name,n,share\nBonn,7,1.10\n"})

    assert await rows(tmp_path) == [
        {"name": "Oslo", "zip": "0150", "n": 1, "big": 2**53 + 1, "open": True, "share": "0.5"},
        {"name": 'Nice, "Côte"', "zip": "06000", "n": None, "big": 2, "open": False, "share": "1"},
        {"name": "Bonn", "n": 7, "share": "1.10"},
    ]


@pytest.mark.parametrize(
    "cell",
    ["0E0", "007", "1.10", "1e5", "1" * 40, "+1", "-0", "-0.0", ".5", "1.", "NaN", "True", "1_0", " 1", "1 ",
     "1e16", "9223372036854775808", "10000000000000000.0", "0x1", "null", "[1]", '"a"', "{}", "1,2"],
)  # fmt: skip
async def test_a_cell_that_does_not_come_back_to_the_letter_is_text(tmp_path: Path, cell: str) -> None:
    """One such cell makes its column text."""
    write(tmp_path, {"a.csv": 'v;w\n1;1\n"' + cell.replace('"', '""') + '";2\n'})

    assert await rows(tmp_path) == [{"v": "1", "w": 1}, {"v": cell, "w": 2}]


@pytest.mark.parametrize(
    "cell", ["0", "-1", "1.5", "-0.25", "9223372036854775807", "0.1", "1e-7", "1e-07", "1e300", "1e+300"]
)
async def test_a_number_is_itself(tmp_path: Path, cell: str) -> None:
    """In the shortest form that JSON has of it."""
    write(tmp_path, {"a.csv": f"v\n{cell}\n"})

    (row,) = await rows(tmp_path)
    assert row == {"v": int(cell) if cell.lstrip("-").isdigit() else float(cell)}


async def test_settings_of_csv(tmp_path: Path) -> None:
    """Types, nulls, headings, delimiters and encodings can be set."""
    write(tmp_path, {"a.csv": "x|y\nNA|007\nå|1e2\n".encode("latin1")})

    assert await rows(tmp_path, encoding="latin1", null="NA", types={"y": "number"}) == [
        {"x": None, "y": 7},
        {"x": "å", "y": 100.0},
    ]
    assert (await rows(tmp_path, encoding="latin1", header=False, types="text"))[0] == {
        "column1": "x",
        "column2": "y",
    }
    assert (await rows(tmp_path, encoding="latin1", header=["a", "b"], delimiter="|"))[2]["a"] == "å"
    assert (await rows(tmp_path, encoding="latin1", delimiter=","))[0] == {"x|y": "NA|007"}


async def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path) -> None:
    """UTF-8 and UTF-16, with \\r as the end of a line too."""
    write(
        tmp_path,
        {
            "a.csv": b"\xef\xbb\xbfx,y\n1,\xc3\xa5\n",
            "b.csv": "x,y\n2,å\n3,ø\n".encode("utf-16"),
            "c.tsv": "x\ty\r4\tz\r",
            "d.jsonl": b'\xef\xbb\xbf{"x": 5}',
            "e.json": b'\xef\xbb\xbf[{"x": 6}]',
        },
    )

    assert [row["x"] for row in await rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert (await rows(tmp_path))[2]["y"] == "ø"


async def test_a_bad_row_is_reported_and_its_neighbours_are_read(tmp_path: Path) -> None:
    """A wrong number of cells, a stray quote, a bad byte, a zero byte: each with its line."""
    write(
        tmp_path,
        {
            "a.csv": b'a,b\n1,2\n1,2,3\n"x"y,2\n3,4\n"open,5\n6,7\n\xff,8\nz\0,9\n'
            b'"multi\nline",10\n11\n12,13\n'
        },
    )

    async with opened(tmp_path, on_invalid="skip") as db:
        assert [r.data for r in await all_records(db)] == [
            {"a": "1", "b": 2},
            {"a": "3", "b": 4},
            {"a": "6", "b": 7},
            {"a": "multi\nline", "b": 10},
            {"a": "12", "b": 13},
        ]
        refused = (await db.explain()).details["refused rows"]
        assert [text.split(": ")[0] for text in refused] == [f"a.csv:{n}" for n in (3, 4, 6, 8, 9, 12)]
        assert await db.count() == 5
    async with opened(tmp_path) as db:
        with pytest.raises(InvalidRecordError, match=r"a\.csv:3: 3 cells under 2 headings") as caught:
            await db.search()
        assert caught.value.stored


async def test_a_csv_of_two_encodings_loses_only_rows_of_one(tmp_path: Path) -> None:
    """The rows in the other encoding are refused with their lines, or all are read in one that is set."""
    good = "name,n\n" + "Ålesund,1\n" * 3
    write(tmp_path, {"a.csv": good.encode() + "Ålesund,2\nOslo,3\n".encode("latin-1")})

    async with opened(tmp_path) as db:
        with pytest.raises(InvalidRecordError, match=r"a\.csv:5: column 'name': a byte .* set encoding="):
            await db.search()
    assert [row["n"] for row in await rows(tmp_path, on_invalid="skip")] == [1, 1, 1, 3]
    assert [row["n"] for row in await rows(tmp_path, encoding="latin-1")] == [1, 1, 1, 2, 3]


async def test_a_bad_line_of_json_is_reported(tmp_path: Path) -> None:
    """What is no object, is no canonical value, or is no JSON."""
    lines = ['{"a": 1}', "[1]", '{"a":', '{"a": "\\u0000"}', '{"a": ' + "1" * 30 + "}", '{"a": 2}', "null"]
    write(tmp_path, {"a.jsonl": "\n".join(lines)})

    async with opened(tmp_path, on_invalid="skip") as db:
        assert [(r.id, r.data) for r in await all_records(db)] == [
            ("a.jsonl#000000000000", {"a": 1}),
            ("a.jsonl#000000000005", {"a": 2}),
        ]
        refused = (await db.explain()).details["refused rows"]
        assert [text.split(": ")[0] for text in refused] == [f"a.jsonl:{n}" for n in (2, 3, 4, 5, 7)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv.gz",
            gzip.compress(b"a\n" + b"".join(b"%d\n" % n for n in range(99_999)))[:-300],
            "the compressed file ends early",
        ),
        ("a.jsonl.gz", b"not gzip", "not gzip"),
        ("a.jsonl.zst", b"(\xb5/\xfd" + b"garbage" * 10, "not zstd, or damaged"),
        (
            "a.jsonl.zst",
            pyarrow.compress(b"".join(b'{"n": %d}\n' % n for n in range(99_999)), "zstd", asbytes=True)[
                :-300
            ],
            "the compressed file ends early|not zstd, or damaged",
        ),
        ("a.json", b'[{"a": 1}, {"a": 2}', "expected ',', found the end of the file"),
        ("a.json", b'[{"a": 1}, {"a" 2}]', "not JSON"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', ":2: there is more after the end .* set format='jsonl'"),
        ("a.json", b'[{"a": NaN}]', "not JSON"),
        ("a.csv", b"a,b,a\n1,2,3\n", "several columns have the heading 'a'"),
        ("a.csv", "a,b\n1,2".encode("utf-16")[:-1], "truncated data"),
    ],
)
async def test_a_broken_file_is_one_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """It names the file; skipped, the other files are read."""
    write(tmp_path, {name: content, "z.jsonl": '{"z": 1}'})

    async with opened(tmp_path) as db:
        with pytest.raises(InvalidRecordError, match=f"{name}.*{message}"):
            await db.search()
    assert (await rows(tmp_path, on_invalid="skip"))[-1] == {"z": 1}


async def test_places_that_are_not_there(tmp_path: Path) -> None:
    """A missing folder, an unknown suffix, another collection: refused; an empty folder is empty."""
    with pytest.raises(ConfigError, match="there is no folder or file"):
        await rows(tmp_path / "none")
    with pytest.raises(ConfigError, match="tells no format"):
        await rows(write(tmp_path, {"x.dat": "{}"}))
    assert await rows(tmp_path, format="json") == [{}]
    assert await rows(tmp_path / "*.csv") == []
    async with opened(tmp_path, format="json") as db:
        with pytest.raises(UsageError, match="there is one collection"):
            await db.collection("other").count()
    with pytest.raises(ConfigError, match="longer than 499 bytes"):
        await rows(write(tmp_path / "long", {"/".join(["x" * 200] * 3) + ".json": "{}"}))
    with pytest.raises(ConfigError, match="would be mixed"):
        await rows(write(tmp_path / "mixed", {"a.json": "{}", "a.json#000000000001.json": "{}"}))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.json", ["a.json"]),
        ("**/*.json", ["a.json", "s/b.json", "s/t/c.json"]),
        ("s/*.json", ["b.json"]),
        ("?.json", ["a.json"]),
        ("[a-b].json", ["a.json"]),
        ("[!a].json", []),
        ("s/**", ["b.json", "t/c.json"]),
        ("a.json", ["a.json"]),
    ],
)
async def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    """`*` stays within one name, `**` crosses folders."""
    write(tmp_path, {"a.json": "{}", "s/b.json": "{}", "s/t/c.json": "{}"})

    async with opened(tmp_path / pattern) as db:
        assert [(record.id or "").rpartition("#")[0] for record in await db.search()] == expected


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "json"])
async def test_a_compressed_file_that_was_cut_is_damaged(
    tmp_path: Path, format: str, compression: str
) -> None:
    """At any byte, the first included; contents of no bytes are an empty collection."""
    text = {"csv": b"n\n1\n", "tsv": b"n\n1\n", "jsonl": b'{"n": 1}\n', "json": b'[{"n": 1}]'}[format]
    compress = (
        gzip.compress if compression == "gz" else lambda data: pyarrow.compress(data, "zstd", asbytes=True)
    )
    whole, file = compress(text), tmp_path / f"x.{format}.{compression}"
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(InvalidRecordError, match=r"ends early|damaged"):
            await rows(file)
        async with opened(file) as db:
            with pytest.raises(InvalidRecordError, match=r"ends early|damaged"):
                await db.count()

    file.write_bytes(whole)
    assert await rows(file) == [{"n": 1}]
    file.write_bytes(compress(b""))
    assert await rows(file) == []


async def test_a_url_names_a_pattern(tmp_path: Path) -> None:
    """`file:///folder/*.csv?delimiter=;`."""
    write(tmp_path, {"a.csv": "x;y\n1;2\n"})

    db = await AsyncDatabase.open(f"file://{tmp_path}/*.csv?delimiter=;")
    assert [record.data for record in await db.search()] == [{"x": 1, "y": 2}]
    await db.close()


async def test_a_tilde_that_begins_a_text_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of an unknown user is a name, and so is one after `./` or in a `Path`."""
    write(tmp_path / "home", {"x.csv": "at\nhome\n"})
    write(tmp_path / "here", {"~/x.csv": "at\nhere\n", "~no-such-user/x.csv": "at\nhere\n"})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    places = {"~/x.csv": "home", "~": "home", "./~": "here", "~no-such-user": "here", Path("./~"): "here"}

    for location, place in places.items():
        async with await AsyncDatabase.create("files", {"location": location}) as db:
            assert [record.data for record in await db.search()] == [{"at": place}]


@pytest.mark.parametrize(
    ("content", "path", "expected"),
    [
        ('{"type": "FeatureCollection", "features": [{"a": 1}, {"a": 2}]}', "features", [{"a": 1}, {"a": 2}]),
        ('{"x": {"y": [1, {"z": [{"a": 1}]}], "w": [{"b": 2}]}}', "x.w", [{"b": 2}]),
        ('{"x": {"y": 1}}', "x", [{"y": 1}]),
        (" [ ] ", None, []),
        ("", None, []),
    ],
)
async def test_a_path_inside_json(
    tmp_path: Path, content: str, path: str | None, expected: list[Any]
) -> None:
    """The array, or one object, to which it leads."""
    write(tmp_path, {"a.json": content})

    assert await rows(tmp_path, path=path) == expected
    if path is not None:
        with pytest.raises(InvalidRecordError, match="there is no 'nothing'"):
            await rows(tmp_path, path="nothing")


async def test_the_features_of_geojson_are_found(tmp_path: Path) -> None:
    """By the suffix."""
    write(tmp_path, {"a.geojson": '{"type": "FeatureCollection", "features": [{"type": "Feature"}]}'})

    assert await rows(tmp_path) == [{"type": "Feature"}]


async def test_ids_from_a_field(tmp_path: Path) -> None:
    """Order by id is theirs, a missing one is refused, a repeated one is named with both places (§8)."""
    write(tmp_path, {"a.csv": "code,n\nno,1\nde,2\nat,3\n", "b.jsonl": '{"code": 5, "n": 4}\n{"n": 5}\n'})

    async with opened(tmp_path, id="code", on_invalid="skip") as db:
        assert [r.id for r in await db.search()] == ["5", "at", "de", "no"]
        assert [r.id for r in await db.search(Query().sort("n", "desc").limit(2))] == ["5", "at"]
        assert (await db.require("de")).data == {"code": "de", "n": 2}
        assert await db.get("a.csv#000000000000") is None
        assert [r.id async for r in db.stream(page_size=1)] == ["no", "de", "at", "5"]
        assert [r.id for r in (await db.page(size=3)).records] == ["5", "at", "de"]
        assert "b.jsonl, row 2: there is no field 'code'" in (await db.explain()).details["refused rows"][0]
    write(tmp_path, {"c.jsonl": '{"code": "no"}'})
    async with opened(tmp_path / "*.[cj]s*", id="code", on_invalid="skip") as db:
        assert await db.count() == 5
        with pytest.raises(InvalidRecordError, match=r"'no' is repeated: a\.csv, row 1, and c\.jsonl, row 1"):
            await db.get("at")


async def test_every_write_is_refused(tmp_path: Path) -> None:
    """By the capability, before anything is read."""
    write(tmp_path, {"a.json": "{}"})

    async with opened(tmp_path) as db:
        write_calls: list[Any] = [
            db.create({"a": 1}), db.create_batch([{"a": 1}]), db.upsert("x", {}), db.replace("x", {}),
            db.update("x", {}), db.delete("x"), db.delete_batch(["x"]), db.delete_where(field("a") == 1),
            db.clear(), db.upsert_batch([("x", {})]), db.drop_collection("x"), db.stream_write([{"a": 1}]),
        ]  # fmt: skip
        for call in write_calls:
            with pytest.raises(UnsupportedError) as caught:
                await call
            assert caught.value.capability in ("writes", "drop")
        with pytest.raises(UnsupportedError):
            async with db.transaction():
                pass


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv", "a.csv.gz"])
async def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path, name: str) -> None:
    """Of every format the same one."""
    table = pyarrow.table({"n": range(300_000), "t": [f"{n:030}" for n in range(300_000)]})
    if name == "a.parquet":
        pyarrow.parquet.write_table(table, tmp_path / name, row_group_size=10_000)
    elif name == "a.arrow":
        with pyarrow.ipc.new_file(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=10_000)
    else:
        content = b"n,t\n" + b"".join(b"%d,%030d\n" % (n, n) for n in range(300_000))
        (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)

    async with opened(tmp_path) as db:
        with pytest.raises(UnavailableError, match="changed while it was read"):
            async for record in db.stream(page_size=1_000):
                if record["n"] == 500:
                    os.truncate(tmp_path / name, 100_000)


async def test_a_file_that_changes_under_a_reader_is_an_error(tmp_path: Path) -> None:
    """Shorter, longer or replaced: never a mix of two versions; the next call reads what is there."""
    file = write(tmp_path, {"a.jsonl": '{"n": 1}\n' * 300_000}) / "a.jsonl"

    async with opened(tmp_path) as db:
        with pytest.raises(UnavailableError, match="changed while it was read"):
            async for record in db.stream(page_size=1_000):
                if record.id == "a.jsonl#000000000500":
                    os.truncate(file, 900)
        assert await db.count() == 100
        file.write_text('{"n": 1}\n' * 300_000)
        page = await db.page(size=200_000)
        file.write_text('{"n": 2}\n' * 200)
        with pytest.raises(UnavailableError, match="start the call again"):
            await db.page(size=200_000, cursor=page.cursor)
        assert await db.count(field("n") == 2) == 200


async def test_reading_goes_on_where_a_page_ended(tmp_path: Path) -> None:
    """Any place of a file of several blocks, plain and compressed, by a new handle too."""
    rng = random.Random(1)
    lines = [f'{n},"{"é" * rng.randint(0, 40)}\n{n}"' for n in range(40_000)]
    text = "n,t\n" + "\n".join(lines) + "\n"
    write(
        tmp_path,
        {
            "a.csv": text,
            "b.csv.gz": gzip.compress(text.encode()),
            "c.csv.zst": pyarrow.compress(text.encode(), "zstd", asbytes=True),
            "d.csv": text.encode("utf-16"),
        },
    )

    async with opened(tmp_path) as db:
        wanted = [
            f"{name}#{n:012d}"
            for name in ("a.csv", "b.csv.gz", "c.csv.zst", "d.csv")
            for n in (7, 39_999, 20_000)
        ]
        got = await db.require_batch(wanted)
        assert [record["n"] for record in got] == [7, 39_999, 20_000] * 4
        page = await db.page(size=3, cursor=(await db.page(field("n") > 39_990, size=4)).cursor and None)
        assert [record["n"] for record in page.records] == [0, 1, 2]
        after = await db.search(field("_id") > "a.csv#000000039997")
        assert [record["n"] for record in after[:3]] == [39_998, 39_999, 0]
        assert len(after) == 2 + 3 * 40_000


async def test_a_long_scan_lets_the_loop_run_and_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    """The file is closed, and no thread goes on reading it."""
    write(tmp_path, {"a.jsonl": '{"n": 1, "t": "some text"}\n' * 300_000})

    async with opened(tmp_path) as db:
        task = asyncio.ensure_future(db.count(field("t").regex("x+y")))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await db.count(field("_id") <= "a.jsonl#000000000009") == 10


async def test_lines_are_right_after_rows_of_several_lines(tmp_path: Path) -> None:
    """Blank lines and cells of several lines count, whichever way a block is read."""
    good = "".join(f"{n},x\n" for n in range(200_000))
    write(tmp_path, {"a.csv": f'n,t\n{good}1,"two\nlines"\n\n{good}1\n{good}2,3,4\n'})

    async with opened(tmp_path, on_invalid="skip") as db:
        assert await db.count() == 600_001
        refused = (await db.explain()).details["refused rows"]
        assert [text.split(": ")[0] for text in refused] == ["a.csv:400005", "a.csv:600006"]
