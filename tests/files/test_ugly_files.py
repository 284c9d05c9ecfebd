"""Files as they are found: marks, encodings, texts that are not UTF-8, times of 96 bits, damaged buffers."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus import AsyncDatabase, ConfigError, InvalidRecordError, Query, field
from isthmus._query.evaluate import select
from isthmus._record import json_text_of
from isthmus.backends.files.facts import FileFacts
from isthmus.backends.files.formats.dialect import Checkpoint
from tests.breadth import size
from tests.files.folder import all_records, opened, rows, write

pytestmark = [pytest.mark.backend("files"), pytest.mark.asyncio]


async def test_a_mark_after_the_headings_is_part_of_its_cell(tmp_path: Path) -> None:
    """As the csv module has it: Arrow would drop it at the beginning of a block."""
    write(tmp_path, {"a.csv": "\ufeffa,b\n\ufeffx,1\n\ufeffy,2\n"})

    assert await rows(tmp_path) == [{"a": "\ufeffx", "b": 1}, {"a": "\ufeffy", "b": 2}]


async def test_a_column_without_values_takes_every_condition(tmp_path: Path) -> None:
    """Its dictionary is empty; a predicate never raises because of what is stored."""
    pq.write_table(
        pa.table({"t": pa.array([None, None], pa.string()).dictionary_encode()}), tmp_path / "a.parquet"
    )

    async with opened(tmp_path) as db:
        for where in (field("t").like("a%"), field("t").ilike("%"), field("t").regex("."), field("t") == "a"):
            assert await db.count(where) == len(await db.search(where)) == 0
            assert await db.count(~where) == len(await db.search(~where)) == 2


def _damage_footer(file: Path) -> None:
    pq.write_table(pa.table({"n": list(range(100)), "t": ["x"] * 100}), file, row_group_size=50)
    content = bytearray(file.read_bytes())
    content[len(content) - 8 - int.from_bytes(content[-8:-4], "little") + 48] ^= 64  # values of a column
    file.write_bytes(content)


def _damage_indices(file: Path) -> None:
    pq.write_table(pa.table({"t": ["v0", "v1", "v2"] * 20}), file, compression="none")
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    end = column.dictionary_page_offset + column.total_compressed_size
    content = bytearray(file.read_bytes())
    content[end - 8 : end] = b"\xff" * 8
    file.write_bytes(content)


def _damage_page(file: Path) -> None:
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"n": [1000, 2000, 3000]}), file, write_page_checksum=True, **options)
    content = bytearray(file.read_bytes())
    content[content.find((2000).to_bytes(8, "little"))] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [_damage_footer, _damage_indices, _damage_page])
async def test_damage_in_a_parquet_file_is_reported(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """No row is lost silently, and none is read with another value."""
    damage(tmp_path / "a.parquet")

    with pytest.raises(InvalidRecordError, match=r"a\.parquet"):
        await rows(tmp_path)
    async with opened(tmp_path, on_invalid="skip") as db:
        assert len(await db.search()) == await db.count()
        assert "a.parquet" in (await db.explain()).details["refused rows"][0]


async def test_a_row_is_left_out_by_every_query_or_by_none(tmp_path: Path) -> None:
    """Whichever columns a query reads."""
    table = pa.table({"a": [1, 2, 3, 4], "b": [1.0, float("nan"), 2.0, None]})
    pq.write_table(table, tmp_path / "a.parquet")

    async with opened(tmp_path, on_invalid="skip") as db:
        assert [r["a"] for r in await db.search()] == [1, 3, 4]
        assert await db.count() == 3
        assert [r["a"] for r in await db.search(Query().select("a"))] == [1, 3, 4]
        assert await db.aggregate(n="count", total=("sum", "a")) == [{"n": 3, "total": 8}]
        for where in (field("a") == 2, ~(field("b") > 0), field("a") > 1):
            assert await db.count(where) == len(await db.search(where))


@pytest.mark.parametrize(
    ("name", "text", "path"),
    [
        ("a.geojson", '{"features": [{"id": 1}], "properties": {"tru', None),
        ("a.json", '{"r": [{"a": 1}]} x', "r"),
        ("a.json", '{"q": {"r": [{"a": 1}], "r": []}}', "q.r"),
        ("a.json", '{"q": {"r": [{"a": 1}]}', "q.r"),
        ("a.json", '{"q": {"r": [{"a": 1}] 7}}', "q.r"),
    ],
)
async def test_what_follows_the_records_of_a_document_is_read_too(
    tmp_path: Path, name: str, text: str, path: str | None
) -> None:
    """It may be cut or damaged there."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRecordError, match=r"\.(geo)?json:1: "):
        await rows(tmp_path, path=path)


async def test_a_document_may_have_more_than_the_records(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": '{"p": 1, "q": {"r": [{"a": 1}], "s": [{}, "]"]}, "t": {"r": 2}}'})
    assert await rows(tmp_path, path="q.r") == [{"a": 1}]


