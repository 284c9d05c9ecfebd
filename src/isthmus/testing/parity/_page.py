"""The parity page, in Markdown and HTML: promises by store, refusals with their reasons, failures."""

from __future__ import annotations

import html
import importlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.testing import conformance
from isthmus.testing.parity._reasons import reason
from isthmus.testing.parity._results import Outcome, StoreColumn, Verdict


@dataclass(frozen=True, slots=True)
class ParityPage:
    """The content of a parity page."""

    made: str
    """How the page was made (date, version, commit): one line of Markdown."""
    columns: Sequence[StoreColumn]
    outcomes: Sequence[Outcome]

    def of(self, promise: str, column: str) -> list[Outcome]:
        """Return the outcomes of a promise in a column."""
        return [one for one in self.outcomes if (one.promise, one.column) == (promise, column)]

    @property
    def promises(self) -> list[str]:
        """The names of the tested promises, in the order of the suite."""
        tested = {one.promise for one in self.outcomes}
        return [name for name in conformance._MODULES if name in tested]

    @property
    def counts(self) -> dict[str, int]:
        """The number of tests by verdict."""
        return {v.value: n for v in Verdict if (n := len(self.all(v)))}

    @property
    def wrong(self) -> list[Outcome]:
        """The outcomes that should not occur: tests that failed or were not run."""
        return self.all(Verdict.FAILED) + self.all(Verdict.NOT_RUN)

    @property
    def summary(self) -> str:
        """The counts as a sentence."""
        counts = ", ".join(f"{count:,} {word}" for word, count in self.counts.items())
        return f"{len(self.promises)} promises, {len(self.columns)} stores: {counts}."

    def all(self, verdict: Verdict) -> list[Outcome]:
        """Return the outcomes with a verdict."""
        return [one for one in self.outcomes if one.verdict is verdict]


def sentence(promise: str) -> str:
    """Return the first line of a promise's docstring, without a leading "Name: " that repeats the name."""
    text = (importlib.import_module(f"{conformance.__name__}.{promise}").__doc__ or "").splitlines()[0]
    name, _, rest = text.partition(": ")
    return rest if rest and name.isalpha() and name.lower()[:4] == promise[:4] else text


def markdown(page: ParityPage, *, title: str = "Parity") -> str:
    """Return the page as Markdown with the heading `title`."""
    lines = [
        f"# {title}\n",
        f"{page.made}\n",
        f"**{page.summary}**\n",
        *_legend(),
        "",
        *_store_table(page),
        "",
    ]
    # A style sheet may give this table more room; renderers without one ignore the element.
    lines += ["## Promises\n", '<div class="parity" markdown>\n', *_promise_table(page), "\n</div>\n"]
    lines += ["## Refused, and why\n", *_refusal_table(page), ""]
    for verdict, heading in ((Verdict.FAILED, "Failed"), (Verdict.NOT_RUN, "Not run")):
        outcomes = page.all(verdict)
        if outcomes:
            lines += [f"## {heading}\n"]
            lines += [
                f"* `{one.column}` {one.test}{_format_case(one)}: {_escape_all(one.why)}" for one in outcomes
            ]
            lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _legend() -> list[str]:
    return [
        "A number counts the tests that passed. `refused` counts the tests of a capability that the store",
        "lacks: the call raised an `UnsupportedError` that names the capability, as the test asserts.",
    ]


def _store_table(page: ParityPage) -> list[str]:
    lines = ["| store | backend | server and driver |", "| --- | --- | --- |"]
    return lines + [f"| {one.name} | {one.backend} | {_escape_all(one.version)} |" for one in page.columns]


