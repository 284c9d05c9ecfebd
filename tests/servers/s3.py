"""S3: versitygw over a folder, and moto's server as a second opinion."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

from tests.servers._local import LocalServer
from tests.servers._process import Pid, clean_env, spawn
from tests.servers._provision import go_tool, pip

BUCKET = "isthmus-test"
REGION = "us-east-1"
ACCESS_KEY = "isthmus-test"
SECRET_KEY = "isthmus-test-secret"


class _S3Server(LocalServer):
    """What both servers share: credentials, the bucket, the URL."""

    bucket = BUCKET

    @property
    def endpoint(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL of the bucket; the credentials are in `env`."""
        return (
            f"s3://{self.bucket}/?{urlencode({'endpoint_url': self.endpoint, 'region': REGION}, safe=':/')}"
        )

    @property
    def env(self) -> dict[str, str]:
        """The credentials, as AWS clients read them."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def create_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there; a name has 3 or more characters."""
        from botocore.session import Session

        client = Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        try:
            present = {found["Name"] for found in client.list_buckets()["Buckets"]}
            if name not in present:
                client.create_bucket(Bucket=name)
        finally:
            client.close()

    def _after_start(self) -> None:
        self.create_bucket(self.bucket)


class VersityServer(_S3Server):
    """versitygw, whose conditional writes are real; `tmpfs=True` keeps the objects in memory, for timings."""

    kind: ClassVar[str] = "s3"
    timings: ClassVar[Mapping[str, Any]] = {"tmpfs": True}
    release: ClassVar[str] = "v1.8.0"
    fetch: ClassVar[str] = "install Go, then: python -m tests.servers provision s3"

    @classmethod
    def provision(cls) -> Path:
        """Return the program, built from source once (75 s)."""
        return go_tool("github.com/versity/versitygw/cmd/versitygw", cls.release)

    def version(self) -> str:
        """Return the pinned release."""
        return f"versitygw {self.release}"

    def _prepare(self) -> None:
        (self.home / "objects").mkdir()

    def _launch(self) -> Pid:
        options = ["--port", f"127.0.0.1:{self.port}", "--region", REGION, "--keep-alive", "--quiet"]
        secrets = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        return spawn(
            [self.provision(), *options, "posix", self.home / "objects"],
            log=self.log,
            cwd=self.home,
            env=clean_env(self.home, **secrets),
            # It has no objection to root, and the program lies in our own cache.
            drop=False,
        )


class MotoServer(_S3Server):
    """moto's server: in memory (a restart loses all), and any secret will do."""

    kind: ClassVar[str] = "moto"
    fetch: ClassVar[str] = "pip install 'moto[server]'"

    @classmethod
    def provision(cls) -> Path:
        """Install moto's server into the running environment unless it is there."""
        pip("moto", "moto[server]>=5")
        return Path(sys.executable)

    def version(self) -> str:
        """Return moto's version."""
        from importlib.metadata import version

        return f"moto {version('moto')}"

    def _prepare(self) -> None:
        self.provision()

    def _launch(self) -> Pid:
        return spawn(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            log=self.log,
            cwd=self.home,
            env=clean_env(self.home),
            drop=False,
        )
