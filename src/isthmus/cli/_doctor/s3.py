"""Checks of an S3 bucket and of the server behind it."""

from __future__ import annotations

import datetime as dt
import email.utils
import importlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from isthmus.cli._doctor.finding import Finding, ok, warning, wrong

if TYPE_CHECKING:
    from isthmus import AsyncDatabase

# S3 itself refuses requests that are 15 minutes off.
_SKEW = 60.0


def config(config: Any) -> Iterator[Finding]:
    """Check what can be seen without a connection."""
    endpoint = config.endpoint_url
    if endpoint is not None and endpoint.startswith("http://") and not config.loopback:
        yield wrong(
            "tls", f"{endpoint}: data goes readable for all on the way", "use an https:// endpoint_url"
        )
    else:
        yield ok(
            "tls", "https" if endpoint is None or endpoint.startswith("https") else "not off this machine"
        )


async def server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check bucket, clock, and that conditional writes hold."""
    errors = importlib.import_module("botocore.exceptions")

    config: Any = db.config
    client = await db._backend.native()
    try:
        answer = await client.list_objects_v2(Bucket=config.bucket, MaxKeys=1, Prefix=config.place)
    except errors.ClientError as error:
        yield _refused(config, error.response["Error"]["Code"], str(error))
        return
    except errors.BotoCoreError as error:
        yield wrong("connection", str(error), "check endpoint_url, that the server runs, and the credentials")
        return
    yield ok("connection", f"bucket {config.bucket!r} can be listed")
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date:
        skew = email.utils.parsedate_to_datetime(date).astimezone(dt.UTC).timestamp() - time.time()
        if abs(skew) > _SKEW:
            yield wrong(
                "clock",
                f"the server's clock differs by {skew:+.0f} s",
                "let this machine follow a time server: S3 refuses requests that are 15 minutes off",
            )
        else:
            yield ok("clock", f"{skew:+.0f} s")
    async for finding in _conditional(client, config, errors.ClientError):
        yield finding


def _refused(config: Any, code: str, text: str) -> Finding:
    match code:
        case "NoSuchBucket" | "404":
            return wrong(
                "connection", f"there is no bucket {config.bucket!r}", "make it, or set create_bucket=true"
            )
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken":
            return wrong(
                "connection",
                f"the keys were refused ({code})",
                "check aws_access_key_id and aws_secret_access_key, and the clock of this machine",
            )
        case "AccessDenied" | "403" | "Forbidden":
            return wrong(
                "connection",
                f"these keys may not list bucket {config.bucket!r}",
                "allow s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject in the policy",
            )
        case "PermanentRedirect" | "AuthorizationHeaderMalformed" | "301":
            return wrong(
                "connection", f"bucket {config.bucket!r} is in another region ({code})", "set region="
            )
    if "access key" in text.lower():
        # Other servers than AWS have words of their own for it.
        return wrong(
            "connection",
            f"the keys were refused ({code})",
            "check aws_access_key_id and aws_secret_access_key",
        )
    return wrong("connection", text, "look into the server's log")


async def _conditional(client: Any, config: Any, refused: Any) -> AsyncIterator[Finding]:
    """Write, refuse to write again, and delete one object beside the records."""
    key = f"isthmus-doctor-{uuid.uuid4()}"
    try:
        await client.put_object(Bucket=config.bucket, Key=key, Body=b"", IfNoneMatch="*")
    except refused as error:
        yield wrong(
            "privileges",
            f"an object cannot be written: {error.response['Error']['Code']}",
            "allow s3:PutObject and s3:DeleteObject in the policy",
        )
        return
    try:
        await client.put_object(Bucket=config.bucket, Key=key, Body=b"", IfNoneMatch="*")
    except refused:
        yield ok("conditional writes", "If-None-Match holds")
    else:
        yield warning(
            "conditional writes",
            "the server ignores If-None-Match: create() and if_version cannot hold",
            "upgrade the server, or let one process write",
        )
    await client.delete_object(Bucket=config.bucket, Key=key)