@pytest.mark.parametrize(
    "settings", [{"delimiter": "§"}, {"header": ["x", "x"]}, {"header": []}, {"location": "x" * 300 + ".csv"}]
)
async def test_settings_that_no_file_can_have_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    write(tmp_path, {"a.csv": "a\n1\n"})
    with pytest.raises(ConfigError, match="files: "):
        await AsyncDatabase.create("files", {"location": str(tmp_path), **settings})


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
async def test_the_name_of_utf_8_with_a_mark_is_an_encoding(tmp_path: Path, mark: bytes) -> None:
    """No row is lost, whether the mark is there or not."""
    write(tmp_path, {"a.csv": mark + "a,é\n1,x\n2,y\n".encode()})

    assert await rows(tmp_path, encoding="utf-8-sig") == [{"a": 1, "é": "x"}, {"a": 2, "é": "y"}]


@pytest.mark.parametrize(
    "name", ["rot13", "hex", "base64", "punycode", "idna", "unicode_escape", "undefined"]
)
async def test_an_encoding_that_is_not_of_text_files_is_refused(tmp_path: Path, name: str) -> None:
    """Before a file is read."""
    with pytest.raises(ConfigError, match="there is no such encoding of text"):
        await rows(write(tmp_path, {"a.csv": "a\n1\n"}), encoding=name)


