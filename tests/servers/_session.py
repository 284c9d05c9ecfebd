"""The servers of one session: a folder of state files, shared by all processes that have its name."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from tests.servers._kinds import KINDS
from tests.servers._local import SESSION, LocalServer

TIMINGS = "ISTHMUS_TEST_TIMINGS"


class Session:
    """Starts each kind of server at most once, whichever process asks first.

    The folder is known to child processes (pytest-xdist's workers, say) by the
    environment variable ISTHMUS_TEST_SESSION. Servers that tests start for
    themselves leave a state file there too, so that the end of the session is
    the end of every server, also when a test forgets.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._watchdog: subprocess.Popen[bytes] | None = None

    @classmethod
    def current(cls) -> Self | None:
        """Return the session that this process is part of."""
        folder = os.environ.get(SESSION)
        return cls(Path(folder)) if folder and Path(folder).is_dir() else None

    @classmethod
    def begin(cls) -> Self:
        """Open a session, known to this process and to those that it starts."""
        session = cls(Path(tempfile.mkdtemp(prefix="isthmus-session-")))
        os.environ[SESSION] = str(session.folder)
        session._watchdog = subprocess.Popen(
            [sys.executable, "-m", "tests.servers._watchdog", session.folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
        return session

    def shared(self, kind: str) -> LocalServer:
        """Return this session's server of a kind, started by the first one who asks."""
        with (self.folder / f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self.find(kind)
            if found is not None and found.running:
                return found
            if found is not None:
                (self.folder / f"{kind}.ended").touch()
            server = KINDS[kind](**(KINDS[kind].timings if os.environ.get(TIMINGS) else KINDS[kind].shared))
            server.label = f"{kind}.shared"
            try:
                return server.start()
            except BaseException:
                server.close()
                raise

    def ended(self) -> list[str]:
        """Return the kinds whose shared server ended, which no test may do, even if it runs again."""
        started = (file.name.split(".")[0] for file in self.folder.glob("*.shared.json"))
        found = {kind: self.find(kind) for kind in started}
        gone = {kind for kind, server in found.items() if server is not None and not server.running}
        return sorted(gone | {file.stem for file in self.folder.glob("*.ended")})

    def find(self, kind: str) -> LocalServer | None:
        """Return the shared server of a kind when there is one."""
        file = self.folder / f"{kind}.shared.json"
        return self._load(file) if file.exists() else None

    def _load(self, file: Path) -> LocalServer:
        state = json.loads(file.read_text())
        return KINDS[state["kind"]](**state["settings"]).adopt(state, file.stem)

    def stop_all(self) -> None:
        """Stop every server that the folder knows and remove its data."""
        # A pooler before the server behind it.
        for file in sorted(self.folder.glob("*.json")):
            server = self._load(file)
            server.close()
            file.unlink(missing_ok=True)

    def end(self) -> None:
        """Stop every server and remove the session's folder."""
        self.stop_all()
        shutil.rmtree(self.folder)
        if os.environ.get(SESSION) == str(self.folder):
            del os.environ[SESSION]
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait(30)
