"""Commands between two stores: copy, diff, verify."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from isthmus import AsyncDatabase, Collection, ConfigError, UsageError
from isthmus.cli._commands.files import OnError
from isthmus.cli._errors import Code, CommandError
from isthmus.cli._filter import parse_query
from isthmus.cli._options import AsJson, Ask, run
from isthmus.cli._output import cell, note, print_facts, print_json
from isthmus.cli._stores import Place, opened, place
from isthmus.transfer import Comparison, Difference, Progress, Receipt, copy, differences, repair, verify
from isthmus.transfer._fields import Transform

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="The URL to read; -: $ISTHMUS_URL.")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="The URL to write or compare.")]
Query = Annotated[
    str | None,
    typer.Option("--where", "-q", metavar="FILTER", show_default=False, help="Only matching records."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="NAME", show_default=False, help="The source's collection."),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="NAME", show_default=False, help="The target's collection.")
]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="OLD=NEW", show_default=False, help="Rename a field; OLD= leaves it out."),
]
TransformName = Annotated[
    str | None,
    typer.Option("--transform", metavar="MOD:FUNC", show_default=False, help="A hook for each record."),
]
DeleteExtra = Annotated[
    bool, typer.Option("--delete-extra", help="With --repair: delete what only the target has.")
]


COMMANDS = ("copy", "diff", "verify")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("copy")(copy_command)
    app.command("diff")(diff)
    app.command("verify")(verify_command)


def copy_command(
    source: Source,
    target: Target,
    query: Query = None,
    from_: From = None,
    to: To = None,
    mapping: Map = None,
    transform: TransformName = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Note acknowledged ranges here."),
    ] = None,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the journal ends.")] = False,
    check: Annotated[bool, typer.Option("--verify", help="Compare both sides at the end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, tell what would be.")] = False,
    throttle: Annotated[
        float | None, typer.Option(metavar="N", show_default=False, help="At most N records a second.")
    ] = None,
    page: Annotated[
        int | None, typer.Option(metavar="N", show_default=False, help="At most N records a range.")
    ] = None,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="What a refused record does.")
    ] = OnError.STOP,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Copy records, in bounded memory; killed, it goes on with --resume."""
    if resume and journal is None:
        raise UsageError("--resume needs --journal FILE")
    found = parse_query(query)
    sides = _Pair(source, target, from_, to, ask=ask, writes=not dry_run)
    fields, hook = _fields(mapping), _hook(transform)

    async def work() -> tuple[Receipt, Comparison | None]:
        async with sides as (left, right):
            with _bar("copy", as_json=as_json) as report:
                receipt = await copy(
                    left,
                    right,
                    found,
                    journal=journal,
                    resume=resume,
                    fields=fields,
                    transform=hook,
                    on_error=on_error.value,
                    dry_run=dry_run,
                    throttle=throttle,
                    page_size=page,
                    progress=report,
                    source_name=sides.source.shown,
                    target_name=sides.target.shown,
                )
            compared = None
            if check and not dry_run:
                compared = await verify(left, right, found, fields=fields, transform=hook)
            return receipt, compared

    try:
        receipt, compared = run(work())
    except KeyboardInterrupt:
        if journal is not None:
            note(f"the journal {journal} is complete up to here: --resume goes on")
        raise
    _receipt(receipt, compared, as_json=as_json)
    if compared is not None and not compared.equal:
        raise CommandError("the sides differ after the copy", Code.NO)
    if receipt.rejected:
        raise CommandError(f"the target refused {receipt.rejected} records", Code.RECORDS)


def _receipt(receipt: Receipt, compared: Comparison | None, *, as_json: bool) -> None:
    if as_json:
        verified = {} if compared is None else {"verified": compared.to_json()}
        print_json({**receipt.to_json(), **verified})
        return
    facts: list[tuple[str, Any]] = [("source", receipt.source), ("target", receipt.target)]
    facts.append(("read", receipt.read))
    if receipt.dry_run:
        facts += [
            ("would create", receipt.would_create),
            ("would change", receipt.would_change),
            ("unchanged", receipt.unchanged),
        ]
    else:
        facts.append(("written", receipt.written))
    if receipt.left_out:
        facts.append(("left out", receipt.left_out))
    if receipt.rejected:
        facts.append(("refused", receipt.rejected))
        facts += [("", f"{r.id}: {r.error}") for r in receipt.rejections[:20]]
    if receipt.earlier:
        facts.append(("resumed after", f"{receipt.resumed_at} ({receipt.earlier} records before)"))
    facts.append(("digest", receipt.digest.hex if receipt.digest is not None else "none"))
    if compared is not None:
        equal = "equal" if compared.equal else "NOT EQUAL"
        facts.append(("verified", f"{equal}, {compared.ranges} ranges, digest {compared.target.hex}"))
    rate = (receipt.read - receipt.earlier) / receipt.seconds if receipt.seconds else 0
    facts.append(("took", f"{receipt.seconds:.1f} s, {rate:,.0f} records/s"))
    print_facts(facts)