def _promise_table(page: ParityPage) -> list[str]:
    names = [column.name for column in page.columns]
    lines = ["| promise | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for promise in page.promises:
        cells = [format_counts(page.of(promise, name)) for name in names]
        lines.append(f"| **{promise}**: {_escape_text(sentence(promise))} | " + " | ".join(cells) + " |")
    return lines


def format_counts(outcomes: Sequence[Outcome]) -> str:
    """Return the number of outcomes by verdict, as text."""
    counts = Counter(one.verdict for one in outcomes)
    words = [str(counts[Verdict.PASSED])] if counts[Verdict.PASSED] else []
    words += [f"{counts[v]} {v.value}" for v in Verdict if v is not Verdict.PASSED and counts[v]]
    return ", ".join(words) or Verdict.NOT_RUN.value


def _refusal_table(page: ParityPage) -> list[str]:
    refusals = page.all(Verdict.REFUSED)
    if not refusals:
        return ["Nothing."]
    lines = ["| store | lacks | tests | because it | error message |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for column in page.columns:
        own = [one for one in refusals if one.column == column.name]
        for capability in sorted({one.capability for one in own}):
            matching = [one for one in own if one.capability == capability]
            messages = "; ".join(sorted({_escape_all(one.why) for one in matching}))
            because = _escape_text(reason(column.backend, capability)) or "–"
            words = capability.replace("_", " ")
            lines.append(f"| {column.name} | {words} | {len(matching)} | {because} | {messages} |")
    return lines


def _format_case(one: Outcome) -> str:
    return f" [{_escape_all(one.case)}]" if one.case else ""


_MARKDOWN_CHARACTERS = r"[\\`*_|<>\[\]]"


def _escape_all(text: str) -> str:
    """Return text for a table cell with all Markdown escaped."""
    return re.sub(_MARKDOWN_CHARACTERS, r"\\\g<0>", " ".join(text.split()))


def _escape_text(text: str) -> str:
    """Return text for a table cell with Markdown escaped, except code spans."""
    return re.sub(
        f"(`[^`|]+`)|{_MARKDOWN_CHARACTERS}",
        lambda match: match[1] or f"\\{match[0]}",
        " ".join(text.split()),
    )


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


def as_html(page: ParityPage, *, title: str = "Parity") -> str:
    """Return the page as one HTML file without scripts, with a table of all tests."""
    heads = "".join(
        f"<th>{_html(one.name)}<br><small>{_html(one.version)}</small></th>" for one in page.columns
    )
    rows = [_promise_row(page, promise) for promise in page.promises]
    tests = [_test_table(page, promise) for promise in page.promises]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_html(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        f"<h1>{_html(title)}</h1>\n<p>{_render_code(page.made)}</p>\n<p><b>{_html(page.summary)}</b></p>\n"
        f"<p>{_render_code(' '.join(_legend()))}</p>\n"
        f'<div class="wide"><table><thead><tr><th>promise</th>{heads}</tr></thead><tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n<h2>Every test</h2>\n"
        + "\n".join(tests)
        + "\n</body></html>\n"
    )


def _render_code(text: str) -> str:
    """Return the HTML of Markdown that contains only text and code spans."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _html(text))


def _promise_row(page: ParityPage, promise: str) -> str:
    cells = []
    for column in page.columns:
        outcomes = page.of(promise, column.name)
        refused = [one for one in outcomes if one.why]
        reasons = sorted({reason(column.backend, one.capability) or one.why for one in refused})
        note = f"<br><small>{_html('; '.join(reasons))}</small>" if reasons else ""
        cells.append(f'<td class="{_css_class(outcomes)}">{_html(format_counts(outcomes))}{note}</td>')
    return f"<tr><th>{promise}<br><small>{_render_code(sentence(promise))}</small></th>{''.join(cells)}</tr>"


def _test_table(page: ParityPage, promise: str) -> str:
    names = list(dict.fromkeys(one.test for one in page.outcomes if one.promise == promise))
    rows = []
    for name in names:
        description = (getattr(conformance, name).__doc__ or "").splitlines()[0]
        cells = []
        for column in page.columns:
            outcomes = [one for one in page.of(promise, column.name) if one.test == name]
            cells.append(f'<td class="{_css_class(outcomes)}">{_html(format_counts(outcomes))}</td>')
        words = name.removeprefix("test_").replace("_", " ")
        rows.append(
            f"<tr><td>{_html(words)}<br><small>{_render_code(description)}</small></td>{''.join(cells)}</tr>"
        )
    heads = "".join(f"<th>{_html(column.name)}</th>" for column in page.columns)
    return (
        f"<details><summary>{promise}: {len(names)} tests</summary>"
        f'<div class="wide"><table><thead><tr><th>test</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _css_class(outcomes: Sequence[Outcome]) -> str:
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
