"""One server process: started detached, known by pid and start time, stopped by that pid only."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers._places import unprivileged

# Below the range from which the kernel hands out ports for outgoing
# connections: a server that was killed finds its port free when it comes back.
_PORTS = range(20_000, 32_000)

_children: dict[int, subprocess.Popen[bytes]] = {}


class StartError(RuntimeError):
    """A server's process ended, or did not get ready in time; the end of its log is in the message."""


@dataclass(frozen=True, slots=True)
class Pid:
    """A process, told apart from a later one with the same number by its start time."""

    number: int
    born: str

    @classmethod
    def of(cls, number: int) -> "Pid":
        """Return the identity of the process that has this number now."""
        return cls(number, _stat(number)[1])

    def alive(self) -> bool:
        """Tell whether this very process still runs; one that only waits to be reaped does not."""
        child = _children.get(self.number)
        if child is not None and child.poll() is not None:
            del _children[self.number]
            return False
        state, born = _stat(self.number)
        if child is not None and state == "Z":
            # It ended since the line above. PostgreSQL does not start beside one that is not reaped.
            child.wait()
            del _children[self.number]
            return False
        return state not in {"", "Z", "X"} and born == self.born

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.number, number)

    def wait(self, seconds: float) -> bool:
        """Wait until the process has gone; False when it is still there afterwards."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def children(self) -> "list[Pid]":
        """Return the direct children of this process."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.number:
                    found.append(Pid(int(folder.name), fields[19]))
        return found


def _stat(number: int) -> tuple[str, str]:
    """Return state and start time of a process; an empty state when there is none."""
    path = Path(f"/proc/{number}/stat")
    try:
        # The command name may hold blanks and brackets; fields count from after it.
        fields = path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return "", ""
    else:
        return fields[0], fields[19]
    # No /proc (macOS): the number alone has to do.
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return "", ""
    return "R", ""


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    drop: bool = True,
) -> Pid:
    """Start a process in a session of its own, without standard input, writing to `log`.

    A session of its own keeps Ctrl-C from reaching servers before the tests
    that use them have ended. With `drop` a root process changes to `nobody`.
    """
    account = unprivileged() if drop else None
    with log.open("ab") as out:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            **_identity(account is not None),
        )
    _children[child.pid] = child
    return Pid.of(child.pid)


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], timeout: float = 120) -> str:
    """Run a preparing command (initdb and the like) under the servers' account and return its output."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(env),
        timeout=timeout,
        check=False,
        text=True,
        **_identity(unprivileged() is not None),
    )
    if done.returncode != 0:
        raise StartError(f"{Path(command[0]).name} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def _identity(drop: bool) -> dict[str, object]:
    account = unprivileged() if drop else None
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": [], "umask": 0o077}


def clean_env(home: Path, **more: str) -> dict[str, str]:
    """Return an environment for a server that holds nothing of ours but the search path."""
    path = os.environ.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8", "TZ": "UTC", **more}


def free_port() -> int:
    """Return a loopback port on which nobody listens."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartError("200 loopback ports were tried and all are taken")


def listens(port: int) -> bool:
    """Tell whether somebody accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(log: Path, size: int = 2000) -> str:
    """Return the end of a log file."""
    return log.read_text(errors="replace")[-size:] if log.exists() else "(no log)"
