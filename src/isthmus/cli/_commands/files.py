"""Commands between a file and a store: load and dump."""

from __future__ import annotations

import contextlib
import enum
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus import AccessError, Collection, UsageError
from isthmus.cli._commands.query import NO_LIMIT, build_query, split_list, write_matches
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._formats.csv import CSVStyle
from isthmus.cli._formats.input_line import InputFormat
from isthmus.cli._formats.output_file import is_stdout, open_output, parse_path
from isthmus.cli._formats.writer import Format, choose_format, open_writer
from isthmus.cli._load_journal import LoadJournal, LoadProgress, require_rereadable
from isthmus.cli._loader import Loader, OnClash
from isthmus.cli._options import (
    AsJson,
    CollectionName,
    NullText,
    OnError,
    PlainCells,
    PromptPassword,
    RequiredStore,
)
from isthmus.cli._output import print_json, print_note
from isthmus.cli._progress import RowProgress, show_progress
from isthmus.cli._shorthand import to_store_url
from isthmus.cli._store_files import identify_file, require_distinct_outputs, require_other_files
from isthmus.cli._stores import StoreAddress, resolve_store, run_on_store
from isthmus.transfer import Progress


class LoadMode(enum.StrEnum):
    """The older form of --on-clash: create is fail, upsert is replace."""

    UPSERT = "upsert"
    CREATE = "create"


FileFormat = Annotated[
    Format | None, typer.Option("--format", "-f", show_default=False, help="Default: by the file's suffix.")
]
IdFields = Annotated[
    str | None,
    typer.Option("--id", metavar="FIELDS", show_default=False, help="Data fields that hold the id."),
]
Clash = Annotated[
    OnClash | None,
    typer.Option("--on-clash", show_default=False, help="On an id that exists."),
]
Mode = Annotated[LoadMode | None, typer.Option("--mode", hidden=True)]
Rejects = Annotated[
    Path | None,
    typer.Option("--rejects", metavar="FILE", show_default=False, help="Write refused lines here, as JSON."),
]
LineOnError = Annotated[OnError, typer.Option("--on-error", help="On a rejected line.")]
LoadFormat = Annotated[
    InputFormat | None,
    typer.Option("--format", "-f", show_default=False, help="Default: by the file's suffix."),
]
Types = Annotated[
    str | None,
    typer.Option("--types", metavar="A=KIND,B=KIND", show_default=False, help="Columns: text, number, bool."),
]
Text = Annotated[bool, typer.Option("--text", help="All cells of CSV are text.")]
Null = Annotated[
    str | None, typer.Option("--null", metavar="A,B", show_default=False, help="Cells that are null: NA.")
]
Zone = Annotated[
    str | None, typer.Option("--zone", metavar="ZONE", show_default=False, help="Of times without one: UTC.")
]
Round = Annotated[bool, typer.Option("--round", help="Cut fractions below a microsecond.")]
Delimiter = Annotated[
    str | None, typer.Option("--delimiter", metavar="C", show_default=False, help="Of CSV; else found.")
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", metavar="E", show_default=False, help="Of CSV; else UTF-8.")
]
Header = Annotated[bool, typer.Option("--header/--no-header", help="Whether CSV begins with headings.")]
Headings = Annotated[
    str | None,
    typer.Option("--headings", metavar="A,B", show_default=False, help="Of CSV that begins with none."),
]
JSONPath = Annotated[
    str | None,
    typer.Option("--path", metavar="KEYS", show_default=False, help="Of the records in a JSON document."),
]
Journal = Annotated[
    Path | None, typer.Option("--journal", metavar="FILE", show_default=False, help="Keep what is loaded.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where the journal ends.")]
Records = Annotated[bool, typer.Option("--records", help="Each row is a record: id, data, metadata.")]
Plain = Annotated[bool, typer.Option("--plain", help="Each row is data, even that of a dump.")]
_OBJECTS = 100_000
"""New objects after which the garbage collector runs, in place of 700."""
_ATOMIC_BATCH = 4_000
"""Lines of a batch that is one transaction: each costs a commit."""
_TAB = {"\\t": "\t", "tab": "\t"}


