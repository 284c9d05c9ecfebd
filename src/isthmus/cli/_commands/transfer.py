"""Commands between two stores: copy, diff, verify."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus import Collection, ConfigError, UsageError, transfer
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._filter import parse_query
from isthmus.cli._options import AsJson, OnError, PromptPassword
from isthmus.cli._output import format_value, print_facts, print_json, print_note
from isthmus.cli._progress import show_progress
from isthmus.cli._store_files import require_other_files
from isthmus.cli._stores import open_collection, resolve_store
from isthmus.transfer import Comparison, Difference, Progress, Receipt
from isthmus.transfer._fields import Transform

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="URL to read from; -: $ISTHMUS_URL.")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="URL to write to or to compare.")]
Where = Annotated[
    str | None,
    typer.Option("--where", "-q", metavar="FILTER", show_default=False, help="Only matching records."),
]
SourceCollection = Annotated[
    str | None, typer.Option("--from", metavar="NAME", show_default=False, help="Collection of the source.")
]
TargetCollection = Annotated[
    str | None, typer.Option("--to", metavar="NAME", show_default=False, help="Collection of the target.")
]
FieldMap = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="OLD=NEW", show_default=False, help="Rename a field; OLD= omits it."),
]
TransformName = Annotated[
    str | None,
    typer.Option(
        "--transform", metavar="MOD:FUNC", show_default=False, help="Function to apply to each record."
    ),
]
Journal = Annotated[
    Path | None, typer.Option(metavar="FILE", show_default=False, help="Record completed ranges here.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where the journal ends.")]
VerifyAfterwards = Annotated[bool, typer.Option("--verify", help="Compare both sides at the end.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; report what would change.")]
Throttle = Annotated[
    float | None, typer.Option(metavar="N", show_default=False, help="At most N records per second.")
]
PageSize = Annotated[
    int | None, typer.Option("--page", metavar="N", show_default=False, help="At most N records per range.")
]
RecordOnError = Annotated[OnError, typer.Option("--on-error", help="On a rejected record.")]


class _StorePair:
    """The source and the target of a command, and the options for which records to compare and how."""

    def __init__(
        self,
        source: str,
        target: str,
        where: str | None,
        collections: tuple[str | None, str | None],
        field_map: list[str] | None,
        transform: str | None,
        *,
        prompt: bool,
    ) -> None:
        self.query = parse_query(where)
        self.source = resolve_store(source, collections[0], prompt=prompt, role="source")
        self.target = resolve_store(target, collections[1], prompt=prompt, role="target")
        self.fields = _parse_field_map(field_map)
        self.transform = _import_function(transform)

    @asynccontextmanager
    async def open(self, *, writes: bool = False) -> AsyncIterator[tuple[Collection, Collection]]:
        """Open both stores."""
        async with (
            open_collection(self.source) as source,
            open_collection(self.target, writes=writes) as target,
        ):
            yield source, target

    async def verify(self, source: Collection, target: Collection) -> Comparison:
        return await transfer.verify(source, target, self.query, fields=self.fields, transform=self.transform)


def _parse_field_map(pairs: list[str] | None) -> dict[str, str | None]:
    fields: dict[str, str | None] = {}
    for pair in pairs or []:
        old, equals, new = pair.partition("=")
        if not (old and equals):
            raise UsageError(f"--map {pair!r}: expected OLD=NEW, or OLD= to omit the field")
        fields[old] = new or None
    return fields


def _import_function(name: str | None) -> Transform | None:
    """Return the function `module:function`; modules of the current folder can be imported."""
    if name is None:
        return None
    module, colon, function = name.partition(":")
    if not colon:
        raise UsageError(f"--transform {name!r}: expected module:function")
    sys.path.insert(0, str(Path.cwd()))
    try:
        transform: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--transform {name}: {error}") from None
    finally:
        sys.path.pop(0)
    if not callable(transform):
        raise ConfigError(f"--transform {name}: not a function")
    checked: Transform = transform
    return checked


def copy(
    source: Source,
    target: Target,
    where: Where = None,
    from_: SourceCollection = None,
    to: TargetCollection = None,
    field_map: FieldMap = None,
    transform: TransformName = None,
    journal: Journal = None,
    *,
    resume: Resume = False,
    check: VerifyAfterwards = False,
    dry_run: DryRun = False,
    throttle: Throttle = None,
    page_size: PageSize = None,
    on_error: RecordOnError = OnError.STOP,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Copy records in bounded memory; --resume continues after a crash."""
    if resume and journal is None:
        raise UsageError("--resume needs --journal FILE")
    pair = _StorePair(source, target, where, (from_, to), field_map, transform, prompt=prompt)
    for address in (pair.source, pair.target):
        require_other_files(address, {"--journal": journal})
    progress = _LastProgress()

    async def run() -> tuple[Receipt, Comparison | None]:
        async with pair.open(writes=not dry_run) as stores:
            with show_progress("copy", as_json=as_json) as progress.show:
                receipt = await transfer.copy(
                    *stores,
                    pair.query,
                    journal=journal,
                    resume=resume,
                    fields=pair.fields,
                    transform=pair.transform,
                    on_error=on_error.value,
                    dry_run=dry_run,
                    throttle=throttle,
                    page_size=page_size,
                    progress=progress,
                    source_name=pair.source.display_name,
                    target_name=pair.target.display_name,
                )
            return receipt, await pair.verify(*stores) if check and not dry_run else None

    try:
        receipt, comparison = asyncio.run(run())
    except (KeyboardInterrupt, Exception) as error:
        if progress.done and not dry_run:
            _report_unfinished(progress.done, journal, error, as_json=as_json)
        raise
    _print_receipt(receipt, comparison, as_json=as_json)
    if comparison is not None:
        _require_equal(comparison)
    if receipt.rejected:
        raise CommandError(f"the target rejected {receipt.rejected} records", ExitCode.RECORDS)


