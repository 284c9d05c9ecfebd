"""Installs the example packages for a run: their folders and a dist-info made from each pyproject.toml."""

from __future__ import annotations

import os
import random
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus._core import registry

_PACKAGES = [Path(__file__).parent / name for name in ("rough", "duckdb")]
# Of the suite on DuckDB, which `make test-all` runs whole.
_SHARE = 0.2


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the packages on the path with the entry points that an installer would write."""
    site = tmp_path_factory.mktemp("site")
    for package in _PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = []
        for group, points in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [str(site), *map(str, _PACKAGES)]
    sys.path[:0] = paths
    # Another test of this process may have asked for the entry points before.
    registry._entry_points.cache_clear()
    yield
    for path in paths:
        sys.path.remove(path)
    registry._entry_points.cache_clear()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a share of the suite on DuckDB, another one for each seed; all with ISTHMUS_TEST_ALL."""
    if os.environ.get("ISTHMUS_TEST_ALL"):
        return
    seed = os.environ.get("ISTHMUS_TEST_SEED", "1")
    dropped = {
        item
        for item in items
        # `database` is the fixture of the suite; the module's own tests run always.
        if item.path.name == "test_duckdb.py"
        and "database" in getattr(item, "fixturenames", ())
        and random.Random(f"{seed} {item.name}").random() >= _SHARE
    }
    if dropped:
        config.hook.pytest_deselected(items=list(dropped))
        items[:] = [item for item in items if item not in dropped]