def load(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE FILE...", help="Store URL (-: $ISTHMUS_URL) and files (-: standard input)."
        ),
    ],
    format: LoadFormat = None,
    id_fields: IdFields = None,
    on_clash: Clash = None,
    mode: Mode = None,
    on_error: LineOnError = OnError.STOP,
    rejects: Rejects = None,
    types: Types = None,
    null: Null = None,
    zone: Zone = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    path: JSONPath = None,
    journal: Journal = None,
    collection: CollectionName = None,
    *,
    resume: Resume = False,
    text: Text = False,
    round: Round = False,
    header: Header = True,
    headings: Headings = None,
    records: Records = False,
    plain: Plain = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Load files into a store; count what was created, replaced and refused.

    JSON, JSON lines, CSV, TSV, Parquet and Arrow, plain, gz or zst. A column of CSV holds numbers or
    booleans if all its cells do. The id comes from a dumped record or --id; else it is new.
    """
    store, files = split_places(places)
    settings: dict[str, Any] = {
        "types": "text" if text else types,
        "null": split_list(null),
        "zone": zone,
        "delimiter": _TAB.get(delimiter or "", delimiter),
        "encoding": encoding,
        "path": path,
        "round": round,
        "header": split_list(headings) or header,
    }
    settings = {name: value for name, value in settings.items() if value not in (None, [])}
    rows = {"id_fields": split_list(id_fields), "records": records, "plain": plain}
    address = resolve_store(store, collection, prompt=prompt)
    loader = Loader(_choose_clash(on_clash, mode), skip_refused=on_error is OnError.SKIP)
    _require_journal(journal, files, resume=resume)
    _require_distinct(address, files, {"--rejects": rejects, "--journal": journal})
    try:
        with _collect_rarely(), show_progress("load", as_json=as_json) as show:
            _load_files(loader, address, files, format, settings, rows, rejects, journal, show, resume=resume)
    except (KeyboardInterrupt, Exception) as error:
        if loader.read or isinstance(error, KeyboardInterrupt):
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            hint = "" if journal is None else f"; --resume goes on with the journal {journal}"
            loader.report_failure(reason, as_json=as_json, hint=hint)
        raise
    loader.report(as_json=as_json)
    loader.raise_if_refused()


@contextlib.contextmanager
def _collect_rarely() -> Iterator[None]:
    """Let the garbage collector look for cycles less often: rows are many objects, and have none."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _load_files(
    loader: Loader,
    address: StoreAddress,
    files: list[Path],
    format: InputFormat | None,
    settings: dict[str, Any],
    rows: dict[str, Any],
    rejects: Path | None,
    journal: Path | None,
    show: Callable[[Progress], None],
    *,
    resume: bool,
) -> None:
    """Load files; `rows` says how a row becomes a record."""
    # The default pool keeps memory that is free; read when pyarrow is imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # With the settings of files, which other commands do not need.
    from isthmus.cli._formats.reader import Input

    with contextlib.ExitStack() as stack:
        # Opened first: a missing file must not leave a new store behind.
        source = Input(files, format, settings, **rows)
        stack.callback(source.close)
        opened = None
        if journal is not None:
            how = {**settings, "format": format, **rows, "on_clash": loader.on_clash}
            names = source.describe_files()
            opened = LoadJournal(journal, files=names, target=address.display_name, settings=how)
            stack.callback(opened.close)
        elif rejects is not None:
            loader.rejects = stack.enter_context(open_output(rejects))

        async def run(target: Collection) -> None:
            if target.capabilities.atomic_batch and source.reads_ahead:
                loader.batch_size = _ATOMIC_BATCH
            progress = None if opened is None else _begin(loader, opened, target, resume=resume)
            if progress is not None and progress.complete:
                return
            if opened is not None and progress is not None and rejects is not None:
                loader.rejects = stack.enter_context(opened.open_rejects(rejects, progress))
            progress_of = RowProgress(source.estimate_rows, loader.read).of
            loader.on_batch = lambda rows: show(progress_of(rows))
            lines = source.lines(loader.ids.make_ids, loader.read)
            await loader.load(target, lines, ahead=source.reads_ahead)
            await _refresh(target)

        run_on_store(address, run, writes=True)


