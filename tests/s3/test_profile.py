"""Settings of an AWS profile: found where AWS's tools find them, and the same with both transports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.transport.session import find_keys
from isthmus.errors import ConfigError
from tests.s3.proxy import is_trial, proxied
from tests.s3.stores import config_for, create, endpoint_of, ids_of

pytestmark = pytest.mark.backend("s3")

CONFIG = """
[default]
region = eu-north-1
endpoint_url = http://default:1
[profile lab]
region = eu-west-3
ca_bundle = /lab.pem
endpoint_url = http://lab:2
services = special
[profile plain]
region = eu-south-1
ignore_configured_endpoint_urls = true
endpoint_url = http://plain:3
[profile fips]
use_fips_endpoint = true
[services "special"]
dynamodb =
  endpoint_url = http://wrong:4
s3 =
  addressing_style = path
  endpoint_url = http://special:5
"""
CREDENTIALS = """
[lab]
aws_access_key_id = k
aws_secret_access_key = canary
region = eu-west-4
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Return an environment that names the files above."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(CONFIG)
    (tmp_path / ".aws/credentials").write_text(CREDENTIALS)
    return {"HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("environ", "given", "expected"),
    [
        ({}, {}, ("eu-north-1", "http://default:1", None, "profile default")),
        ({}, {"profile": "lab"}, ("eu-west-4", "http://special:5", "/lab.pem", "profile lab")),
        ({"AWS_PROFILE": "lab"}, {}, ("eu-west-4", "http://special:5", "/lab.pem", "profile lab")),
        ({}, {"profile": "plain"}, ("eu-south-1", None, None, "profile plain")),
        (
            {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            {},
            ("eu-north-1", None, None, "profile default"),
        ),
        (
            {"AWS_REGION": "r-1", "AWS_CA_BUNDLE": "/e.pem"},
            {"profile": "lab"},
            ("r-1", "http://special:5", "/e.pem", "environment AWS_REGION"),
        ),
        (
            {"AWS_ENDPOINT_URL": "http://e:6"},
            {"profile": "lab", "region": "r-2"},
            ("r-2", "http://e:6", "/lab.pem", "argument"),
        ),
    ],
    ids=str,
)
def test_a_profile_fills_in_what_no_other_source_has(
    files: dict[str, str], environ: dict[str, str], given: dict[str, Any], expected: tuple[str | None, ...]
) -> None:
    """Region, endpoint and certificates, in botocore's order; `explain` shows the profile's name."""
    config = S3Config.load({"bucket": "bucket", **given}, environ={**files, **environ})

    assert (config.region, config.endpoint_url, config.ca_file, config.explain()["region"][1]) == expected
    assert "canary" not in repr(config) + str(config.explain())


def test_files_that_are_not_there_or_cannot_be_read(files: dict[str, str], tmp_path: Path) -> None:
    """None is no error, a broken one is; a FIPS endpoint is never left out in silence."""
    assert S3Config.load({"bucket": "bucket"}, environ={"HOME": "/nowhere"}).region is None
    (tmp_path / "broken").write_text("canary")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        S3Config.load({"bucket": "bucket"}, environ={"AWS_CONFIG_FILE": str(tmp_path / "broken")})
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="use_fips_endpoint"):
        S3Config.load({"bucket": "bucket", "profile": "fips"}, environ=files)
    with pytest.raises(ConfigError, match="use_fips_endpoint"):
        S3Config.load({"bucket": "bucket"}, environ={"AWS_USE_FIPS_ENDPOINT": "true"})


@pytest.mark.parametrize("credentials", ["in the profile", "in the config"])
@pytest.mark.asyncio
async def test_both_transports_reach_the_endpoint_of_the_profile(
    url: str,
    transport: str,
    layout: str,
    credentials: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Signed for its region: records go where the doctor looks."""
    found = find_keys(config_for(url))
    assert found is not None
    keys = {"aws_access_key_id": found.access, "aws_secret_access_key": found.secret}
    async with proxied(endpoint_of(url)) as proxy:
        lines = ["[profile lab]", "region = us-east-1", f"endpoint_url = {proxy.endpoint}"]
        given: dict[str, Any] = {}
        if credentials == "in the config":
            given = dict(keys)
        else:
            lines += [f"{key} = {value}" for key, value in keys.items()]
        (tmp_path / "config").write_text("\n".join(lines))
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "lab")
        settings = {
            "bucket": config_for(url).bucket,
            "prefix": f"t/profile-{transport}-{layout}-{bool(given)}",
        }
        backend = S3Backend(S3Config.load({**settings, **given, "layout": layout, "transport": transport}))
        try:
            await create(backend, "a")
            assert await ids_of(backend) == ["a"]
            assert await backend.collections() == [DEFAULT]
            own = len(proxy.seen)
            listing = await (await backend.native()).list_objects_v2(Bucket=settings["bucket"], MaxKeys=1)
        finally:
            await backend.close()

    assert own > 0
    assert len(proxy.seen) == own + 1
    assert listing["KeyCount"] == 1
    signed = [seen for seen in proxy.seen if not is_trial(seen)]
    assert all(b"/us-east-1/s3/aws4_request" in seen.head for seen in signed)
