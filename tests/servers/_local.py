"""What the servers have in common that run as programs of this machine."""

import contextlib
import json
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from tests.servers._places import run_folder
from tests.servers._process import Pid, StartError, free_port, listens, tail

SESSION = "ISTHMUS_TEST_SESSION"


class LocalServer(ABC):
    """A server on loopback whose data is in a temporary folder.

    `start` brings it up, on the same port and data each time; `kill` is
    SIGKILL, as a crash test needs it; `stop` is orderly and keeps the data;
    `close` stops and removes the data. As a context manager it starts and
    closes.
    """

    kind: ClassVar[str]
    source: ClassVar[str] = "local"
    # How a person gets the program where it cannot be fetched for them.
    fetch: ClassVar[str]
    # Seconds until a starting server must answer.
    patience: ClassVar[float] = 60
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # Bytes that must be free in memory for the data to be kept there.
    room: ClassVar[int] = 0
    # How a session's server is made, which no test kills.
    shared: ClassVar[Mapping[str, Any]] = {}
    # The same when figures are to be taken on it.
    timings: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *, port: int | None = None, tmpfs: bool = False) -> None:
        self.port = port or free_port()
        self.started_in = 0.0
        self.pid: Pid | None = None
        self._port_given = port is not None
        self._prepared = False
        self._tmpfs = tmpfs
        self._home: Path | None = None
        # The name under which a session's folder knows the server.
        self.label = ""

    # What a kind of server says about itself.

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that tests are given."""

    @property
    def env(self) -> dict[str, str]:
        """Environment variables, besides the URL, that a client needs."""
        return {}

    @classmethod
    @abstractmethod
    def provision(cls) -> Path:
        """Return where the program is; fetch it first when it is missing (ProvisionError if that fails)."""

    @abstractmethod
    def version(self) -> str:
        """Return the name and version of the program, for the line that is printed."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder and configuration; called once, before the first start."""

    @abstractmethod
    def _launch(self) -> Pid:
        """Write what names the port, start the process and return it at once."""

    def _ready(self) -> bool:
        """Tell whether the server answers."""
        return listens(self.port)

    def _after_start(self) -> None:  # noqa: B027  (most servers need nothing)
        """Do what the first clients expect to be there (a bucket, say)."""

    # Lifecycle

    @property
    def home(self) -> Path:
        """The temporary folder with data, configuration and log; made on first use."""
        if self._home is None:
            self._home = run_folder(self.kind, tmpfs=self._tmpfs, room=self.room)
        return self._home

    @property
    def log(self) -> Path:
        """The file that the server's output goes to."""
        return self.home / "server.log"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.pid is not None and self.pid.alive()

    def start(self) -> Self:
        """Start the server and wait until it answers; does nothing when it runs."""
        if self.running:
            return self
        begun = time.monotonic()
        first = not self._prepared
        if first:
            self._prepare()
            self._prepared = True
        for attempt in (1, 2, 3):
            try:
                self._start_once()
                break
            except StartError:
                # Between choosing a port and listening on it another process
                # may have taken it.
                if attempt == 3 or not first or self._port_given or not listens(self.port):
                    raise
                self.port = free_port()
        self._after_start()
        self.started_in = time.monotonic() - begun
        self._remember()
        return self

    def _start_once(self) -> None:
        self.pid = self._launch()  # builds the program first where it is missing, which may take minutes
        self._remember()
        deadline = time.monotonic() + self.patience
        while not self._ready() or not self.running:
            if not self.running:
                raise StartError(f"{self.kind} ended while starting:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                self.kill()
                raise StartError(f"{self.kind} did not answer in {self.patience:g} s:\n{tail(self.log)}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End the server with SIGKILL and wait until it and its children have gone; the data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order; after 20 s, with SIGKILL. The data stays."""
        self._end(self.stop_signal)

    def _end(self, number: signal.Signals) -> None:
        pid, self.pid = self.pid, None
        if pid is None or not pid.alive():
            return
        # Children are noted before the parent goes, when they can still be told.
        children = pid.children()
        pid.send(number)
        if not pid.wait(20):
            pid.send(signal.SIGKILL)
            pid.wait(10)
        # They end by themselves when their parent is gone; one in the midst of
        # a long statement would still hold the data folder.
        for child in children:
            if not child.wait(3):
                child.send(signal.SIGKILL)
                child.wait(5)

    def close(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        self._forget()
        if self._home is not None:
            shutil.rmtree(self._home)
            self._home = None
            self._prepared = False

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # A session's folder: a server is known there from the moment that its
    # process exists, so that the process that ends the session can end the server too.

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments that a handle on the running server needs."""
        return {}

    def _state_file(self) -> Path | None:
        session = os.environ.get(SESSION)
        if session is None or not Path(session).is_dir():
            return None
        return Path(session) / f"{self.label or f'{self.kind}-{self.port}'}.json"

    def _remember(self) -> None:
        path = self._state_file()
        if path is None or self.pid is None:
            return
        state = {
            "kind": self.kind,
            "settings": self.settings(),
            "port": self.port,
            "home": str(self.home),
            "pid": [self.pid.number, self.pid.born],
            "started_in": self.started_in,
            "url": self.url,
        }
        staging = path.with_suffix(f".{os.getpid()}")
        staging.write_text(json.dumps(state))
        staging.replace(path)

    def _forget(self) -> None:
        path = self._state_file()
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def adopt(self, state: dict[str, Any], label: str) -> Self:
        """Make this handle the one of a server that another process started."""
        self.port = state["port"]
        self.label = label
        self._home = Path(state["home"])
        self._prepared = True
        self.pid = Pid(*state["pid"])
        self.started_in = state["started_in"]
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind} {self.url} {'running' if self.running else 'down'}>"
