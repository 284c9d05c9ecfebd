"""Real servers for tests and demos.

A test asks for one by name, `server("postgres").url`; a crash test starts one
for itself, `with PostgresServer(fsync=True) as postgres: ... postgres.kill()`.
From the shell: `python -m tests.servers`.
"""

import os
import sys
from dataclasses import dataclass, field
from typing import Protocol

from tests.servers._docker import container
from tests.servers._kinds import KINDS, variable
from tests.servers._local import LocalServer
from tests.servers._places import ProvisionError
from tests.servers._process import StartError
from tests.servers._session import Session
from tests.servers._tls import Certificate, make_certificate
from tests.servers.elasticsearch import Elasticsearch8Server, ElasticsearchServer
from tests.servers.mariadb import MariaDbServer
from tests.servers.pgbouncer import PgBouncerServer
from tests.servers.postgres import IcuPostgresServer, PostgresServer, WheelPostgresServer
from tests.servers.s3 import MotoServer, VersityServer

__all__ = [
    "KINDS",
    "Certificate",
    "Elasticsearch8Server",
    "ElasticsearchServer",
    "Given",
    "IcuPostgresServer",
    "LocalServer",
    "MariaDbServer",
    "MissingServerError",
    "MotoServer",
    "PgBouncerServer",
    "PostgresServer",
    "Running",
    "Session",
    "VersityServer",
    "WheelPostgresServer",
    "ended",
    "find",
    "make_certificate",
    "required",
    "server",
    "variable",
]


class MissingServerError(RuntimeError):
    """A server can be had neither from the environment nor from Docker nor from this machine."""


class Running(Protocol):
    """What a test may know about any server: where it is and where it came from."""

    kind: str
    source: str

    @property
    def url(self) -> str:
        """Where the server is."""

    @property
    def env(self) -> dict[str, str]:
        """Further environment variables that a client needs."""

    def version(self) -> str:
        """Return what kind of server this is, in words."""


@dataclass(frozen=True, slots=True)
class Given:
    """A server that somebody else runs, named by an environment variable."""

    kind: str
    url: str
    source: str = "environment"
    env: dict[str, str] = field(default_factory=dict)

    def version(self) -> str:
        """Return the name of the variable."""
        return f"${variable(self.kind)}"


_found: dict[str, Running] = {}


def find(kind: str) -> Running:
    """Return a running server of this kind: from the environment, from Docker, or started here.

    A local one is started once per session and shared by its processes; the
    session must have begun (the pytest hooks and `tests.servers run` do that).
    Raises MissingServerError with what to do about it.
    """
    if kind not in KINDS:
        raise ValueError(f"no server {kind!r}; there are {', '.join(KINDS)}")
    given = os.environ.get(variable(kind))
    if given:
        return Given(kind, given)
    if kind not in _found:
        try:
            _found[kind] = _start(kind)
        except (ProvisionError, StartError) as error:
            text = f"no {kind} server ({error}). To get it: {KINDS[kind].fetch}, or set {variable(kind)}"
            raise MissingServerError(text) from error
        print(f"server {describe(_found[kind])}", file=sys.stderr, flush=True)
    return _found[kind]


def _start(kind: str) -> Running:
    contained = container(kind)
    if contained is not None:
        return contained.start()
    session = Session.current()
    if session is None:
        raise MissingServerError("no session of test servers has begun (tests.servers.Session.begin)")
    return session.shared(kind)


def ended() -> list[str]:
    """Return the kinds of this session's shared servers that ended by themselves."""
    session = Session.current()
    return session.ended() if session is not None else []


def describe(running: Running) -> str:
    """Return one line that says which server was taken."""
    seconds = f", {running.started_in:.1f} s" if isinstance(running, LocalServer) else ""
    return f"{running.kind}: {running.source}, {running.version()}{seconds}, {running.url}"


def required() -> bool:
    """Tell whether a missing server is an error (CI=true, ISTHMUS_TEST_REQUIRE=all) rather than a skip."""
    in_ci = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
    return in_ci or os.environ.get("ISTHMUS_TEST_REQUIRE") == "all"


def server(kind: str) -> Running:
    """Return a running server for a test, which is skipped where none can be had.

    What a client needs besides the URL (AWS credentials) is put into the
    environment.
    """
    import pytest

    try:
        running = find(kind)
    except MissingServerError as error:
        if required():
            raise
        lines = str(error).splitlines()
        pytest.skip(
            " ".join(line.strip() for line in (lines[0], *lines[-1:])) if len(lines) > 1 else lines[0]
        )
    os.environ.update(running.env)
    return running