async def _refresh(target: Collection) -> None:
    """Let the next command find the records, which Elasticsearch would show a second later."""
    try:
        await target.refresh()
    except AccessError:
        print_note("searches find the records when the store refreshes: this user may not ask for it")


def _begin(loader: Loader, journal: LoadJournal, target: Collection, *, resume: bool) -> LoadProgress:
    """Open a journal, and let the loader go on after what it acknowledges."""
    if not target.capabilities.durable:
        raise UsageError("--journal needs a store that keeps its records")
    progress = journal.open(resume=resume, batch_size=loader.batch_size)
    loader.resume(journal, progress)
    return progress


def _require_journal(journal: Path | None, files: list[Path], *, resume: bool) -> None:
    """Raise `UsageError` for files that a journal cannot serve, or if there is none to resume."""
    if journal is not None:
        require_rereadable(files)
    elif resume:
        raise UsageError("--resume needs --journal FILE")


def _require_distinct(address: StoreAddress, files: list[Path], outputs: Mapping[str, Path | None]) -> None:
    """Raise `UsageError` for a file that is given twice, or that the load would write over."""
    require_other_files(address, outputs)
    require_distinct_outputs(outputs)
    known: set[object] = set()
    for file in files:
        if not file.is_file():
            continue
        identity = identify_file(file)
        if identity in known:
            raise UsageError(f"{file} is given twice")
        known.add(identity)
    for option, output in outputs.items():
        if output is not None and identify_file(output) in known:
            raise UsageError(f"{option} {output}: this is a file to load, and would be written over")


def split_places(places: list[str]) -> tuple[str, list[Path]]:
    """Return the store and the files of a command, which may come in any order.

    The store is the one that is a URL, or else the only SQLite file, or else the first. Raises
    `CommandError` if it is not clear which is which.
    """
    urls = [place for place in places if "://" in place]
    if len(urls) > 1:
        raise CommandError("load writes to one store; pass one URL and the files to load", ExitCode.USAGE)
    databases = [place for place in places if (to_store_url(place) or "").startswith("sqlite:")]
    store = urls[0] if urls else databases[0] if len(databases) == 1 else places[0]
    rest = list(places)
    rest.remove(store)
    if not rest:
        missing = "file" if urls or store == "-" or to_store_url(store) is None else "store"
        raise CommandError(f"no {missing} given: isthmus load STORE FILE...", ExitCode.USAGE)
    if rest.count("-") > 1:
        raise CommandError("standard input can be read only once", ExitCode.USAGE)
    return store, list(map(parse_path, rest))


def _choose_clash(on_clash: OnClash | None, mode: LoadMode | None) -> OnClash:
    if mode is None:
        return on_clash or OnClash.REPLACE
    if on_clash is not None:
        raise CommandError("--mode is the older name of --on-clash: give one of them", ExitCode.USAGE)
    return OnClash.FAIL if mode is LoadMode.CREATE else OnClash.REPLACE


def dump(
    store: RequiredStore,
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=parse_path, help="-: standard output.")],
    filter: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", show_default=False, help='age>=25 and city="Oslo", or JSON.'),
    ] = None,
    format: FileFormat = None,
    select: Annotated[
        str | None, typer.Option("--select", metavar="FIELDS", show_default=False, help="Only these fields.")
    ] = None,
    null: NullText = None,
    collection: CollectionName = None,
    *,
    plain: PlainCells = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Write matching records to a file in the order of their ids, in bounded memory.

    JSON lines contain everything; CSV and Parquet contain ids, data and metadata. The file appears
    under its name when it is complete.
    """
    chosen = choose_format(file, format, Format.JSONL)
    address = resolve_store(store, collection, prompt=prompt)
    require_other_files(address, {"FILE": file})
    query = build_query(filter, limit=NO_LIMIT, select=select)

    async def export(source: Collection) -> int:
        with open_writer(file, chosen, style=CSVStyle(null, plain)) as writer:
            await write_matches(source, query, writer)
        return writer.count

    count = run_on_store(address, export)
    if is_stdout(file):
        return
    if as_json:
        print_json({"written": count, "file": str(file)})
    else:
        sys.stdout.write(f"{count} written to {file}\n")