async def test_zeros_before_an_integer_do_not_make_it_long(tmp_path: Path) -> None:
    """A setting makes them numbers; the refusal of a longer one names the line."""
    write(tmp_path, {"a.csv": "a\n" + "0" * 30 + "7\n-00012\n" + "9" * 20 + "\n"})

    async with opened(tmp_path, types={"a": "number"}, on_invalid="skip") as db:
        assert [record["a"] for record in await db.search()] == [7, -12]
        assert (await db.explain()).details["refused rows"][0].startswith("a.csv:4: column 'a': ")


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (b'{"n": ', ":3: not JSON"),
        (b"]", ":3: not JSON"),
        (b'{"n": NaN}]', ":3: item 3: not JSON"),
        (b'{"n": -Infinity}]', ":3: item 3: not JSON"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
async def test_the_rows_before_damage_in_a_document_are_read(
    tmp_path: Path, end: bytes, message: str, compressed: bool
) -> None:
    """And what is wrong has the number of its own row."""
    content = b'[{"n": 1},\n{"n": 2},\n' + end
    name = "a.json.gz" if compressed else "a.json"
    write(tmp_path, {name: gzip.compress(content) if compressed else content})

    async with opened(tmp_path) as db:
        with pytest.raises(InvalidRecordError, match=message):
            await db.search()
    assert await rows(tmp_path, on_invalid="skip") == [{"n": 1}, {"n": 2}]


async def test_the_rows_before_the_end_of_a_cut_archive_are_read(tmp_path: Path) -> None:
    """Of a document that is cut inside of its compression."""
    random_ = random.Random(1)
    texts = ",".join(f'{{"n": {random_.random()}}}' for _ in range(9_999))
    write(tmp_path, {"a.json.gz": gzip.compress(f"[{texts}]".encode())[:-2_000]})

    assert len(await rows(tmp_path, on_invalid="skip")) > 8_000


def _not_utf8() -> pa.Array:
    texts = pa.array([b"a", b"\xff\xfe", b"b", "é".encode()], pa.binary())
    return pa.StringArray.from_buffers(4, *texts.buffers()[1:])


def _save(folder: Path, format: str, table: pa.Table) -> None:
    if format == "parquet":
        pq.write_table(table, folder / "a.parquet")
    else:
        with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
async def test_a_text_that_is_not_utf_8_refuses_its_row(tmp_path: Path, format: str) -> None:
    """Conditions take it as no value, client-side or not; no other row is touched."""
    _save(tmp_path, format, pa.table({"t": _not_utf8(), "n": [1, 2, 3, 4]}))

    async with opened(tmp_path) as db:
        with pytest.raises(InvalidRecordError, match=r"row 2: column 't'.*invalid start byte"):
            await db.search()
    async with opened(tmp_path, on_invalid="skip") as db:
        assert [record["n"] for record in await all_records(db)] == [1, 3, 4]
        for condition, count in (
            (field("t") == "b", 1),
            (field("t").contains("b"), 1),
            (field("t").ilike("B"), 1),
            (field("t").exists(), 3),
            (field("t") > "a", 2),
        ):
            assert await db.count(condition) == count
        assert await db.aggregate(by="t", n="count") == [
            {"t": "a", "n": 1},
            {"t": "b", "n": 1},
            {"t": "é", "n": 1},
        ]


@pytest.mark.parametrize("format", ["parquet", "arrow"])
async def test_names_that_no_record_can_have_are_refused(tmp_path: Path, format: str) -> None:
    """A column's refuses the file, a repeated one of a struct its rows."""
    pairs = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"])
    _save(tmp_path, format, pa.table({"s": pairs}))
    with pytest.raises(InvalidRecordError, match="column 's': a struct with a repeated name"):
        await rows(tmp_path)

    _save(tmp_path, format, pa.table({"a\0b": [1]}))
    with pytest.raises(InvalidRecordError, match=r"the name of a column: text with U\+0000"):
        await rows(tmp_path)


async def test_a_time_of_day_is_not_cut_in_silence(tmp_path: Path) -> None:
    """Its nanoseconds refuse the row, as those of a timestamp do."""
    times = pa.array([1_000, 1_001, None], pa.time64("ns"))
    pq.write_table(pa.table({"t": times}), tmp_path / "a.parquet")

    with pytest.raises(InvalidRecordError, match="row 2: column 't': a fraction below a microsecond"):
        await rows(tmp_path)
    assert await rows(tmp_path, round=True) == [
        {"t": "00:00:00.000001"},
        {"t": "00:00:00.000001"},
        {"t": None},
    ]


async def test_times_of_96_bits_reach_from_year_1_to_9999(tmp_path: Path) -> None:
    """As Spark writes them; Arrow alone would read others beyond 1678 to 2262."""
    far = [dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1), None, dt.datetime(2026, 1, 2, 3, 4, 5, 6)]
    table = pa.table({"at": pa.array(far, pa.timestamp("us")), "n": range(4)})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    text = "2026-01-02T03:04:05.000006Z"

    for settings in ({"zone": "UTC"}, {"zone": "UTC", "round": True}):
        assert [row["at"] for row in await rows(tmp_path, **settings)] == [
            "9999-12-31T00:00:00.000000Z",
            "0001-01-01T00:00:00.000000Z",
            None,
            text,
        ]
    late = field("at") >= dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert [row["n"] for row in await rows(tmp_path, late, zone="UTC")] == [0, 3]

    near = pa.table({"at": pa.array([1_000, 1_001], pa.timestamp("ns"))})
    pq.write_table(near, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(InvalidRecordError, match="row 2: column 'at': a fraction below a microsecond"):
        await rows(tmp_path, zone="UTC")


_DAMAGE = """
import asyncio, io, random, sys
from pathlib import Path
import pyarrow as pa
from isthmus import AsyncDatabase, IsthmusError, field
place, seed, times = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
table = pa.table({
    "n": range(50), "t": [f"text{n}é" for n in range(50)], "l": [[1, 2, n] for n in range(50)],
    "c": pa.array([f"c{n % 3}" for n in range(50)]).dictionary_encode(),
    "s": [{"y": f"n{n}"} for n in range(50)],
})
file = io.BytesIO()
with pa.ipc.new_file(file, table.schema) as writer:
    writer.write_table(table)
async def main():
    rng = random.Random(seed)
    for _ in range(times):
        data = bytearray(file.getvalue())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))
        place.write_bytes(data)
        async with AsyncDatabase("files", {"location": str(place)}) as db:
            for call in (
                lambda: db.search(),
                lambda: db.count(field("t").contains("t1") | (field("c") == "c1")),
                lambda: db.aggregate(by="c", n=("sum", "n"), m=("max", "t")),
                lambda: db.search(field("l") > 40),
            ):
                try:
                    await call()
                except IsthmusError:
                    pass
asyncio.run(main())
"""


async def test_damaged_buffers_of_arrow_do_not_end_the_process(tmp_path: Path) -> None:
    """Positions that lead outside of a buffer are found before anything is read there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _DAMAGE, str(tmp_path / "a.arrow"), "1", str(size(25, 1_000))),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()


async def test_a_selection_of_fields_makes_no_objects(tmp_path: Path) -> None:
    """Records hold the JSON of these fields alone, and are those that the evaluator cuts."""
    count = 2_500
    table = pa.table(
        {
            "n": range(count),
            "t": [f"t{n % 7}" for n in range(count)],
            "x": [None if n % 5 == 0 else n / 4 for n in range(count)],
        }
    )
    _save(tmp_path, "parquet", table)
    _save(tmp_path, "arrow", table)
    write(tmp_path, {"b.csv": "".join(["n,t,x\n", *(f"{n},t{n % 7},\n" for n in range(count))])})

    async with opened(tmp_path) as db:
        for condition in (None, field("x") > 100, ~(field("t") == "t1")):
            everything = Query() if condition is None else Query().filter(condition)
            for names in (("n",), ("t", "x"), ("x", "none")):
                query = everything.select(*names)
                found = await db.search(query)
                assert all(json_text_of(record) is not None for record in found)
                assert [(record.id, record.data) for record in found] == [
                    (record.id, select(record.data, query.fields or ()))
                    for record in await db.search(everything)
                ]
            assert {frozenset(r.data) for r in await db.search(everything.select("none"))} == {frozenset()}
            assert [r.data async for r in db.stream(everything.select("t"))] == [
                r.data for r in await db.search(everything.select("t"))
            ]


async def test_places_to_read_on_from_stay_in_order() -> None:
    """Whichever of several threads notes one first."""
    facts = FileFacts()
    for row in (5, 20, 10, 20, 30):
        facts.note(Checkpoint(row, row))

    assert [place.row for place in facts.checkpoints] == [5, 20, 30]
    assert facts.nearest(29) == Checkpoint(20, 20)
