"""PgBouncer before a PostgreSQL of its own or a given one: in transaction mode, `session` in session mode."""

from pathlib import Path
from typing import Any, ClassVar, Self

from tests.servers._local import LocalServer
from tests.servers._places import ProvisionError, give
from tests.servers._process import Pid, clean_env, run, spawn
from tests.servers._provision import apt, exclusive, program
from tests.servers.postgres import PostgresServer


class PgBouncerServer(LocalServer):
    """PgBouncer 1.18 of Debian, `pool_mode = transaction`, 20 server connections."""

    kind: ClassVar[str] = "pgbouncer"
    fetch: ClassVar[str] = "apt-get install pgbouncer"

    def __init__(
        self, upstream: PostgresServer | None = None, *, port: int | None = None, pool: int = 20
    ) -> None:
        super().__init__(port=port)
        self.pool = pool
        self._own = upstream is None
        self.upstream = upstream or PostgresServer()

    @classmethod
    def provision(cls) -> Path:
        """Return the program, installed from Debian when it is missing; PostgreSQL too."""
        PostgresServer.provision()
        with exclusive("pgbouncer"):
            found = program("pgbouncer")
            if found is None:
                apt("pgbouncer")
                found = program("pgbouncer")
        if found is None:
            raise ProvisionError(f"no PgBouncer found; {cls.fetch}")
        return found

    @property
    def url(self) -> str:
        """The URL of the database `postgres` behind the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def version(self) -> str:
        """Return the program's version and that of the server behind it."""
        said = run([self.provision(), "--version"], cwd=Path("/"), env=clean_env(Path("/")))
        return f"{said.splitlines()[0]} (transaction mode) before {self.upstream.version()}"

    def start(self) -> Self:
        """Start PostgreSQL, when it is ours, and the pooler."""
        if self._own and not self.running:
            self.upstream.start()
        super().start()
        self.started_in += self.upstream.started_in if self._own else 0
        return self

    def _prepare(self) -> None:
        users = self.home / "users.txt"
        users.write_text('"postgres" ""\n')
        give(self.home)

    def _launch(self) -> Pid:
        config = self.home / "pgbouncer.ini"
        config.write_text(
            f"""[databases]
session = host=127.0.0.1 port={self.upstream.port} dbname=postgres pool_mode=session
* = host=127.0.0.1 port={self.upstream.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self.home / "users.txt"}
admin_users = postgres
pool_mode = transaction
default_pool_size = {self.pool}
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
"""
        )
        give(self.home)
        return spawn([self.provision(), config], log=self.log, cwd=self.home, env=clean_env(self.home))

    def stop(self) -> None:
        """Stop the pooler, and PostgreSQL when it is ours."""
        super().stop()
        if self._own:
            self.upstream.stop()

    def close(self) -> None:
        """Stop both and remove the data."""
        super().close()
        if self._own:
            self.upstream.close()

    def settings(self) -> dict[str, Any]:
        """Return what a handle on the running server needs."""
        return {"pool": self.pool}

    def adopt(self, state: dict[str, Any], label: str) -> Self:
        """Take over the pooler; its PostgreSQL has a state of its own in the session's folder."""
        self._own = False
        return super().adopt(state, label)