@dataclass
class _LastProgress:
    """Shows the progress of a copy, and keeps the number of records that the target has taken."""

    show: Callable[[Progress], None] = lambda _: None
    done: int = 0

    def __call__(self, progress: Progress) -> None:
        self.done = progress.done
        self.show(progress)


def _report_unfinished(copied: int, journal: Path | None, error: BaseException, *, as_json: bool) -> None:
    """Print how far a copy came that was interrupted or failed."""
    if as_json:
        print_json({"complete": False, "read": copied})
        return
    reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    further = "; some of the next may be, too"
    if journal is not None:
        further = f"; the journal {journal} is complete up to there, and --resume continues from it"
    print_note(f"{reason} after {copied} records were copied{further}")


def _print_receipt(receipt: Receipt, comparison: Comparison | None, *, as_json: bool) -> None:
    if as_json:
        verified = {} if comparison is None else {"verified": comparison.to_json()}
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
        facts.append(("omitted", receipt.left_out))
    if receipt.rejected:
        facts.append(("rejected", receipt.rejected))
        facts += [("", f"{r.id}: {r.error}") for r in receipt.rejections[:20]]
    if receipt.earlier:
        facts.append(("resumed after", f"{receipt.resumed_at} ({receipt.earlier} records before)"))
    facts.append(("digest", receipt.digest.hex if receipt.digest is not None else "none"))
    if comparison is not None:
        detail = f"{comparison.ranges} ranges, digest {comparison.target.hex}"
        facts.append(("verified", f"{_format_result(comparison)}, {detail}"))
    rate = (receipt.read - receipt.earlier) / receipt.seconds if receipt.seconds else 0
    facts.append(("took", f"{receipt.seconds:.1f} s, {rate:,.0f} records/s"))
    print_facts(facts)


def _format_result(comparison: Comparison) -> str:
    return "equal" if comparison.equal else "NOT EQUAL"


def _format_counts(missing: int, changed: int, extra: int) -> str:
    return f"{missing} missing, {changed} changed, {extra} extra"


def _require_equal(comparison: Comparison) -> None:
    if not comparison.equal:
        raise _make_difference_error(comparison.missing, comparison.changed, comparison.extra)


