"""Checks that `.ci/run` runs the whole suite: what it collects is every test that there is."""

from __future__ import annotations

import subprocess
import sys

from tests.ci.project import ROOT, Project, copied
from tests.ci.written import not_collected

_FOLDER = "PLANTED_IDS"
# Writes down what each process collected, and runs none of it.
_HOOK = f'''

@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the ids down, and run nothing; planted by tests/ci."""
    process = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    ids = "".join(f"{{item.nodeid}}\\n" for item in session.items)
    (Path(os.environ["{_FOLDER}"]) / process).write_text(ids)
    session.items.clear()
'''


def faults() -> list[str]:
    """Return what of the suite `.ci/run` would not run, one line each; none if it runs everything."""
    with copied(whole=True) as project:
        project.append("tests/conftest.py", _HOOK)
        in_ci = _collected_by_ci(project)
        alone = _collected_alone(project)
    found = [f"{process} does not collect {test}" for process, ids in in_ci.items() for test in alone - ids]
    if not in_ci:
        found.append(".ci/run collected nothing")
    found += [f"nothing collects {test}" for test in not_collected(ROOT, alone)]
    return sorted(found)


def _collected_by_ci(project: Project) -> dict[str, set[str]]:
    """Return the ids that each process of `.ci/run` collects, in an environment that would narrow them."""
    folder = project.root.parent / "by-ci"
    folder.mkdir()
    narrowed = {"ARGS": "-k planted", "PYTEST_ADDOPTS": "-k planted", "ISTHMUS_TEST_STORES": "memory"}
    project.env |= {_FOLDER: str(folder), **narrowed}
    ended = project.run_ci()
    for name in narrowed:
        del project.env[name]
    if not any(folder.iterdir()):
        print(ended.output)
    return {path.name: set(path.read_text().splitlines()) for path in folder.iterdir()}


def _collected_alone(project: Project) -> set[str]:
    """Return the ids that pytest collects when neither Makefile nor pyproject.toml has a say."""
    folder = project.root.parent / "alone"
    folder.mkdir()
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", f"--rootdir={project.root}"),
            *("--import-mode=importlib", "-o", "asyncio_mode=strict", "tests"),
        ],
        cwd=project.root,
        env={**project.env, _FOLDER: str(folder)},
        capture_output=True,
        check=False,
    )
    return set((folder / "alone").read_text().splitlines())
