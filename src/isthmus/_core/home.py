"""The home folder in paths that a user wrote as text."""

from __future__ import annotations

import os


def expand_home(path: str) -> str:
    """Return a path whose leading `~` or `~user` is replaced by a home folder.

    Only the text tells `~/x` from `./~/x`, which is a file below the current folder: a `Path` has dropped
    the `./`. Without such a home the path stays as it is, where `Path.expanduser` raises `RuntimeError`.
    """
    return os.path.expanduser(path)  # noqa: PTH111 - see above
