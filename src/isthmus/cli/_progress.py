"""The progress of a copy or a load, as a bar on standard error."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar

from isthmus.transfer import Progress


@contextmanager
def show_progress(label: str, *, as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on standard error if that is a terminal; yield its update function."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda _: None
        return
    bar = ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TextColumn("{task.fields[left]}", style="progress.remaining"),
        console=console,
        transient=True,
    )
    task = bar.add_task(label, total=None, rate=0.0, left="")

    def update(progress: Progress) -> None:
        # The time left as rich has it starts over when the total changes.
        left = "" if progress.left is None else f"{dt.timedelta(seconds=round(progress.left))} left"
        bar.update(task, completed=progress.done, total=progress.total, rate=progress.rate, left=left)

    with bar:
        yield update


class RowProgress:
    """The progress of rows of files, whose number is an estimate."""

    def __init__(self, estimate_rows: Callable[[], int | None], earlier: int) -> None:
        self._estimate_rows = estimate_rows
        self._earlier = earlier
        self._start = time.monotonic()

    def of(self, rows: int) -> Progress:
        """Return the progress after so many rows, those of earlier runs included."""
        seconds = time.monotonic() - self._start
        total = self._estimate_rows()
        rate = (rows - self._earlier) / seconds if seconds > 0 else 0.0
        return Progress(rows, total, rate, seconds)
