"""The config models of the S3 backend."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from isthmus._core.config import (
    BackendConfig,
    ChangesSettings,
    ConfigGroup,
    SecretStr,
    UniqueFields,
    text_part,
)
from isthmus.backends.s3.profile import read_profile
from isthmus.errors import ConfigError


class PoolConfig(ConfigGroup):
    """The limit of requests in flight."""

    max_connections: int = Field(default=64, ge=1, le=10_000)
    """Requests in flight, for all handles of this loop that have the same config."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds that a request waits for another one to end."""


class CacheConfig(ConfigGroup):
    """A cache of bodies by entity tag, so that a search reads only what changed (layout `object`)."""

    max_bytes: int = Field(default=256 * 2**20, ge=1)
    """The size of the cache in bytes, in memory or in the folder."""
    folder: str | None = None
    """A folder that keeps the cache across restarts; None keeps it in memory. It is safe to delete."""


class LogConfig(ConfigGroup):
    """How layout `log` keeps its entries."""

    memory_bytes: int = Field(default=256 * 2**20, ge=1)
    """Bytes of records in memory; others are read again from S3. The index is always in memory."""
    checkpoint_entries: int = Field(default=256, ge=2)
    """The least number of entries between two checkpoints."""
    grace: float = Field(default=3600.0, ge=0)
    """Seconds for which entries that a checkpoint replaced are kept for slow readers and writers."""


