"""Test servers from the shell: `python -m tests.servers {provision,run,start,stop,env}`."""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers import KINDS, MissingServerError, Session, describe, find, variable
from tests.servers._docker import container
from tests.servers._local import SESSION
from tests.servers._places import ProvisionError, public_cache, state_folder


def _provision(kinds: Sequence[str]) -> int:
    """Fetch what these kinds need, side by side; nothing for those that the environment or Docker gives."""
    # What apt, Maven and Go do waits for the network most of the time.
    with ThreadPoolExecutor(8) as pool:
        jobs = {kind: pool.submit(_provision_one, kind) for kind in kinds or KINDS}
    failed = False
    for kind, job in jobs.items():
        try:
            print(f"{kind}: {job.result()}", file=sys.stderr)
        except ProvisionError as error:
            failed = True
            print(f"{kind}: not available: {error}", file=sys.stderr)
    return int(failed)


def _provision_one(kind: str) -> str:
    if os.environ.get(variable(kind)):
        return f"${variable(kind)}"
    contained = container(kind)
    if contained is not None:
        return f"docker {contained.image}"
    begun = time.monotonic()
    place = KINDS[kind].provision()
    return f"{place} ({time.monotonic() - begun:.1f} s)"


def _environment(kinds: Sequence[str]) -> dict[str, str]:
    """Find or start these servers, side by side, and return the variables that name them."""
    with ThreadPoolExecutor(max(1, len(kinds))) as pool:
        found = list(pool.map(find, kinds))
    names: dict[str, str] = {}
    for running in found:
        names |= {variable(running.kind): running.url, **running.env}
    return names


def _run(kinds: Sequence[str], command: Sequence[str]) -> int:
    """Run a command with servers around it and return its exit code."""
    with _interruptible(), _session():
        try:
            names = _environment(kinds)
        except MissingServerError as error:
            print(f"tests.servers: {error}", file=sys.stderr)
            return 3
        child = subprocess.Popen(command, env={**os.environ, **names})
        try:
            code = child.wait()
        except KeyboardInterrupt:
            code = _interrupted(child)
        return 128 - code if code < 0 else code


def _interrupted(child: "subprocess.Popen[bytes]") -> int:
    """Give the command time to end in its own way, then insist."""
    # On Ctrl-C the terminal has told it already; on SIGTERM nobody has.
    for number, patience in ((signal.SIGINT, 15), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        if child.poll() is None:
            child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            break
    return 130


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, so that the servers are stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.contextmanager
def _session() -> Iterator[None]:
    session = Session.begin()
    try:
        yield
    finally:
        # A second Ctrl-C must not leave servers behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        session.end()


def _start(kinds: Sequence[str]) -> int:
    """Start servers that stay until `stop`, and print the lines that a shell can evaluate."""
    os.environ[SESSION] = str(state_folder())
    try:
        _environment(kinds)
    except MissingServerError as error:
        print(f"tests.servers: {error}", file=sys.stderr)
        return 3
    return _print_env()


def _print_env() -> int:
    session = Session(state_folder())
    for kind in KINDS:
        running = session.find(kind)
        if running is not None and running.running:
            for name, value in {variable(kind): running.url, **running.env}.items():
                print(f"export {name}={shlex.quote(value)}")
    return 0


def _stop(kinds: Sequence[str]) -> int:
    os.environ[SESSION] = str(state_folder())
    session = Session(state_folder())
    if not kinds:
        session.stop_all()
    for kind in kinds:
        running = session.find(kind)
        if running is not None:
            running.close()
            print(f"stopped {describe(running)}", file=sys.stderr)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    names = ", ".join(KINDS)
    for verb, text in {
        "provision": "fetch what is missing (default: for all kinds)",
        "run": "start servers, run the command after --, stop them",
        "start": "start servers that stay, and print their environment",
        "stop": "stop those started by hand (default: all)",
        "env": "print the environment of those started by hand",
    }.items():
        one = verbs.add_parser(verb, help=text, description=f"{text}. Kinds: {names}.")
        if verb != "env":
            one.add_argument("kinds", nargs="*", metavar="KIND")
    arguments = list(arguments)
    command: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, command = arguments[:cut], arguments[cut + 1 :]
    options = parser.parse_args(arguments)
    kinds = getattr(options, "kinds", [])
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"no server {unknown[0]!r}; there are {names}")
    if options.verb == "provision":
        code = _provision(kinds)
        print(f"cache: {public_cache()}", file=sys.stderr)
        return code
    if options.verb == "run":
        if not command:
            parser.error("run needs a command after --")
        return _run(kinds, command)
    if options.verb == "start":
        return _start(kinds)
    return _stop(kinds) if options.verb == "stop" else _print_env()


if __name__ == "__main__":
    # The checkout is the place from which `tests` is imported, also by children.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")) if part
    )
    sys.exit(main(sys.argv[1:]))
