"""Credentials by the AWS chain, refreshed ahead; TLS verified; large records."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import botocore.loaders
import pytest

from isthmus._core.executor import Mutation, WriteKind
from isthmus.backends.s3.backend import DEFAULT
from isthmus.backends.s3.transport.session import UNREAD
from isthmus.errors import AccessError, ConfigError, ConnectError, IsthmusError
from tests.s3.proxy import proxied
from tests.s3.stores import client_of, create, endpoint_of, ids_of, opened, write
from tests.servers import make_certificate

pytestmark = pytest.mark.backend("s3")

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


@pytest.fixture
def aws_config(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Take keys out of the environment and give a config file with profiles instead."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    program = tmp_path / "credentials.py"
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=16)
    answer = {
        "Version": 1,
        "AccessKeyId": "isthmus-test",
        "SecretAccessKey": "isthmus-test-secret",
        "Expiration": expires.isoformat(),
    }
    asked = tmp_path / "asked"
    note = f"from pathlib import Path\nPath({str(asked)!r}).open('a').write('x')\n"
    program.write_text(f"{note}print({json.dumps(answer)!r})\n")
    config = tmp_path / "config"
    config.write_text(
        "[profile keys]\naws_access_key_id=isthmus-test\naws_secret_access_key=isthmus-test-secret\n"
        "[profile wrong]\naws_access_key_id=isthmus-test\naws_secret_access_key=canary\n"
        f"[profile process]\ncredential_process={sys.executable} {program}\nregion=us-east-1\n"
        f"[profile failing]\ncredential_process={sys.executable} -c 'raise SystemExit(\"canary\")'\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return asked


@pytest.mark.asyncio
async def test_a_profile_gives_keys(url: str, transport: str, aws_config: Path) -> None:
    """Whatever the chain finds signs the requests of both transports."""
    for profile in ("keys", "process"):
        async with opened(url, transport=transport, profile=profile) as backend:
            assert await create(backend, "a") == ["a"]
    assert aws_config.read_text()


@pytest.mark.asyncio
async def test_credentials_are_asked_again_before_they_expire(url: str, aws_config: Path) -> None:
    """The provider says when to ask again, well before botocore's own refresh is due."""
    async with opened(url, profile="process") as backend:
        sessions = (await backend._requests()).sessions
        found = await sessions.credentials()
        again = await sessions.credentials()

    ahead = found["expires_at"] - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=5) < ahead < dt.timedelta(minutes=10)
    assert found["access_key_id"] == again["access_key_id"]
    assert len(aws_config.read_text()) == 1


@pytest.mark.asyncio
async def test_bad_credentials_are_told_and_never_shown(url: str, transport: str, aws_config: Path) -> None:
    """No credentials, a missing profile, a failing provider, a wrong key: four typed errors at opening."""
    for profile, expected in (
        (None, ConfigError),
        ("missing", ConfigError),
        ("failing", AccessError),
        ("wrong", AccessError),
    ):
        with pytest.raises(expected) as caught:
            async with opened(url, transport=transport, profile=profile):
                pass
        assert "canary" not in str(caught.value)


@contextlib.asynccontextmanager
async def over_tls(
    url: str, folder: Path, *, expired: bool = False, name: str = "127.0.0.1"
) -> AsyncIterator[tuple[str, str]]:
    """Run a TLS end before the server; gives the endpoint and the authority's file."""
    made = make_certificate(folder, names=(name,), expired=expired)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    async with proxied(endpoint_of(url), tls=context) as proxy:
        yield proxy.endpoint.replace("http://", "https://"), str(made.authority)


@pytest.mark.asyncio
async def test_tls_is_verified(url: str, transport: str, tmp_path: Path) -> None:
    """A known authority is accepted; what is refused is named with its cure, and is nothing that passes."""
    (tmp_path / "good").mkdir()
    async with over_tls(url, tmp_path / "good") as (endpoint, authority):
        async with opened(url, transport=transport, endpoint_url=endpoint, ca_file=authority) as backend:
            assert await create(backend, "a") == ["a"]
        with pytest.raises(ConnectError, match=r"certificate was refused.*ca_file=") as caught:
            async with opened(url, transport=transport, endpoint_url=endpoint):
                pass
        assert not caught.value.transient
    spoiled = [(True, "127.0.0.1", "has expired"), (False, "example.org", "another host's")]
    for number, (expired, name, why) in enumerate(spoiled):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with over_tls(url, folder, expired=expired, name=name) as (endpoint, authority):
            with pytest.raises(ConnectError, match=why) as caught:
                async with opened(url, transport=transport, endpoint_url=endpoint, ca_file=authority):
                    pass
            assert not caught.value.transient
    with pytest.raises(ConnectError, match="no TLS connection"):
        async with opened(
            url, transport=transport, endpoint_url=endpoint_of(url).replace("http://", "https://")
        ):
            pass


@pytest.mark.asyncio
async def test_a_large_record_is_one_upload(url: str, layout: str, transport: str) -> None:
    """30 MB in one field come back equal."""
    text = 'aé"\\😀' * 3_000_000
    async with opened(url, layout=layout, transport=transport) as backend:
        assert await write(backend, WriteKind.CREATE, Mutation("big", {"text": text})) == ["big"]
        [record] = await backend.read(DEFAULT, ["big"])
        assert record is not None
        assert record.data["text"] == text
        assert await ids_of(backend) == ["big"]


@pytest.mark.asyncio
async def test_checksums_can_be_asked_for(url: str, transport: str) -> None:
    """An additional SHA-256 on uploads, for servers that know it."""
    async with opened(url, transport=transport, checksum="sha256") as backend:
        assert await create(backend, "a") == ["a"]
        assert await ids_of(backend) == ["a"]


@pytest.mark.asyncio
async def test_a_missing_certificate_file_and_a_senseless_region_are_settings(
    url: str, transport: str
) -> None:
    """Found when opening, and named."""
    with pytest.raises(ConfigError, match="ca_file"):
        async with opened(url, transport=transport, ca_file="/none.pem"):
            pass
    with pytest.raises(IsthmusError):
        async with opened(url, transport=transport, region="no such region"):
            pass


def test_no_rule_of_an_endpoint_reads_the_key() -> None:
    """So one evaluation does for all keys; a botocore whose rules do must be looked at."""
    rules = botocore.loaders.Loader().load_service_model("s3", "endpoint-rule-set-1")

    read = set(re.findall(r'"ref": "(\w+)"|\{(\w+)[}#]', json.dumps(rules["rules"])))

    assert {"Bucket", "Region"} <= {name for pair in read for name in pair}
    assert not UNREAD & {name for pair in read for name in pair}


@pytest.mark.asyncio
async def test_the_rules_are_evaluated_once_for_all_keys(url: str) -> None:
    """botocore would evaluate them for each key, a third of a request's time."""
    async with opened(url, transport="aioboto3") as backend:
        provider = (await client_of(backend))._ruleset_resolver._provider
        evaluated: list[str] = []
        evaluate = provider.ruleset.evaluate
        provider.ruleset.evaluate = lambda given: evaluated.append("") or evaluate(given)

        await create(backend, *(f"r{n}" for n in range(20)))

        assert len(evaluated) <= 1
