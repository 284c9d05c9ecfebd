"""A flame graph of sampled stacks as one small SVG, without scripts: names are shown under the pointer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html import escape

PARTS = {
    "isthmus, core": "#7986cb",
    "isthmus, backend": "#3949ab",
    "JSON (orjson)": "#ffb74d",
    "driver": "#26a69a",
    "SQLite": "#26a69a",
    "disk": "#8d6e63",
    "asyncio and sockets": "#90a4ae",
    "Python": "#bdbdbd",
}
WIDTH, HEIGHT, LEAST = 960, 19, 0.004
_DRIVERS = re.compile(r"asyncpg|psycopg|elastic|aiohttp|yarl|multidict|obstore|botocore|pgproto")


@dataclass
class Node:
    """One frame with what it called."""

    name: str
    part: str
    count: int = 0
    below: dict[str, Node] = field(default_factory=dict)


def is_idle(stack: str) -> bool:
    """Return whether a thread waited: its loop for events, a worker for work, or either for the other."""
    frames = stack.split(";")
    if len(frames) == 1 or frames[-1].startswith(("EpollSelector.select", "_worker (concurrent")):
        return True
    waits = re.compile(r"epoll_wait|pthread_cond_(?:timed)?wait|sem_(?:clock|timed)?wait|futex")
    return "SimpleQueue_get_impl" in stack or any(waits.search(frame) for frame in frames[-3:])


def part_of(stack: str) -> str:
    """Return the part of the program that a stack's innermost frame of a known part belongs to."""
    for frame in reversed(stack.split(";")):
        part = _part(frame)
        if part != "Python":
            return part
    return "Python"


def _part(frame: str) -> str:
    if re.match(r"fdatasync|fsync|pwrite", frame):
        return "disk"
    if "orjson" in frame:
        return "JSON (orjson)"
    if ("sqlite" in frame and "isthmus/" not in frame) or re.search(r"\((?:cursor|connection)\.c", frame):
        return "SQLite"
    if "isthmus/" in frame:
        return "isthmus, backend" if "isthmus/backends/" in frame else "isthmus, core"
    if _DRIVERS.search(frame):
        return "driver"
    if "asyncio" in frame or "selectors" in frame or "_socket" in frame or "uvloop" in frame:
        return "asyncio and sockets"
    return "Python"


def draw(stacks: Counter[str], whole: int, title: str) -> str:
    """Return the SVG; the width is the time in which the process worked, `whole` is that on the clock."""
    busy = max(1, sum(stacks.values()))
    title = f"{title}; the {busy / whole:.0%} of the time in which our process works"
    root = Node("all", "Python")
    for stack, count in stacks.items():
        _add(root, [frame for frame in stack.split(";") if _shown(frame)], count)
    boxes: list[str] = []
    deepest = _boxes(root, 0.0, -1, busy, boxes)
    height = (deepest + 1) * HEIGHT + 64
    legend = _legend(stacks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
        f' font-size="12" role="img">\n<title>{escape(title)}</title>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="6" y="20" font-size="15" font-weight="bold">{escape(title)}</text>\n'
        f"{legend}\n" + "\n".join(boxes) + "\n</svg>\n"
    )


def _shown(frame: str) -> bool:
    """Return whether a frame says anything: not the interpreter's own, nor the start of the program."""
    if re.search(
        r"\((?:[^)]*/)?(?:benchmarks/profile/__main__|runpy|asyncio/runners|asyncio/base_events)\.py", frame
    ):
        return False
    if (
        "libpython" in frame
        or "<frozen runpy>" in frame
        or frame.startswith(("_start", "__libc_start", "main (", "Py_", "_Py", "Py"))
    ):
        return False
    return not re.match(r"(?:thread \(|0x|Thread\.|_bootstrap|clone|start_thread|thread_run|pythread)", frame)


def _add(node: Node, frames: list[str], count: int) -> None:
    node.count += count
    for frame in frames:
        name = re.sub(r":\d+\)$", ")", frame)
        node = node.below.setdefault(name, Node(name, _part(frame)))
        node.count += count


def _boxes(node: Node, left: float, depth: int, busy: int, boxes: list[str]) -> int:
    deepest = depth
    width = node.count / busy * WIDTH
    if depth >= 0:
        top = 58 + depth * HEIGHT
        share = f"{node.name} {node.count / busy:.1%}"
        text = _fitting(node.name, width)
        label = f'<text x="{left + 3:.1f}" y="{top + 13}">{escape(text)}</text>' if text else ""
        boxes.append(
            f"<g><title>{escape(share)}</title>"
            f'<rect x="{left:.1f}" y="{top}" width="{max(width - 0.5, 0.5):.1f}"'
            f' height="{HEIGHT - 1}" fill="{PARTS[node.part]}" fill-opacity="0.75"/>{label}</g>'
        )
    for child in sorted(node.below.values(), key=lambda child: child.name):
        if child.count / busy >= LEAST:
            deepest = max(deepest, _boxes(child, left, depth + 1, busy, boxes))
            left += child.count / busy * WIDTH
    return deepest


def _fitting(name: str, width: float) -> str:
    """Return as much of the function's name as fits, or nothing."""
    short = name.split(" (", maxsplit=1)[0]
    fits = int((width - 6) / 6.6)
    if fits < 3:
        return ""
    return short if len(short) <= fits else short[: fits - 1] + "…"


def _legend(stacks: Counter[str]) -> str:
    seen = {_part(frame) for stack in stacks for frame in stack.split(";")}
    left, items = 6.0, []
    for part, colour in PARTS.items():
        if part in seen:
            items.append(
                f'<rect x="{left:.0f}" y="32" width="12" height="12" fill="{colour}" fill-opacity="0.75"/>'
                f'<text x="{left + 17:.0f}" y="42">{part}</text>'
            )
            left += 32 + 7.0 * len(part)
    return "".join(items)