def _make_difference_error(missing: int, changed: int, extra: int) -> CommandError:
    return CommandError(f"the sides differ: {_format_counts(missing, changed, extra)}", ExitCode.NO)


def diff(
    source: Source,
    target: Target,
    where: Where = None,
    from_: SourceCollection = None,
    to: TargetCollection = None,
    field_map: FieldMap = None,
    transform: TransformName = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="Show at most N; 0: all.")] = 100,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Show each record that differs, and where; exit code 1 if there is one.

    + only in the source, - only in the target, ~ different in both.
    """
    pair = _StorePair(source, target, where, (from_, to), field_map, transform, prompt=prompt)
    counts = {"missing": 0, "changed": 0, "extra": 0}

    async def run() -> None:
        async with pair.open() as stores:
            async for difference in transfer.differences(
                *stores, pair.query, fields=pair.fields, transform=pair.transform
            ):
                counts[difference.kind] += 1
                if not limit or sum(counts.values()) <= limit:
                    _print_difference(difference, as_json=as_json)

    asyncio.run(run())
    if any(counts.values()):
        raise _make_difference_error(**counts)


_SIGNS = {"missing": "+", "extra": "-", "changed": "~"}


def _print_difference(difference: Difference, *, as_json: bool) -> None:
    paths = difference.paths()
    if as_json:
        values = {
            path: {side: value for side, value in (("source", a), ("target", b)) if value is not ...}
            for path, (a, b) in paths.items()
        }
        print_json({"kind": difference.kind, "id": difference.id, **({"paths": values} if values else {})})
        return
    sys.stdout.write(f"{_SIGNS[difference.kind]} {format_value(difference.id)}\n")
    for path, (source, target) in paths.items():
        sys.stdout.write(f"    {path}: {_abbreviate(source)} -> {_abbreviate(target)}\n")


def _abbreviate(value: Any) -> str:
    text = "(absent)" if value is ... else format_value(value) if value is not None else "null"
    return text if len(text) <= 60 else text[:59] + "…"


def verify(
    source: Source,
    target: Target,
    where: Where = None,
    from_: SourceCollection = None,
    to: TargetCollection = None,
    field_map: FieldMap = None,
    transform: TransformName = None,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Write only the records that differ.")] = False,
    delete_extra: Annotated[
        bool, typer.Option("--delete-extra", help="With --repair: delete what only the target has.")
    ] = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Compare digests by ranges of ids; exit code 1 if the sides differ."""
    if delete_extra and not repair:
        raise UsageError("--delete-extra needs --repair")
    pair = _StorePair(source, target, where, (from_, to), field_map, transform, prompt=prompt)

    async def run() -> tuple[Comparison, dict[str, int]]:
        async with pair.open(writes=repair) as stores:
            comparison = await pair.verify(*stores)
            if not repair or comparison.equal:
                return comparison, {}
            counts = await transfer.repair(
                *stores, pair.query, fields=pair.fields, transform=pair.transform, delete_extra=delete_extra
            )
            repaired = {"written": counts.written, "deleted": counts.deleted, "left": counts.left}
            return await pair.verify(*stores), repaired

    comparison, repaired = asyncio.run(run())
    if as_json:
        print_json({**comparison.to_json(), **({"repaired": repaired} if repaired else {})})
    else:
        _print_comparison(comparison, repaired)
    _require_equal(comparison)


def _print_comparison(comparison: Comparison, repaired: dict[str, int]) -> None:
    facts: list[tuple[str, Any]] = [
        ("source", f"{comparison.source.count} records, digest {comparison.source.hex}"),
        ("target", f"{comparison.target.count} records, digest {comparison.target.hex}"),
        ("ranges", f"{comparison.ranges}, {comparison.differing_ranges} differ"),
        ("differences", _format_counts(comparison.missing, comparison.changed, comparison.extra)),
        *(("", f"{kind} {id}") for kind, id in comparison.differences[:20]),
    ]
    if repaired:
        facts.append(("repaired", f"{repaired['written']} written, {repaired['deleted']} deleted"))
    facts += [("took", f"{comparison.seconds:.1f} s"), ("result", _format_result(comparison))]
    print_facts(facts)
