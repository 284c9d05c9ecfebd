"""Checks of an S3 bucket and of its server."""

from __future__ import annotations

import datetime as dt
import email.utils
import importlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, cast

from isthmus.backends.s3.keys import PROBE
from isthmus.cli._doctor.finding import Finding, check_clock, cleartext_problem, ok, problem, warning

if TYPE_CHECKING:
    from isthmus import AsyncDatabase
    from isthmus.backends.s3.config import S3Config

# S3 refuses requests whose time is off by 15 minutes.
_MAX_SKEW = 60.0
_NOT_IMPLEMENTED = 501
# S3-compatible servers have codes of their own; their messages name the access key.
_INVALID_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


def check_config(config: S3Config) -> Iterator[Finding]:
    """Check the settings, without connecting."""
    endpoint = config.endpoint_url
    if endpoint is None or endpoint.startswith("https"):
        yield ok("tls", "https")
    elif config.loopback:
        yield ok("tls", "loopback only")
    else:
        yield cleartext_problem(endpoint, "use an https:// endpoint_url")


async def check_server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check the bucket, the clock, and that conditional writes work."""
    errors = importlib.import_module("botocore.exceptions")

    config = cast("S3Config", db.config)
    client = await db._backend.native()
    try:
        response = await client.list_objects_v2(Bucket=config.bucket, MaxKeys=1, Prefix=config.key_prefix)
    except errors.ClientError as error:
        yield _explain_refusal(config.bucket, error.response["Error"]["Code"], str(error))
        return
    except errors.BotoCoreError as error:
        yield problem(
            "connection", str(error), "check endpoint_url, that the server runs, and the credentials"
        )
        return
    yield ok("connection", f"bucket {config.bucket!r} can be listed")
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date:
        server_time = email.utils.parsedate_to_datetime(date).astimezone(dt.UTC).timestamp()
        yield check_clock(server_time - time.time(), _MAX_SKEW)
    key = f"{config.key_prefix}{PROBE}doctor-{uuid.uuid4()}"
    async for finding in _check_conditional_writes(client, config.bucket, key, errors.ClientError):
        yield finding


def _explain_refusal(bucket: str, code: str, message: str) -> Finding:
    match code:
        case "NoSuchBucket" | "404":
            seen, fix = f"there is no bucket {bucket!r}", "create it, or set create_bucket=true"
        case "AccessDenied" | "403" | "Forbidden":
            seen = f"these keys may not list bucket {bucket!r}"
            fix = "allow s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject in the policy"
        case "PermanentRedirect" | "AuthorizationHeaderMalformed" | "301":
            seen, fix = f"bucket {bucket!r} is in another region ({code})", "set region="
        case _ if code in _INVALID_KEYS or "access key" in message.lower():
            seen = f"the keys were refused ({code})"
            fix = "check aws_access_key_id and aws_secret_access_key, and the clock of this machine"
        case _:
            seen, fix = message, "see the server's log"
    return problem("connection", seen, fix)


async def _check_conditional_writes(
    client: Any, bucket: str, key: str, refusal: Any
) -> AsyncIterator[Finding]:
    """Write an object that is no record, try to create it, and delete it."""
    request = {"Bucket": bucket, "Key": key, "Body": b""}
    try:
        await client.put_object(**request)
    except refusal as error:
        yield problem(
            "privileges",
            f"an object cannot be written: {error.response['Error']['Code']}",
            "allow s3:PutObject and s3:DeleteObject in the policy",
        )
        return
    try:
        await client.put_object(**request, IfNoneMatch="*")
    except refusal as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == _NOT_IMPLEMENTED:
            yield warning(
                "conditional writes",
                "the server has no If-None-Match (501): create() and if_version are refused",
                "upgrade the server, or write by upsert() and delete() only",
            )
            await client.delete_object(Bucket=bucket, Key=key)
            return
        yield ok("conditional writes", "If-None-Match works")
    else:
        yield warning(
            "conditional writes",
            "the server ignores If-None-Match: create() and if_version have no effect",
            "upgrade the server, or write from one process only",
        )
    await client.delete_object(Bucket=bucket, Key=key)
