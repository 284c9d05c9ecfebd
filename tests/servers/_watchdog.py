"""Ends the servers of a session whose process has gone: the program that `Session.begin` starts."""

import os
import sys
from pathlib import Path

from tests.servers._local import SESSION
from tests.servers._session import Session


def main(folder: Path) -> None:
    """Wait until the process that began the session has gone, then end what it left behind.

    The pipe on standard input closes with that process, however it ends: a
    SIGKILL of the test runner leaves no server.
    """
    sys.stdin.buffer.read()
    if folder.is_dir():
        os.environ[SESSION] = str(folder)
        Session(folder).end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
