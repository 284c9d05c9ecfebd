"""Writes docs/benchmarks.md and its charts from the stored results: `make bench-page`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report.storage import ROOT, load_rows, load_runs
from benchmarks.report.targets import (
    MET,
    NOT_MET,
    NOT_RUN,
    Verdict,
    load_targets,
    state_of,
)

PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
PROFILES = ROOT / "benchmarks" / "profile" / "results"

INTRO = """\
# Speed

Made by `make bench` from the figures in `benchmarks/report/results`; `make bench-check` prints the same
verdicts, and `make bench SUITE=postgres BASE=HEAD~1` compares two commits.

* **bare** is the best hand-written technique that we know with the driver alone,
  in at most 25 lines, without building model objects.
* **rival** is dataknobs-data 0.11.0, in an environment and a process of its own.
* All sides use the same server and alternate, at least five times (twice where one takes over
  10 s; three times in copies and scenarios). The figures are medians.
* A record has ten fields and about 250 bytes of JSON. Ratios carry over to other machines; seconds do not.
"""
CHARTS = {
    "rival": "Bars: how many times as fast as dataknobs-data each job is, with its target",
    "drivers": "Bars: the time of each job against the bare driver's, with its target",
    "questions": "Bars: the time of each question against a query by hand, with its target",
    "waits": "Lines: percentiles of the waits of a web service's calls with 1, 10 and 50 tasks",
    "growth": "Lines: time per record and memory from 1,000 to 1,000,000 records",
}
CAPTIONS = {
    "speed": "Jobs",
    "known figures": "Known figures",
    "growth": "Growth",
    "hot path": "The hot path",
    "questions": "Questions",
    "arrow": "Arrow tables",
    "service": "A web service",
    "native": "Tables that others made",
    "writes": "Modifications",
    "changes": "Changes",
    "files": "Files",
}
EXPLAINED = {
    "known figures": "Figures of a published quick start; the target is a tenth of each.",
    "growth": "From 1,000 to 1,000,000 records; memory is that of a process of its own.",
    "questions": (
        "100,000 cities of about 470 bytes, no index. **naive** is the best that is written by hand on JSON,"
        " right only where each field has one type: values are extracted once, and ids sorted before the"
        " records are read. **typed** is a table with the fields as columns, **ORM** is SQLAlchemy on it."
    ),
}
PROFILE_NOTES = {
    "postgres": (
        "Most of the remaining time is the server's: PostgreSQL parses the JSON and writes rows, index and"
        " log while our process waits. Ours is the check and encoding of each record, and asyncpg's COPY"
        " around it."
    ),
    "elasticsearch": (
        "Most of the remaining time is the server's: it indexes and refreshes while our process waits. Ours"
        " is one pass over each record, which encodes it and looks up its shape, and aiohttp's sending of"
        " the bytes."
    ),
    "s3": (
        "The remaining time is a thousand GETs, made by obstore on threads of its own; for each of them the"
        " event loop is woken and the record is evaluated."
    ),
    "sqlite": (
        "The remaining time is SQLite's insert, and the disk: with synchronous=FULL a commit ends when its"
        " log is on disk. Ours is the check and encoding of each record."
    ),
}
SUITES = {
    "micro": "Steps between a call and a driver",
    "scenarios": "Scenarios",
    "service": "A web service",
    "postgres": "PostgreSQL",
    "writes": "Modifications",
    "changes": "Changes",
    "elasticsearch": "Elasticsearch",
    "s3": "S3",
    "sqlite": "SQLite",
    "copy": "Copies",
    "imports": "Import",
    "growth": "Growth",
    "questions": "Questions",
    "arrow": "Arrow tables",
    "load": "Load",
}


def render() -> str:
    """Return the page, which depends on the stored results alone."""
    rows, runs = load_rows(), load_runs()
    parts = [INTRO, *_summary(rows), *_charts(), *_tables(rows), *_scenarios(runs), *_profiles()]
    if runs:
        parts += ["## All figures\n", *_details(runs), "## Machine and versions\n", *_machines(runs)]
    return "\n".join(parts).rstrip() + "\n"


def _summary(rows: Mapping[str, Any]) -> Iterator[str]:
    counts: dict[str, Counter[str]] = {}
    for row in load_targets():
        counts.setdefault(row.table, Counter())[state_of(row.verdicts(rows))] += 1
    yield "| targets | met | not met | not run |\n| --- | --- | --- | --- |"
    for table, states in counts.items():
        shown = " | ".join(str(states[state]) for state in (MET, NOT_MET, NOT_RUN))
        yield f"| [{table}](#{_anchor(CAPTIONS[table])}) | {shown} |"
    yield "\nA row is met if each of its targets is."
    yield ""


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower() if c.isalnum() or c in " -").replace(" ", "-")


def _charts() -> Iterator[str]:
    for name, text in CHARTS.items():
        if (IMAGES / f"bench-{name}.svg").exists():
            yield f"![{text}](images/bench-{name}.svg){{ .chart }}\n"
            yield f"[as PNG](images/bench-{name}.png)\n"


def _tables(rows: Mapping[str, Any]) -> Iterator[str]:
    table = ""
    missed: list[Verdict] = []
    for row in load_targets():
        if row.table != table:
            yield from _reasons(missed)
            missed, table = [], row.table
            yield f"## {CAPTIONS[table]}\n"
            if table in EXPLAINED:
                yield f"{EXPLAINED[table]}\n"
            yield "| job | target | measured | |\n| --- | --- | --- | --- |"
        previous = ""
        for verdict in row.verdicts(rows):
            job = verdict.cell.job if verdict.cell.job != previous else ""
            previous = verdict.cell.job
            state = f"**{verdict.state}**" if verdict.state == NOT_MET else verdict.state
            yield f"| {job} | {verdict.cell.wanted} | {verdict.shown or '-'} | {state} |"
            if verdict.state == NOT_MET:
                missed.append(verdict)
    yield from _reasons(missed)


def _reasons(missed: list[Verdict]) -> Iterator[str]:
    yield ""
    if missed:
        yield "Not met, and why:\n"
        for verdict in missed:
            reason = verdict.cell.reason or "No reason is written down yet."
            line = f"**{verdict.cell.job}**, {verdict.cell.wanted} ({verdict.shown}): {reason}"
            yield f"* {line}"
        yield ""


def _scenarios(runs: Mapping[str, Any]) -> Iterator[str]:
    for row in runs.get("scenarios", {}).get("rows", []):
        if not row["job"].startswith("store down"):
            continue
        if not row["sides"] and row["job"].endswith("a second"):
            yield "## During an outage\n"
            yield (
                "All callers read one record through a proxy that refuses everything for a while; *back* is"
                " the time from the store's return to the first answer. A service wants to fail at once; a"
                " job wants no failure.\n"
            )
        yield f"{row['job'][0].upper()}{row['job'][1:]}:\n"
        yield "| | answered | p50 | p99 | longest | failed | longest | back |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        for side, found in row["latencies"].items():
            figures = row["figures"]
            back = figures.get(f"{side}: ms from the store's return to the first answer")
            shown = [f"{figures[f'{side}: calls answered']:,.0f}"]
            shown += [seconds(found[name]) for name in ("p50", "p99", "longest")]
            shown.append(f"{figures[f'{side}: calls failed']:,.0f}")
            shown.append(seconds(figures[f"{side}: ms of the longest wait for a failure"] / 1e3))
            shown.append("-" if back is None else seconds(back / 1e3))
            yield f"| {side} | {' | '.join(shown)} |"
        yield ""


def _profiles() -> Iterator[str]:
    stored = [json.loads(path.read_text()) for path in sorted(PROFILES.glob("*.json"))]
    if not stored:
        return
    yield "## Where the time goes\n"
    yield (
        "Sampled stacks of our process (`make profiles`). A graph shows the time in which it works; the"
        " table's shares are of the time on the clock. Opened by itself, a graph names what is under the"
        " pointer.\n"
    )
    for found in stored:
        name = found["backend"]
        yield f"### {found['title']}\n"
        yield f"{PROFILE_NOTES[name]}\n"
        yield f"[![Flame graph: {found['title']}](images/profile-{name}.svg)](images/profile-{name}.svg)\n"
        yield "| part | share |\n| --- | --- |"
        for part, share in found["shares"].items():
            yield f"| {part} | {share:.0%} |"
        yield ""


def _details(runs: Mapping[str, Any]) -> Iterator[str]:
    for suite, title in SUITES.items():
        if suite not in runs:
            continue
        yield f"### {title}: figures\n"
        yield "| job | side | median | from … to | rounds |\n| --- | --- | --- | --- | --- |"
        for row in runs[suite]["rows"]:
            job = row["job"]
            for side, found in row["sides"].items():
                if found["seconds"]:
                    low, high = seconds(min(found["seconds"])), seconds(max(found["seconds"]))
                    shown = f"{seconds(found['median'])} | {low} … {high} | {len(found['seconds'])}"
                else:
                    failure = found["failure"].replace("|", "\\|").replace("\n", " ") or "not run"
                    shown = f"failed | {failure[:80]} | 0"
                yield f"| {job} | {side} | {shown} |"
                job = ""
        yield ""
        notes = [
            f"* {row['job']}, {name}: {_note(note)}"
            for row in runs[suite]["rows"]
            for name, note in row["notes"].items()
        ]
        if notes:
            yield "\n".join(notes) + "\n"


def _note(note: Any) -> str:
    if isinstance(note, dict):
        return "; ".join(f"{key}: {value:,}" for key, value in note.items())
    return str(note)


def _machines(runs: Mapping[str, Any]) -> Iterator[str]:
    suites_by_machine: dict[str, list[str]] = {}
    for suite, run in runs.items():
        machine = run["machine"]
        processor = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        text = f"{processor}. {machine['platform']}. CPython {machine['python']}. {versions}."
        suites_by_machine.setdefault(text, []).append(suite)
    for text, suites in suites_by_machine.items():
        yield f"* {text}" + (f" ({', '.join(suites)})" if len(suites_by_machine) > 1 else "")
    yield ""
    yield "| suite | taken | commit | load at its start | took |\n| --- | --- | --- | --- | --- |"
    for suite, run in runs.items():
        machine = run["machine"]
        yield (
            f"| {suite} | {machine['taken'].replace('T', ' ').rstrip('Z')} UTC | {machine['commit']}"
            f" | {machine['load']} | {run['seconds']:.0f} s |"
        )


def seconds(value: float) -> str:
    """Return a time with three digits and a unit that fits, held together by a space that does not break."""
    if value == 0:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{value * 1e9:.3g}\N{NO-BREAK SPACE}ns"


def main() -> int:
    """Draw the charts and write the page."""
    from benchmarks.report.charts import draw

    drawn = draw(load_rows(), IMAGES)
    for name in CHARTS:
        if name not in drawn:  # of a run that is no longer stored
            for suffix in ("svg", "png"):
                (IMAGES / f"bench-{name}.{suffix}").unlink(missing_ok=True)
    print("drawn: " + (", ".join(drawn) or "nothing, no results are stored"))
    PAGE.write_text(render())
    print(f"written to {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
