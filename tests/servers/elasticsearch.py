"""Elasticsearch: one real node from the test distribution that Elastic publishes on Maven Central."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.servers._local import LocalServer
from tests.servers._places import give, public_cache, replace_folder
from tests.servers._process import Pid, StartError, clean_env, run, tail
from tests.servers._provision import command, exclusive, jdk, maven_zip
from tests.servers._tls import Certificate, make_certificate

_GROUP = "org.elasticsearch.distribution.integ-test-zip"
_COPIED = ("log4j2.properties", "roles.yml", "role_mapping.yml", "users", "users_roles")


class ElasticsearchServer(LocalServer):
    """A single node without Elastic's optional modules, 512 MB of heap, security off.

    * `password` turns basic authentication on, for the user `elastic`.
    * `tls=True` serves HTTPS with a certificate of `make_certificate`, whose
      files are in `certificate`; it needs a password.
    * `api_keys=True` adds the plugin without which this distribution cannot
      keep API keys; it needs a password and a JDK with a compiler.
    * `bench=True` runs with the full JIT, G1 and 1 GB, for timings.
    * `tmpfs=True` keeps the data in memory: each new index costs several fsyncs.
    * `config` are further lines of elasticsearch.yml.
    """

    kind: ClassVar[str] = "elasticsearch"
    release: ClassVar[str] = "9.2.0"
    # Of the zip as Maven Central served it on 2026-11-21.
    sha256: ClassVar[str] = "bf44938a0490ba2a303d39c9cb64b38963dd08c812ce93e10816e878585bcb6b"
    java: ClassVar[int] = 21
    patience: ClassVar[float] = 120
    # Containers often have 64 MB, which a run would fill.
    room: ClassVar[int] = 2 * 2**30
    shared: ClassVar[Mapping[str, Any]] = {"tmpfs": True}
    timings: ClassVar[Mapping[str, Any]] = {"bench": True}
    fetch: ClassVar[str] = (
        "install Maven and a JDK 21 or newer, then: python -m tests.servers provision elasticsearch"
    )

    def __init__(
        self,
        *,
        port: int | None = None,
        tmpfs: bool = False,
        heap: str | None = None,
        password: str | None = None,
        tls: bool = False,
        tls_names: tuple[str, ...] = ("localhost", "127.0.0.1"),
        tls_expired: bool = False,
        api_keys: bool = False,
        bench: bool = False,
        config: Mapping[str, str | int] | None = None,
    ) -> None:
        super().__init__(port=port, tmpfs=tmpfs)
        if (tls or api_keys) and not password:
            raise ValueError("tls and api_keys need a password")
        self.password = password
        self.certificate: Certificate | None = None
        self._tls = (tls_names, tls_expired) if tls else None
        self._keys = api_keys
        self._bench = bench
        self._heap = heap or ("1g" if bench else "512m")
        self._config = dict(config or {})

    @classmethod
    def provision(cls) -> Path:
        """Return the unpacked distribution, fetched from Maven Central once."""
        jdk(cls.java)
        return maven_zip(_GROUP, "elasticsearch", cls.release, cls.sha256)

    @property
    def url(self) -> str:
        """The node's address; the password is not in it."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def version(self) -> str:
        """Return the release and the Java it runs on."""
        return f"Elasticsearch {self.release} on {jdk(self.java).name}"

    def request(self, method: str, path: str, body: object = None, *, timeout: float = 10) -> tuple[int, Any]:
        """Send one request as the node's superuser and return status and decoded answer."""
        headers = {"content-type": "application/json"}
        if self.password:
            secret = base64.b64encode(f"elastic:{self.password}".encode()).decode()
            headers["authorization"] = f"Basic {secret}"
        if self._tls:
            # This side only asks the node that it has just started itself.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            kind = answer.headers.get_content_type()
            return answer.status, json.loads(text) if kind.endswith("json") and text else text

    def _ready(self) -> bool:
        try:
            status, _ = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
            return False
        return status == 200

    def _prepare(self) -> None:
        distribution = self.provision()
        conf = self.home / "conf"
        for folder in (conf / "jvm.options.d", self.home / "data", self.home / "logs", self.home / "tmp"):
            folder.mkdir(parents=True)
        for name in _COPIED:
            shutil.copy(distribution / "config" / name, conf / name)
        options = [f"-Xms{self._heap}", f"-Xmx{self._heap}", "-XX:+ExitOnOutOfMemoryError"]
        # Touching every page of the heap in advance doubles the memory in use.
        options += [
            "-XX:-AlwaysPreTouch",
            "-Djava.io.tmpdir=${ES_TMPDIR}",
            "20-:--add-modules=jdk.incubator.vector",
        ]
        # Tests end before the second compiler has paid for itself.
        options += ["-XX:+UseG1GC"] if self._bench else ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        (conf / "jvm.options").write_text("\n".join(options) + "\n")
        if self._tls is not None:
            names, expired = self._tls
            self.certificate = make_certificate(conf, names=names, expired=expired)
        give(self.home)
        if self.password:
            self._keystore(distribution)

    def _keystore(self, distribution: Path) -> None:
        tool = distribution / "bin" / "elasticsearch-keystore"
        environment = self._environment()
        run([tool, "create"], cwd=self.home, env=environment)
        secret = self.home / "conf" / "bootstrap"
        secret.write_text(self.password or "")
        give(secret.parent)
        # The tool reads a password from standard input only.
        run(
            ["/bin/sh", "-c", f"'{tool}' add -x -f bootstrap.password < '{secret}'"],
            cwd=self.home,
            env=environment,
        )
        secret.unlink()

    def _environment(self) -> dict[str, str]:
        return clean_env(
            self.home,
            ES_JAVA_HOME=str(jdk(self.java)),
            ES_PATH_CONF=str(self.home / "conf"),
            ES_TMPDIR=str(self.home / "tmp"),
            CLI_JAVA_OPTS="-XX:TieredStopAtLevel=1",
        )

    def _launch(self) -> Pid:
        distribution = self.provision()
        settings: dict[str, str | int] = {
            "cluster.name": "isthmus-tests",
            "node.name": "node",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": 0,
            "path.data": str(self.home / "data"),
            "path.logs": str(self.home / "logs"),
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "action.destructive_requires_name": "false",
            "xpack.security.enabled": "true" if self.password else "false",
        }
        if self._tls:
            settings |= {
                "xpack.security.http.ssl.enabled": "true",
                "xpack.security.http.ssl.key": "server.key",
                "xpack.security.http.ssl.certificate": "server.crt",
            }
        settings |= self._config
        text = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (self.home / "conf" / "elasticsearch.yml").write_text(text)
        give(self.home / "conf")
        if self._keys:
            distribution = _with_testkit(distribution, jdk(self.java), self.release)
        pid_file = self.home / "pid"
        pid_file.unlink(missing_ok=True)
        # The start script ends once the node is up; the JVM that stays is the
        # one that the pid file names.
        starter = [distribution / "bin" / "elasticsearch", "-d", "-p", pid_file]
        try:
            said = run(starter, cwd=self.home, env=self._environment())
        except StartError as error:
            logged = tail(self.home / "logs" / "isthmus-tests.log", 1500)
            raise StartError(f"{error}\n{logged}") from error
        with self.log.open("a") as log:
            log.write(said)
        return Pid.of(int(pid_file.read_text()))

    def settings(self) -> dict[str, Any]:
        """Return what a handle on the running server needs."""
        return {"password": self.password, "tls": self._tls is not None, "api_keys": self._keys}


