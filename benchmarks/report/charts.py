"""Charts of the stored results, as SVG and PNG: bars against rivals, waits, growth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.report.targets import MET, Verdict, load_targets

# Colours that differ in lightness too, for readers who cannot tell red from green.
OURS, MISSED, MARK = "#3949ab", "#e65100", "#111111"
SIDES = {
    "ours": "#3949ab",
    "asyncpg pool": "#26a69a",
    "rival": "#e65100",
    "bare": "#757575",
    "ORM": "#8e24aa",
}
STORES = {"sqlite": "#e65100", "postgres": "#3949ab"}
WIDTH = 6.4  # inches: the text is still read where a phone shows it at 0.6 of its size
PERCENTILES = ("p50", "p90", "p99", "p99.9")
STYLE = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.hashsalt": "isthmus",
    "figure.constrained_layout.use": True,
}
Rows = Mapping[str, Mapping[str, Any]]


def draw(rows: Rows, folder: Path) -> list[str]:
    """Write each chart that there are figures for; return their names."""
    made = []
    with mpl.rc_context(STYLE):
        for name, chart in CHARTS.items():
            figure = chart(rows)
            if figure is None:
                continue
            figure.savefig(folder / f"bench-{name}.svg", metadata={"Date": None, "Creator": None})
            figure.savefig(folder / f"bench-{name}.png", dpi=144, metadata={"Software": None})
            plt.close(figure)
            made.append(name)
    return made


def _verdicts(rows: Rows, wanted: Callable[[Verdict], bool]) -> list[Verdict]:
    found = [verdict for row in load_targets() for verdict in row.verdicts(rows)]
    return [verdict for verdict in found if verdict.value is not None and wanted(verdict)]


def against_rival(rows: Rows) -> Figure | None:
    """Draw how many times as fast as the rival each job is."""
    found = _verdicts(rows, lambda verdict: verdict.cell.against == "rival")
    if not found:
        return None
    figure, axes = _bars(found, [verdict.cell.faster or 0 for verdict in found])
    axes.set_xscale("log")
    axes.set_xlim(1, max(max(verdict.value or 1, verdict.cell.faster or 1) for verdict in found) * 8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("Times as fast as dataknobs-data 0.11.0\n(longer is better; log scale)")
    return figure


def against_drivers(rows: Rows) -> Figure | None:
    """Draw the time of each job against the bare driver's."""
    found = _verdicts(
        rows, lambda verdict: verdict.cell.against not in ("", "naive") and verdict.cell.most is not None
    )
    return _ratios(found, "Time against the bare driver's best technique\n(shorter is better; 1x is as fast)")


def against_naive(rows: Rows) -> Figure | None:
    """Draw the time of each question against a query by hand that is not exact."""
    found = _verdicts(rows, lambda verdict: verdict.cell.against == "naive")
    return _ratios(found, "Exact answers against queries by hand on JSON\n(shorter is better; 1x is as fast)")


def _ratios(found: list[Verdict], title: str) -> Figure | None:
    if not found:
        return None
    figure, axes = _bars(found, [verdict.cell.most or 0 for verdict in found])
    axes.set_xlim(
        0, min(6.0, max(max(verdict.value or 1, verdict.cell.most or 1) for verdict in found)) * 1.25
    )
    axes.axvline(1, color="#9e9e9e", linewidth=1, zorder=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_title(title)
    return figure


def _bars(found: list[Verdict], marks: list[float]) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.34 * len(found)))
    places = range(len(found))
    values = [verdict.value or 0.0 for verdict in found]
    colours = [OURS if verdict.state == MET else MISSED for verdict in found]
    axes.barh(places, values, color=colours, height=0.62)
    axes.plot(marks, places, linestyle="", marker="|", markersize=15, markeredgewidth=2.5, color=MARK)
    for place, verdict in zip(places, found, strict=True):
        edge = axes.get_yaxis_transform()
        axes.text(1, place, verdict.shown, transform=edge, ha="right", va="center", fontsize=10)
    axes.set_yticks(places, [_short(verdict.cell.job) for verdict in found])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    shown = [
        Patch(color=OURS, label="target met"),
        Patch(color=MISSED, label="not met"),
        Line2D(
            [], [], color=MARK, marker="|", linestyle="", markersize=12, markeredgewidth=2.5, label="target"
        ),
    ]
    figure.legend(handles=shown, loc="outside lower right", ncols=3, frameon=False, fontsize=10)
    return figure, axes


def _short(job: str) -> str:
    job = job.replace("indexed filter, sort + limit 20 on 100,000", "filter, sort, limit on 100k")
    job = job.replace("copy postgres to elasticsearch", "copy pg to es").replace(", object, cold", ", object")
    return re.sub(r"(\d+),000\b", r"\1k", job).replace(" layout", "").replace(" of 10k", "")


def waits(rows: Rows) -> Figure | None:
    """Draw the percentiles of the web mix's waits."""
    found = {job: row for job, row in rows.items() if job.startswith("web mix") and row["latencies"]}
    if not found:
        return None
    figure, panels = plt.subplots(
        len(found), 1, figsize=(WIDTH, 0.6 + 2.2 * len(found)), squeeze=False, sharey=True
    )
    for axes, (job, row) in zip(panels[:, 0], found.items(), strict=True):
        for side, latencies in row["latencies"].items():
            values = [latencies[p] * 1e3 for p in PERCENTILES]
            axes.plot(PERCENTILES, values, marker="o", linewidth=2.5, color=SIDES[side], label=side)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y", color="#e0e0e0")
        axes.set_title(job.replace("web mix, ", "Web mix on PostgreSQL, "))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def growth(rows: Rows) -> Figure | None:
    """Draw the time per record, and the memory of streams and copies, by how many records there are."""
    found = {job.removeprefix("growth "): row for job, row in rows.items() if job.startswith("growth ")}
    if not found:
        return None
    figure, (times, memory) = plt.subplots(2, 1, figsize=(WIDTH, 6.4))
    for store, row in found.items():
        sizes = {_size(name): side["median"] * 1e6 for name, side in row["sides"].items()}
        style: dict[str, Any] = {"marker": "o", "linewidth": 2.5, "color": STORES[store]}
        times.plot(list(sizes), list(sizes.values()), label=store, **style)
        for job, line in (("stream", "-"), ("copy", "--")):
            points = {
                _size(name): value for name, value in row["figures"].items() if name.startswith(f"{job} of ")
            }
            values = list(points.values())
            memory.plot(list(points), values, line, label=f"{job}, {store}", **style)
    for axes, title, unit in (
        (times, "create_batch, time per record", "µs"),
        (memory, "Memory above the start", "MB"),
    ):
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _, unit=unit: f"{value:g} {unit}"))
        axes.grid(axis="y", color="#e0e0e0")
        axes.set_title(title)
        axes.legend(frameon=False, fontsize=10)
    memory.set_xlabel("records")
    return figure


def _size(name: str) -> int:
    digits: Iterable[str] = re.findall(r"[\d,]+\d", name)
    return int(next(iter(digits)).replace(",", ""))


CHARTS: dict[str, Callable[[Rows], Figure | None]] = {
    "rival": against_rival,
    "drivers": against_drivers,
    "questions": against_naive,
    "waits": waits,
    "growth": growth,
}