def diff(
    source: Source,
    target: Target,
    query: Query = None,
    from_: From = None,
    to: To = None,
    mapping: Map = None,
    transform: TransformName = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="Show at most N; 0: all.")] = 100,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Show each record that differs and where; exit code 1 if there is one.

    + only in the source, - only in the target, ~ in both but not the same.
    """
    found = parse_query(query)
    sides = _Pair(source, target, from_, to, ask=ask)
    fields, hook = _fields(mapping), _hook(transform)
    counts = {"missing": 0, "extra": 0, "changed": 0}

    async def work() -> None:
        async with sides as (left, right):
            differing = differences(left, right, found, fields=fields, transform=hook)
            async for difference in differing:
                counts[difference.kind] += 1
                if not limit or sum(counts.values()) <= limit:
                    _show(difference, as_json=as_json)

    run(work())
    if sum(counts.values()):
        text = f"{counts['missing']} missing, {counts['changed']} changed, {counts['extra']} extra"
        raise CommandError(f"the sides differ: {text}", Code.NO)


_SIGNS = {"missing": "+", "extra": "-", "changed": "~"}


def _show(difference: Difference, *, as_json: bool) -> None:
    paths = difference.paths()
    if as_json:
        shape: dict[str, Any] = {"kind": difference.kind, "id": difference.id}
        if paths:
            shape["paths"] = {
                path: {
                    **({} if left is ... else {"source": left}),
                    **({} if right is ... else {"target": right}),
                }
                for path, (left, right) in paths.items()
            }
        print_json(shape)
        return
    sys.stdout.write(f"{_SIGNS[difference.kind]} {cell(difference.id)}\n")
    for path, (left, right) in paths.items():
        sys.stdout.write(f"    {path}: {_short(left)} -> {_short(right)}\n")


def _short(value: Any) -> str:
    text = "(absent)" if value is ... else cell(value) if value is not None else "null"
    return text if len(text) <= 60 else text[:59] + "…"


def verify_command(
    source: Source,
    target: Target,
    query: Query = None,
    from_: From = None,
    to: To = None,
    mapping: Map = None,
    transform: TransformName = None,
    *,
    mend: Annotated[bool, typer.Option("--repair", help="Write what differs, and only that.")] = False,
    delete_extra: DeleteExtra = False,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Compare digests by ranges of ids; exit code 1 if the sides differ."""
    if delete_extra and not mend:
        raise UsageError("--delete-extra goes with --repair")
    found = parse_query(query)
    sides = _Pair(source, target, from_, to, ask=ask, writes=mend)
    fields, hook = _fields(mapping), _hook(transform)

    async def work() -> tuple[Comparison, dict[str, int]]:
        async with sides as (left, right):
            compared = await verify(left, right, found, fields=fields, transform=hook)
            if not mend or compared.equal:
                return compared, {}
            mended = await repair(
                left, right, found, fields=fields, transform=hook, delete_extra=delete_extra
            )
            compared = await verify(left, right, found, fields=fields, transform=hook)
            return compared, {"written": mended.written, "deleted": mended.deleted, "left": mended.left}

    compared, mended = run(work())
    if as_json:
        print_json({**compared.to_json(), **({"repaired": mended} if mended else {})})
    else:
        _comparison(sides, compared, mended)
    if not compared.equal:
        raise CommandError("the sides differ", Code.NO)


def _comparison(sides: _Pair, compared: Comparison, mended: dict[str, int]) -> None:
    facts: list[tuple[str, Any]] = [
        ("source", f"{compared.source.count} records, digest {compared.source.hex}"),
        ("target", f"{compared.target.count} records, digest {compared.target.hex}"),
        ("ranges", f"{compared.ranges}, {compared.differing_ranges} differ"),
        (
            "differences",
            f"{compared.missing} missing, {compared.changed} changed, {compared.extra} extra",
        ),
    ]
    facts += [("", f"{kind} {id}") for kind, id in compared.differences[:20]]
    if mended:
        facts.append(("repaired", f"{mended['written']} written, {mended['deleted']} deleted"))
    facts.append(("took", f"{compared.seconds:.1f} s"))
    facts.append(("result", "equal" if compared.equal else "NOT EQUAL"))
    print_facts(facts)


class _Pair:
    """Both sides, opened together."""

    def __init__(
        self, source: str, target: str, from_: str | None, to: str | None, *, ask: bool, writes: bool = False
    ) -> None:
        self.source = place(source, from_, ask=ask, role="source")
        self.target = place(target, to, ask=ask, role="target")
        self._writes = writes
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> tuple[AsyncDatabase | Collection, AsyncDatabase | Collection]:
        await self._stack.__aenter__()
        try:
            left = await self._side("source", self.source, writes=False)
            return left, await self._side("target", self.target, writes=self._writes)
        except BaseException:
            await self._stack.aclose()
            raise

    async def _side(self, role: str, where: Place, *, writes: bool) -> AsyncDatabase | Collection:
        return await self._stack.enter_async_context(opened(where, writes=writes))

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.aclose()


@contextmanager
def _bar(label: str, *, as_json: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Show a progress bar on the terminal's error stream; nothing where nobody looks."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield None
        return
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task(label, total=None, rate=0.0)

    def report(progress: Progress) -> None:
        bar.update(task, completed=progress.done, total=progress.total, rate=progress.rate)

    with bar:
        yield report


def _fields(mapping: list[str] | None) -> dict[str, str | None]:
    fields: dict[str, str | None] = {}
    for pair in mapping or []:
        old, equals, new = pair.partition("=")
        if not (old and equals):
            raise UsageError(f"--map {pair!r}: expected OLD=NEW, or OLD= to leave it out")
        fields[old] = new or None
    return fields


def _hook(name: str | None) -> Transform | None:
    """Return the function of `module:function`, looked for in the current folder too."""
    if name is None:
        return None
    module, colon, function = name.partition(":")
    if not colon:
        raise UsageError(f"--transform {name!r}: expected module:function")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--transform {name}: {error}") from None
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise ConfigError(f"--transform {name}: this is no function")
    hook: Transform = found
    return hook