class Elasticsearch8Server(ElasticsearchServer):
    """The last minor release of Elasticsearch 8."""

    kind: ClassVar[str] = "elasticsearch8"
    release: ClassVar[str] = "8.19.5"
    sha256: ClassVar[str] = "5d3a8f63f66d828a24d29f88819bf2c6e695d124c470da3ab92a5d6cc1397785"
    java: ClassVar[int] = 17
    fetch: ClassVar[str] = (
        "install Maven and a JDK 17 or newer, then: python -m tests.servers provision elasticsearch8"
    )


def _with_testkit(distribution: Path, java: Path, release: str) -> Path:
    """Return a second copy of the distribution, hard-linked, with the plugin of TestKit.java in it."""
    target = public_cache() / f"{distribution.name}-testkit"
    with exclusive(target.name):
        if target.is_dir():
            return target
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        tree = work / "tree"
        shutil.copytree(distribution, tree, copy_function=os.link)
        plugin = tree / "plugins" / "testkit"
        plugin.mkdir(parents=True)
        source = Path(__file__).with_name("TestKit.java")
        command(
            *(
                java / "bin" / "javac",
                "-nowarn",
                "-cp",
                f"{distribution}/lib/*",
                "-d",
                work / "classes",
                source,
            )
        )
        command(java / "bin" / "jar", "cf", plugin / "testkit.jar", "-C", work / "classes", ".")
        descriptor = {
            "name": "testkit",
            "description": "analysis pieces for tests",
            "version": "1",
            "elasticsearch.version": release,
            "java.version": "17",
            "classname": "testkit.TestKit",
        }
        lines = (f"{key}={value}\n" for key, value in descriptor.items())
        (plugin / "plugin-descriptor.properties").write_text("".join(lines))
        subprocess.run(["chmod", "-R", "a+rX", str(tree)], check=True)
        replace_folder(tree, target)
        shutil.rmtree(work)
    return target
