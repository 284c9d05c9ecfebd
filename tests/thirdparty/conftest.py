"""Installs the example package for a run: its folder and a dist-info made from its pyproject.toml."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus._core import registry

_PACKAGE = Path(__file__).parent / "rough"


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the package on the path with the entry point that an installer would write."""
    project = tomllib.loads((_PACKAGE / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("site")
    info = site / f"isthmus_rough-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [str(site), str(_PACKAGE)]
    sys.path[:0] = paths
    # Another test of this process may have asked for the entry points before.
    registry._entry_points.cache_clear()
    yield
    for path in paths:
        sys.path.remove(path)
    registry._entry_points.cache_clear()
