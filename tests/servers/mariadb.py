"""MariaDB, for the `sqlalchemy` backend: Debian's server, unprivileged and apart from any service."""

import socket
from pathlib import Path
from typing import ClassVar

from tests.servers._local import LocalServer
from tests.servers._places import ProvisionError, give
from tests.servers._process import Pid, clean_env, run, spawn
from tests.servers._provision import apt, exclusive, program

# The parts of mariadb-server that have the programs and no service;
# mariadb-install-db needs my_print_defaults of the second.
_PACKAGES = ("mariadb-server-core", "mariadb-client-core")


class MariaDbServer(LocalServer):
    """A MariaDB of its own with the database `test` and a root without password."""

    kind: ClassVar[str] = "mariadb"
    fetch: ClassVar[str] = f"apt-get install {' '.join(_PACKAGES)}"

    @classmethod
    def provision(cls) -> Path:
        """Return the program, installed from Debian when it is missing."""
        with exclusive("mariadb"):
            found = program("mariadbd")
            if found is None or program("my_print_defaults") is None:
                apt(*_PACKAGES)
                found = program("mariadbd")
        if found is None:
            raise ProvisionError(f"no MariaDB found; {cls.fetch}")
        return found

    @property
    def url(self) -> str:
        """The URL of the database `test`, as SQLAlchemy writes it."""
        return f"mysql+asyncmy://root@127.0.0.1:{self.port}/test"

    def version(self) -> str:
        """Return the program's version."""
        said = run([self.provision(), "--no-defaults", "--version"], cwd=Path("/"), env=clean_env(Path("/")))
        return "MariaDB " + said.partition("Ver ")[2].split()[0]

    def _prepare(self) -> None:
        self.provision()
        first = self.home / "first.sql"
        first.write_text("CREATE DATABASE IF NOT EXISTS test CHARACTER SET utf8mb4;\n")
        give(self.home)
        run(
            [
                program("mariadb-install-db") or "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.home / 'data'}",
                "--auth-root-authentication-method=normal",
                # The one that it would make is latin1, whatever one asks.
                "--skip-test-db",
            ],
            cwd=self.home,
            env=clean_env(self.home),
        )

    def _ready(self) -> bool:
        # The socket listens before the server is ready to serve; its greeting
        # is a packet whose first byte is the protocol version.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
                packet = probe.recv(5)
        except OSError:
            return False
        return len(packet) == 5 and packet[4] == 10

    def _launch(self) -> Pid:
        return spawn(
            [
                self.provision(),
                "--no-defaults",
                f"--datadir={self.home / 'data'}",
                f"--socket={self.home / 'socket'}",
                f"--pid-file={self.home / 'pid'}",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                f"--init-file={self.home / 'first.sql'}",
                # Without Debian's configuration the built-in default is latin1.
                "--character-set-server=utf8mb4",
                "--innodb-flush-log-at-trx-commit=2",
                "--max-connections=300",
            ],
            log=self.log,
            cwd=self.home,
            env=clean_env(self.home),
        )
