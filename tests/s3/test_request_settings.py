"""Settings seen in the requests of both transports: signature, address, encryption, payer, class."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest

from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.transport.requests import Requests
from isthmus.backends.s3.transport.session import find_keys
from isthmus.errors import AccessError, ConfigError
from tests.s3.proxy import Seen, is_trial, proxied
from tests.s3.stores import TRANSPORTS, create, endpoint_of, ids_of, opened

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("s3")]


def _headers(seen: Seen) -> dict[str, str]:
    lines = seen.head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs if name}


def _answer(seen: Seen) -> bytes:
    """Accept every write, and answer a listing with nothing."""
    body = b"" if seen.method in ("PUT", "HEAD") else b"<ListBucketResult><Name>b</Name></ListBucketResult>"
    head = f'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}'
    return f"{head}\r\n\r\n".encode() + body


async def _requests(url: str, transport: str, settings: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Return the headers of a PUT, a GET and a listing as they leave a transport."""
    async with proxied(endpoint_of(url)) as proxy:
        proxy.rule = _answer
        config = S3Config.load(
            {"url": url, "endpoint_url": proxy.endpoint, "transport": transport, **settings}, environ={}
        )
        pool = await Requests.open(config, find_keys(config, {}))
        try:
            requests = pool._transport
            assert requests is not None
            await requests.put("a", b"{}")
            await requests.get("a")
            await requests.listing("p/")
        finally:
            await pool.close()
        put, get, listing = (one for one in proxy.seen if not is_trial(one))
        seen = {"put": put, "get": get, "list": listing}
    return {name: _headers(one) for name, one in seen.items()}


KMS = {"server_side_encryption": "aws:kms", "sse_kms_key_id": "arn:aws:kms:eu-west-1:1:key/k"}


@pytest.mark.parametrize(
    ("settings", "of_put", "of_all"),
    [
        (
            KMS,
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": KMS["sse_kms_key_id"],
            },
            {},
        ),
        ({"server_side_encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}, {}),
        ({"storage_class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}, {}),
        ({"requester_pays": True}, {}, {"x-amz-request-payer": "requester"}),
    ],
    ids=["kms", "aes256", "class", "payer"],
)
async def test_a_setting_is_a_signed_header(
    url: str, transport: str, settings: dict[str, object], of_put: dict[str, str], of_all: dict[str, str]
) -> None:
    """Writes carry encryption and class, all requests the payer; S3 refuses such a header unsigned."""
    seen = await _requests(url, transport, settings)

    for name, headers in seen.items():
        expected = {**of_all, **(of_put if name == "put" else {})}
        own = {key: value for key, value in headers.items() if key in {*of_put, *of_all}}
        assert own == expected, name
        signed = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        assert set(expected) <= set(signed), name


async def test_anonymous_requests_have_no_signature(
    url: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No credentials are looked for: those of the environment stay there."""
    async with proxied(endpoint_of(url)) as proxy:
        proxy.rule = _answer
        config = S3Config.load(
            {
                "bucket": "isthmus-test",
                "endpoint_url": proxy.endpoint,
                "transport": transport,
                "anonymous": True,
            },
            environ={},
        )
        environ = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "c4n4ry"}
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        pool = await Requests.open(config, find_keys(config, environ))
        try:
            assert pool._transport is not None
            await pool._transport.get("a")
            await pool._transport.listing("p/")
        finally:
            await pool.close()

        assert len([seen for seen in proxy.seen if not is_trial(seen)]) == 2
        assert not any({"authorization", "x-amz-security-token"} & set(_headers(seen)) for seen in proxy.seen)


async def test_a_server_that_wants_a_signature_refuses_anonymous_requests(url: str, transport: str) -> None:
    """As an access error, and not as a missing record."""
    bare = "s3://isthmus-test/p?" + url.partition("?")[2]
    with pytest.raises(AccessError):
        async with opened(bare, transport=transport, anonymous=True) as backend:
            await ids_of(backend)


@pytest.mark.parametrize(
    ("settings", "host", "path"),
    [
        ({"bucket": "bucket-1"}, "bucket-1.s3.eu-west-1.amazonaws.com", "/p/a"),
        ({"bucket": "bucket.1"}, "s3.eu-west-1.amazonaws.com", "/bucket.1/p/a"),
        ({"bucket": "bucket-1", "addressing_style": "path"}, "s3.eu-west-1.amazonaws.com", "/bucket-1/p/a"),
        ({"bucket": "bucket-1", "endpoint_url": "https://h.example"}, "h.example", "/bucket-1/p/a"),
        (
            {"bucket": "bucket-1", "endpoint_url": "https://h.example", "addressing_style": "virtual"},
            "bucket-1.h.example",
            "/p/a",
        ),
    ],
    ids=["aws", "aws with dots", "aws by path", "server", "server by host"],
)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_bucket_is_in_the_host_or_in_the_path(
    settings: dict[str, object], host: str, path: str, transport: str
) -> None:
    """Alike with both transports, in the URL that they sign."""
    config = S3Config.load(
        {"url": f"s3://k:s@{settings['bucket']}", "region": "eu-west-1", "transport": transport, **settings},
        environ={},
    )
    pool = await Requests.open(config, find_keys(config, {}))
    try:
        if transport == "obstore":
            store = pool._transport._store  # type: ignore[union-attr]
            signed = await obstore.sign_async(store, "GET", "p/a", dt.timedelta(seconds=9))
        else:
            client = await pool.client()
            params = {"Bucket": config.bucket, "Key": "p/a"}
            signed = await client.generate_presigned_url("get_object", Params=params)
    finally:
        await pool.close()

    assert (urlsplit(signed).netloc.partition(":")[0], urlsplit(signed).path) == (host, path)


async def test_records_live_with_the_settings_of_a_real_server(url: str, transport: str) -> None:
    """The server takes the headers, and what was written is read again."""
    async with opened(url, transport=transport, requester_pays=True, storage_class="STANDARD") as backend:
        assert await create(backend, "a") == ["a"]
        assert await ids_of(backend) == ["a"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"anonymous": True, "profile": "p"}, "no profile"),
        ({"anonymous": True, "aws_access_key_id": "k", "aws_secret_access_key": "s"}, "no keys"),
        ({"sse_kms_key_id": "k"}, "server_side_encryption"),
        ({"server_side_encryption": "AES256", "sse_kms_key_id": "k"}, "server_side_encryption"),
    ],
    ids=str,
)
async def test_settings_that_exclude_each_other_are_refused(settings: dict[str, object], says: str) -> None:
    """Before any request."""
    with pytest.raises(ConfigError, match=says):
        S3Config.load({"bucket": "bucket-1", **settings}, environ={})


async def test_each_line_of_the_page_of_servers_is_accepted() -> None:
    """Its table has one URL for each; keys are those of the URL, and shown nowhere."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "hosted-s3.md"
    rows = [line.split("|") for line in page.read_text().splitlines() if "| `s3://" in line]
    urls = {cells[1].strip(): cells[2].strip(" `") for cells in rows}

    assert len(urls) == 9
    for name, url in urls.items():
        config = S3Config.load({"url": url}, environ={})
        assert config.anonymous == ("public" in name), name
        if config.aws_secret_access_key is not None:
            assert config.aws_secret_access_key.get_secret_value() == "secret", name
            assert "'secret'" not in repr(config), name
        pool = await Requests.open(
            config, find_keys(config, {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"})
        )
        await pool.close()
