"""The outcomes as a page: promises by stores, what is refused and why; in Markdown and in HTML."""

from __future__ import annotations

import html
import importlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.testing import conformance
from isthmus.testing.parity._reasons import reason
from isthmus.testing.parity._results import Column, Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown."""

    made: str
    """When, of which commit and version, on which machine: one line of Markdown."""
    columns: Sequence[Column]
    outcomes: Sequence[Outcome]

    def of(self, promise: str, column: str) -> list[Outcome]:
        """Return the outcomes of a cell."""
        return [one for one in self.outcomes if (one.promise, one.column) == (promise, column)]

    @property
    def promises(self) -> list[str]:
        """The promises in the suite's own order."""
        there = {one.promise for one in self.outcomes}
        return [name for name in conformance._MODULES if name in there]

    @property
    def counts(self) -> dict[str, int]:
        """How many tests ended how."""
        return {v.value: n for v in Verdict if (n := len(self.all(v)))}

    @property
    def wrong(self) -> list[Outcome]:
        """What should not be: a test that failed, or that was not run."""
        return self.all(Verdict.FAILED) + self.all(Verdict.NOT_RUN)

    @property
    def summary(self) -> str:
        """The counts in a sentence."""
        told = ", ".join(f"{count:,} {word}" for word, count in self.counts.items())
        return f"{len(self.promises)} promises, {len(self.columns)} stores: {told}."

    def all(self, verdict: Verdict) -> list[Outcome]:
        """Return the outcomes that ended so."""
        return [one for one in self.outcomes if one.verdict is verdict]


def sentence(promise: str) -> str:
    """Return the first line of a promise's module, without the name if that alone stands before a colon."""
    text = (importlib.import_module(f"{conformance.__name__}.{promise}").__doc__ or "").splitlines()[0]
    name, _, rest = text.partition(": ")
    return rest if rest and name.isalpha() and name.lower()[:4] == promise[:4] else text


def markdown(page: Page, *, title: str = "Parity") -> str:
    """Return the page as Markdown."""
    lines = [f"# {title}\n", f"{page.made}\n", f"**{page.summary}**\n", *_legend(), "", *_stores(page), ""]
    # A page's style may give this table more room; elsewhere the element means nothing.
    lines += ["## Promises\n", '<div class="parity" markdown>\n', *_promises(page), "\n</div>\n"]
    lines += ["## Refused, and why\n", *_refused(page), ""]
    for verdict, heading in ((Verdict.FAILED, "Failed"), (Verdict.NOT_RUN, "Not run")):
        told = page.all(verdict)
        if told:
            lines += [f"## {heading}\n"]
            lines += [f"* `{one.column}` {one.test}{_case(one)}: {_cell_text(one.why)}" for one in told]
            lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _legend() -> list[str]:
    return [
        "A number counts tests that passed. `refused` counts tests of what a store cannot do: there the call",
        "raised an `UnsupportedError` that names the capability, and the test asserts that it did.",
    ]


def _stores(page: Page) -> list[str]:
    lines = ["| store | backend | server and driver |", "| --- | --- | --- |"]
    return lines + [f"| {one.name} | {one.backend} | {_cell_text(one.version)} |" for one in page.columns]