class S3Config(BackendConfig, ChangesSettings, UniqueFields):
    """Bucket, prefix, credentials and layout."""

    backend: ClassVar[str] = "s3"
    spellings: ClassVar[Mapping[str, str]] = {
        "region_name": "region",
        "endpoint": "endpoint_url",
        "access_key_id": "aws_access_key_id",
        "secret_access_key": "aws_secret_access_key",
        "session_token": "aws_session_token",
        "aws_region": "region",
        "max_pool_connections": "pool.max_connections",
        "max_connections": "pool.max_connections",
        "max_workers": "pool.max_connections",
        "skip_signature": "anonymous",
        "request_payer": "requester_pays",
        "kms_key_id": "sse_kms_key_id",
    }

    credentials: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
        ("profile",),
    )

    bucket: str = Field(min_length=3, max_length=255)
    prefix: str = ""
    region: str | None = None
    """The region that requests are signed for; `us-east-1` if no source has one."""
    endpoint_url: str | None = None
    """The address of the server; None is AWS, unless the environment or the profile has one."""
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    profile: str | None = None
    """The AWS profile: credentials, region, endpoint and `ca_bundle`, unless another source has them."""
    layout: Literal["object", "log"] = "object"
    transport: Literal["obstore", "aioboto3"] = "obstore"
    pool: PoolConfig = PoolConfig()
    timeout: float = Field(default=30.0, gt=0)
    """Seconds for one request."""
    checksum: Literal["when_required", "sha256"] = "when_required"
    """An additional checksum of uploads; servers other than AWS may not support it."""
    ca_file: str | None = None
    """A PEM file of certificates to trust in addition."""
    anonymous: bool = False
    """Send requests without a signature and look for no credentials: for buckets that anybody may read."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket is named: in the path or in the host; auto is the host on AWS, else the path."""
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    """How the server encrypts what is written; None leaves it to the bucket."""
    sse_kms_key_id: str | None = None
    """The KMS key to encrypt with; None is the account's own key for S3."""
    requester_pays: bool = False
    """Pay for the requests to somebody else's bucket that demands it."""
    storage_class: str | None = None
    """The class of what is written, such as `STANDARD_IA`; one that must be restored cannot be read."""
    create_bucket: bool = False
    cache: CacheConfig | None = None
    log: LogConfig = LogConfig()

    @field_validator("aws_access_key_id", "aws_session_token")
    @classmethod
    def _fits_a_header(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
        if not (text.isascii() and text.isprintable()):
            raise ValueError("it has a character that no header can have, such as a line break at its end")
        return value

    @field_validator("prefix", mode="after")
    @classmethod
    def _prefix(cls, prefix: str) -> str:
        cut = prefix.strip("/")
        if len(cut.encode()) > 600:
            raise ValueError("longer than 600 bytes")
        if any(part in {"", ".", ".."} for part in cut.split("/")) and cut:
            raise ValueError("its parts between slashes must not be empty, '.' or '..'")
        if any(ord(character) < 32 or ord(character) == 127 for character in cut):
            raise ValueError("it has control characters")
        return cut

    @field_validator("bucket", mode="after")
    @classmethod
    def _bucket(cls, bucket: str) -> str:
        if not all(c.isascii() and (c.isalnum() or c in ".-_:") for c in bucket):
            raise ValueError("a bucket is named by letters, digits, dots and hyphens")
        return bucket

    @field_validator("region", mode="after")
    @classmethod
    def _region(cls, region: str | None) -> str | None:
        if region is not None and any(c.isspace() or c in "'\"/" for c in region):
            raise ValueError("a region has no blanks, quotes or slashes")
        return region

    @field_validator("endpoint_url", mode="after")
    @classmethod
    def _endpoint(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if "@" in url:  # anywhere: an unescaped '/' in a password ends the host
            raise ValueError("credentials belong in aws_access_key_id and aws_secret_access_key")
        parts = urlsplit(url, allow_fragments=False)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("it must start with http:// or https://")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _pairs(self) -> S3Config:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise ValueError("aws_access_key_id and aws_secret_access_key belong together")
        if self.aws_session_token is not None and self.aws_access_key_id is None:
            raise ValueError("aws_session_token belongs to aws_access_key_id and aws_secret_access_key")
        if self.anonymous and (self.aws_access_key_id is not None or self.profile is not None):
            raise ValueError("anonymous requests have no keys and no profile")
        if self.sse_kms_key_id is not None and not (self.server_side_encryption or "").startswith("aws:kms"):
            raise ValueError("sse_kms_key_id belongs to server_side_encryption='aws:kms'")
        if self.cache is not None and self.layout == "log":
            raise ValueError("cache is for layout 'object'; layout 'log' has log.memory_bytes")
        return self

    @property
    def key_prefix(self) -> str:
        """The prefix of every key: empty or ending in a slash."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def signing_region(self) -> str:
        """The region that requests are signed for."""
        return self.region or "us-east-1"

    @property
    def bucket_in_host(self) -> bool:
        """Whether requests name the bucket in the host.

        AWS's certificate does not cover the host name of a bucket with dots.
        """
        if self.addressing_style == "auto":
            return not self.endpoint_url and "." not in self.bucket
        return self.addressing_style == "virtual"

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is this machine."""
        host = urlsplit(self.endpoint_url or "").hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return `s3`."""
        return ("s3",)

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return the settings in `s3://bucket/prefix?region=…&endpoint_url=…&layout=log`."""
        if not url.hostname:
            raise ConfigError("s3: the URL has no bucket (s3://bucket/prefix)")
        settings: dict[str, Any] = dict(options)
        # urlsplit lowers a host's case; bucket names made before 2018 may have capitals.
        settings["bucket"] = url.netloc.rpartition("@")[2]
        if url.path.strip("/"):
            settings["prefix"] = text_part(url.path.strip("/"))
        if url.username:
            settings["aws_access_key_id"] = text_part(url.username)
            settings["aws_secret_access_key"] = text_part(url.password)
        return settings

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
        """Return the settings in `AWS_*` and `S3_POOL_MAX_CONNECTIONS`, without credentials.

        The session reads those, so that a key and a token from different sources are never mixed.
        """
        found: dict[str, tuple[Any, str]] = {}
        for key, variables in _VARIABLES.items():
            for variable in variables:
                if environ.get(variable):
                    found.setdefault(key, (environ[variable], variable))
        return found

    @classmethod
    def from_files(
        cls, settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> dict[str, tuple[Any, str]]:
        """Return region, endpoint and certificates of the AWS profile."""
        profile = settings.get("profile")
        return dict(read_profile(profile if isinstance(profile, str) else None, environ))


_VARIABLES = {
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "ca_file": ("AWS_CA_BUNDLE",),
    "pool.max_connections": ("S3_POOL_MAX_CONNECTIONS",),
}
