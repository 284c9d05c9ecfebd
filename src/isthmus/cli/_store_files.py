"""The local files that a store is made of, which a command must not write its output over."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus import UsageError
from isthmus.cli._formats.output_file import is_stdout
from isthmus.cli._stores import StoreAddress

_SQLITE_FILES = ("", "-wal", "-shm", "-journal")
_SQLITE_ADDRESS = re.compile(r"sqlite[^:]*:///([^?]+)")


def identify_file(path: str | Path) -> tuple[int, int] | str:
    """Return what all names of a file have in common, those of links too; its full path if it is missing."""
    full = os.path.realpath(path)  # which a loop of links does not make fail
    try:
        status = os.stat(full)  # noqa: PTH116 - a text
    except OSError:
        return full
    return status.st_dev, status.st_ino


def require_distinct_outputs(outputs: Mapping[str, Path | None]) -> None:
    """Raise `UsageError` for two options that name the same file."""
    known: dict[object, str] = {}
    for option, output in outputs.items():
        if output is None:
            continue
        other = known.setdefault(identify_file(output), option)
        if other != option:
            raise UsageError(f"{option} {output}: {other} is the same file; name another one")


def require_other_files(address: StoreAddress, outputs: Mapping[str, Path | None]) -> None:
    """Raise `UsageError` for an option whose file is one of the store's own."""
    for option, output in outputs.items():
        if output is None or is_stdout(output):
            continue
        if _is_part(address, Path(os.path.realpath(output))):
            raise UsageError(f"{option} {output}: the store {address.display_name} is in this file")


def _is_part(address: StoreAddress, file: Path) -> bool:
    """Return whether a file belongs to a store: a database with its logs, or one of its files."""
    name = address.plugin.name
    if name not in ("sqlite", "sqlalchemy", "files"):
        return False
    config: Any = address.plugin.config().load({"url": address.url})
    if name == "files":
        return file.is_file() and _holds(config.location, file)
    if name == "sqlite":
        path = config.path
    else:
        found = None if config.address is None else _SQLITE_ADDRESS.match(config.address.get_secret_value())
        path = "" if found is None else found[1]
    whole = str(Path(path).resolve())
    return bool(path) and identify_file(file) in {identify_file(whole + suffix) for suffix in _SQLITE_FILES}


def _holds(location: str, file: Path) -> bool:
    """Return whether a folder, a file or a pattern of files has a file."""
    from isthmus.backends.files.catalog import compile_pattern, split_pattern

    place = Path(location)
    base, pattern = (location, None) if place.exists() else split_pattern(location)
    folder = Path(base).resolve()
    if folder.is_file():
        return identify_file(folder) == identify_file(file)
    if not file.is_relative_to(folder):
        return False
    return (
        pattern is None or compile_pattern(pattern).fullmatch(file.relative_to(folder).as_posix()) is not None
    )