def _promises(page: Page) -> list[str]:
    names = [column.name for column in page.columns]
    lines = ["| promise | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for promise in page.promises:
        cells = [cell(page.of(promise, name)) for name in names]
        lines.append(f"| **{promise}**: {_own_text(sentence(promise))} | " + " | ".join(cells) + " |")
    return lines


def cell(outcomes: Sequence[Outcome]) -> str:
    """Return the counts of one promise on one store."""
    counts = Counter(one.verdict for one in outcomes)
    words = [str(counts[Verdict.PASSED])] if counts[Verdict.PASSED] else []
    words += [f"{counts[v]} {v.value}" for v in Verdict if v is not Verdict.PASSED and counts[v]]
    return ", ".join(words) or Verdict.NOT_RUN.value


def _refused(page: Page) -> list[str]:
    told = page.all(Verdict.REFUSED)
    if not told:
        return ["Nothing."]
    lines = ["| store | cannot | tests | because it | the caller is told |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for column in page.columns:
        mine = [one for one in told if one.column == column.name]
        for capability in sorted({one.capability for one in mine}):
            some = [one for one in mine if one.capability == capability]
            reasons = "; ".join(sorted({_cell_text(one.why) for one in some}))
            because = _own_text(reason(column.backend, capability)) or "–"
            words = capability.replace("_", " ")
            lines.append(f"| {column.name} | {words} | {len(some)} | {because} | {reasons} |")
    return lines


def _case(one: Outcome) -> str:
    return f" [{_cell_text(one.case)}]" if one.case else ""


_SIGN = r"[\\`*_|<>\[\]]"


def _cell_text(text: str) -> str:
    """Return text that stays in its cell and means nothing to Markdown."""
    return re.sub(_SIGN, r"\\\g<0>", " ".join(text.split()))


def _own_text(text: str) -> str:
    """Return a text of ours for a cell: its code stays code."""
    return re.sub(f"(`[^`|]+`)|{_SIGN}", lambda found: found[1] or f"\\{found[0]}", " ".join(text.split()))


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border: 1px solid #8886; padding: .3rem .6rem; text-align: left; vertical-align: top; }
thead th { position: sticky; top: 0; background: Canvas; }
td small, th small { font-weight: normal; opacity: .75; }
.passed { background: #3a93; } .refused { background: #db33; }
.failed { background: #d446; } .none { opacity: .6; }
summary { cursor: pointer; margin: .4rem 0; }
"""


def as_html(page: Page, *, title: str = "Parity") -> str:
    """Return the page as one HTML file without scripts; below the table every test by name."""
    heads = "".join(
        f"<th>{_html(one.name)}<br><small>{_html(one.version)}</small></th>" for one in page.columns
    )
    rows = [_row(page, promise) for promise in page.promises]
    tests = [_tests(page, promise) for promise in page.promises]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_html(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        f"<h1>{_html(title)}</h1>\n<p>{_coded(page.made)}</p>\n<p><b>{_html(page.summary)}</b></p>\n"
        f"<p>{_coded(' '.join(_legend()))}</p>\n"
        f'<div class="wide"><table><thead><tr><th>promise</th>{heads}</tr></thead><tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n<h2>Every test</h2>\n"
        + "\n".join(tests)
        + "\n</body></html>\n"
    )


def _coded(text: str) -> str:
    """Return HTML of our own Markdown, which has nothing but code in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _html(text))


def _row(page: Page, promise: str) -> str:
    cells = []
    for column in page.columns:
        outcomes = page.of(promise, column.name)
        told = [one for one in outcomes if one.why]
        reasons = sorted({reason(column.backend, one.capability) or one.why for one in told})
        note = f"<br><small>{_html('; '.join(reasons))}</small>" if reasons else ""
        cells.append(f'<td class="{_kind(outcomes)}">{_html(cell(outcomes))}{note}</td>')
    return f"<tr><th>{promise}<br><small>{_coded(sentence(promise))}</small></th>{''.join(cells)}</tr>"


def _tests(page: Page, promise: str) -> str:
    names = list(dict.fromkeys(one.test for one in page.outcomes if one.promise == promise))
    rows = []
    for name in names:
        told = (getattr(conformance, name).__doc__ or "").splitlines()[0]
        cells = []
        for column in page.columns:
            outcomes = [one for one in page.of(promise, column.name) if one.test == name]
            cells.append(f'<td class="{_kind(outcomes)}">{_html(cell(outcomes))}</td>')
        words = name.removeprefix("test_").replace("_", " ")
        rows.append(f"<tr><td>{_html(words)}<br><small>{_coded(told)}</small></td>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{_html(column.name)}</th>" for column in page.columns)
    return (
        f"<details><summary>{promise}: {len(names)} tests</summary>"
        f'<div class="wide"><table><thead><tr><th>test</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _kind(outcomes: Sequence[Outcome]) -> str:
    verdicts = {one.verdict for one in outcomes}
    for verdict, name in (
        (Verdict.FAILED, "failed"),
        (Verdict.NOT_RUN, "none"),
        (Verdict.REFUSED, "refused"),
        (Verdict.PASSED, "passed"),
    ):
        if verdict in verdicts:
            return name
    return "none"


def _html(text: str) -> str:
    return html.escape(text)
