"""Servers as containers, for people who have Docker: through testcontainers, when an engine answers."""

import contextlib
import functools
import os
import socket
from collections.abc import Callable
from typing import Any, Self

from tests.servers.s3 import ACCESS_KEY, BUCKET, REGION, SECRET_KEY

_SOCKET = "/var/run/docker.sock"
_S3_IMAGE = "versity/versitygw:v1.8.0"


@functools.cache
def engine_answers() -> bool:
    """Tell whether a Docker engine can be used from here."""
    # The client library leaves a socket open when nobody answers, and costs
    # a second to import: so the usual place is tried by hand first.
    if not os.environ.get("DOCKER_HOST") and not _listens(_SOCKET):
        return False
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        return False
    try:
        with contextlib.closing(docker.from_env(timeout=3)) as client:
            return bool(client.ping())
    except DockerException:
        return False


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) == 0


class ContainerServer:
    """A container that lives as long as this process; testcontainers removes it afterwards."""

    source = "docker"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.env: dict[str, str] = {}
        self.url = ""
        self._make, self.image = _CONTAINERS[kind]
        self._container: Any = None

    def version(self) -> str:
        """Return the image."""
        return self.image

    def start(self) -> Self:
        """Start the container and wait until its server answers."""
        self._container, self.url, self.env = self._make(self.image)
        return self

    def close(self) -> None:
        """Stop and remove the container."""
        if self._container is not None:
            self._container.stop()
            self._container = None


def container(kind: str) -> ContainerServer | None:
    """Return a container server of this kind, not started, or None when it cannot be had."""
    return ContainerServer(kind) if kind in _CONTAINERS and engine_answers() else None


_Made = tuple[Any, str, dict[str, str]]


def _postgres(image: str) -> _Made:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    made = DockerContainer(image).with_exposed_ports(5432).with_env("POSTGRES_PASSWORD", "isthmus")
    made = made.with_command("-c fsync=off -c synchronous_commit=off")
    # The image starts the server twice: once to set it up, once for good.
    made.waiting_for(LogMessageWaitStrategy("ready to accept connections", times=2)).start()
    host, port = made.get_container_host_ip(), made.get_exposed_port(5432)
    return made, f"postgresql://postgres:isthmus@{host}:{port}/postgres", {}


def _elasticsearch(image: str) -> _Made:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    made = DockerContainer(image).with_exposed_ports(9200)
    made = made.with_env("discovery.type", "single-node").with_env("xpack.security.enabled", "false")
    made = made.with_env("ES_JAVA_OPTS", "-Xms512m -Xmx512m").with_env(
        "action.destructive_requires_name", "false"
    )
    made.waiting_for(HttpWaitStrategy(9200, "/_cluster/health").for_status_code(200)).start()
    return made, f"http://{made.get_container_host_ip()}:{made.get_exposed_port(9200)}", {}


def _s3(image: str) -> _Made:
    from botocore.session import Session
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import PortWaitStrategy

    made = DockerContainer(image).with_exposed_ports(7070).with_command("--keep-alive --quiet posix /tmp")
    made = made.with_env("ROOT_ACCESS_KEY", ACCESS_KEY).with_env("ROOT_SECRET_KEY", SECRET_KEY)
    made.waiting_for(PortWaitStrategy(7070)).start()
    endpoint = f"http://{made.get_container_host_ip()}:{made.get_exposed_port(7070)}"
    secrets = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    client = Session().create_client("s3", region_name=REGION, endpoint_url=endpoint, **secrets)
    client.create_bucket(Bucket=BUCKET)
    client.close()
    env = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return made, f"s3://{BUCKET}/?endpoint_url={endpoint}&region={REGION}", env


def _mariadb(image: str) -> _Made:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    made = DockerContainer(image).with_exposed_ports(3306)
    made = made.with_env("MARIADB_ROOT_PASSWORD", "isthmus").with_env("MARIADB_DATABASE", "test")
    made.waiting_for(LogMessageWaitStrategy("ready for connections", times=2)).start()
    host, port = made.get_container_host_ip(), made.get_exposed_port(3306)
    return made, f"mysql+asyncmy://root:isthmus@{host}:{port}/test", {}


# Kinds that are about one program in one state (ICU, PgBouncer, moto) run locally only.
_CONTAINERS: dict[str, tuple[Callable[[str], _Made], str]] = {
    "postgres": (_postgres, "postgres:15"),
    "postgres18": (_postgres, "postgres:18"),
    "elasticsearch": (_elasticsearch, "elasticsearch:9.2.0"),
    "elasticsearch8": (_elasticsearch, "elasticsearch:8.19.5"),
    "s3": (_s3, _S3_IMAGE),
    "mariadb": (_mariadb, "mariadb:11"),
}
