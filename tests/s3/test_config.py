"""What a config takes, from where, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.backends.s3.config import S3Config
from isthmus.errors import ConfigError

pytestmark = pytest.mark.backend("s3")


def _load(environ: dict[str, str] | None = None, **given: Any) -> S3Config:
    return S3Config.load(given, environ=environ or {})


def test_a_url_says_it_all() -> None:
    """Bucket, prefix, region, endpoint, layout and pool."""
    config = _load(
        url="s3://My-Bucket/a/b%20c/?region=eu-west-1&endpoint_url=http://h:9000&layout=log&pool.max_connections=7"
    )

    assert (config.bucket, config.prefix, config.key_prefix) == ("My-Bucket", "a/b c", "a/b c/")
    assert (config.region, config.endpoint_url, config.layout) == ("eu-west-1", "http://h:9000", "log")
    assert config.pool.max_connections == 7


def test_keys_in_a_url_are_secret() -> None:
    """They are taken, and never shown."""
    config = _load(url="s3://AKIA:canary%2Fsecret@bucket/p")

    assert config.aws_secret_access_key is not None
    assert config.aws_secret_access_key.get_secret_value() == "canary/secret"
    assert "canary" not in repr(config) + str(config.explain())


def test_the_environment_fills_in_and_arguments_win() -> None:
    """Argument over URL over environment over default; other spellings are known."""
    environ = {"AWS_REGION": "eu-central-1", "S3_POOL_MAX_CONNECTIONS": "9", "AWS_ENDPOINT_URL": "http://e:1"}

    filled = _load(environ, bucket="bucket")
    won = _load(environ, bucket="bucket", region_name="us-west-2", pool={"max_connections": 3})

    assert (filled.region, filled.pool.max_connections, filled.endpoint_url) == (
        "eu-central-1",
        9,
        "http://e:1",
    )
    assert (won.region, won.pool.max_connections) == ("us-west-2", 3)
    assert filled.explain()["pool.max_connections"] == (9, "environment S3_POOL_MAX_CONNECTIONS")


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "ab"},
        {"bucket": "a/b/c"},
        {"bucket": "bucket", "prefix": "a//b"},
        {"bucket": "bucket", "prefix": "../b"},
        {"bucket": "bucket", "prefix": "x" * 601},
        {"bucket": "bucket", "endpoint_url": "ftp://h"},
        {"bucket": "bucket", "endpoint_url": "http://k:canary@h"},
        {"bucket": "bucket", "aws_access_key_id": "k"},
        {"bucket": "bucket", "aws_session_token": "canary"},
        {"bucket": "bucket", "layout": "parquet"},
        {"bucket": "bucket", "transport": "boto3"},
        {"bucket": "bucket", "layout": "log", "cache": {}},
        {"bucket": "bucket", "pool": {"max_connections": 0}},
        {"bucket": "bucket", "pool": {"size": 1}},
        {"bucket": "bucket", "regoin": "x"},
        {"url": "s3:///prefix"},
        {"url": "http://bucket"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_any_request(wrong: dict[str, Any]) -> None:
    """Each a ConfigError that repeats no secret."""
    with pytest.raises(ConfigError) as caught:
        _load(**wrong)
    assert "canary" not in str(caught.value)
