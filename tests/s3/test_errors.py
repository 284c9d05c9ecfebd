"""Every exception that a driver can raise has a place in the tree of errors."""

from __future__ import annotations

import inspect
import traceback
from typing import Any

import aiohttp
import botocore.exceptions
import obstore.exceptions
import pytest

from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.errors import (
    ConnectionFailure,
    ContendedError,
    NoSuchKeyError,
    PreconditionError,
    error_for,
)
from isthmus.backends.s3.transport.aioboto3 import KNOWN, translate_boto_error
from isthmus.backends.s3.transport.obstore import ObstoreTransport
from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    ConnectError,
    IsthmusError,
    RateLimitedError,
    UnavailableError,
    UnexpectedError,
)
from tests.s3.proxy import proxied
from tests.s3.stores import config_for, endpoint_of

pytestmark = pytest.mark.backend("s3")

PLACE = "s3 http://x/bucket"


def _classes(module: Any) -> list[type[BaseException]]:
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Exception) and not issubclass(cls, Warning)
    ]


@pytest.mark.parametrize("cls", _classes(botocore.exceptions), ids=lambda cls: cls.__name__)
def test_each_exception_of_botocore_is_known(cls: type[BaseException]) -> None:
    """A new class in botocore fails here until somebody says what it means."""
    names = {parent.__name__ for parent in cls.__mro__}

    # BotoCoreError is the root that the others have in common; ClientError carries an answer.
    assert names & KNOWN or cls in (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError), cls


@pytest.mark.parametrize("cls", _classes(aiohttp), ids=lambda cls: cls.__name__)
def test_each_exception_of_aiohttp_is_known(cls: type[BaseException]) -> None:
    """What aiohttp raises while a body is read comes out as it is."""
    names = {parent.__name__ for parent in cls.__mro__}

    assert names & KNOWN, cls


@pytest.mark.parametrize(
    ("error", "expected", "applied"),
    [
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), ConnectError, Applied.NO),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="x"), ConnectError, Applied.NO),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), UnavailableError, Applied.MAYBE),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="x"), UnavailableError, Applied.MAYBE),
        (botocore.exceptions.NoCredentialsError(), AccessError, Applied.NO),
        (botocore.exceptions.ProfileNotFound(profile="x"), ConfigError, Applied.NO),
        (aiohttp.ClientPayloadError("cut"), UnavailableError, Applied.MAYBE),
        (TimeoutError(), UnavailableError, Applied.MAYBE),
        (RuntimeError("?"), UnexpectedError, Applied.MAYBE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_became_of_a_boto_write(
    error: Exception, expected: type[IsthmusError], applied: Applied
) -> None:
    """The class says what happened, `applied` whether it may have been done."""
    answer = translate_boto_error(error, location=PLACE, writes=True)

    assert type(answer) is expected
    assert isinstance(answer, IsthmusError)
    assert answer.applied is applied


OBSTORE = {
    "BaseError": UnexpectedError,
    "GenericError": UnexpectedError,
    "NotFoundError": UnexpectedError,  # deprecated: FileNotFoundError is raised
    "InvalidPathError": UnexpectedError,
    "JoinError": UnexpectedError,
    "NotSupportedError": UnexpectedError,
    "AlreadyExistsError": PreconditionError,
    "PreconditionError": PreconditionError,
    "NotModifiedError": UnexpectedError,
    "PermissionDeniedError": AccessError,
    "UnauthenticatedError": AccessError,
    "UnknownConfigurationKeyError": UnexpectedError,
}


@pytest.mark.parametrize("cls", _classes(obstore.exceptions), ids=lambda cls: cls.__name__)
def test_each_exception_of_obstore_is_known(cls: type[Exception]) -> None:
    """By class where there are no further words."""
    transport = ObstoreTransport(None, PLACE)

    assert type(transport.translate_error(cls("words"), "GetObject")) is OBSTORE[cls.__name__]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kind: Connect,", ConnectError),
        ("kind: Timeout,", UnavailableError),
        ("kind: Request,", UnavailableError),
        ("kind: Interrupted,", UnavailableError),
        ("kind: Unknown, source: reqwest::Error { kind: Request, x", UnavailableError),
        ("status code: 503 x: <Code>SlowDown</Code>", RateLimitedError),
        ("status code: 409 x: <Code>ConditionalRequestConflict</Code>", ContendedError),
        ("status code: 404 x: <Code>NoSuchBucket</Code>", ConfigError),
        ("status code: 404 x: <Code>NoSuchKey</Code>", NoSuchKeyError),
        ("Received redirect without LOCATION", ConfigError),
    ],
)
def test_obstore_s_words_are_read(words: str, expected: type[Exception]) -> None:
    """obstore tells most failures apart in words only."""
    answer = ObstoreTransport(None, PLACE).translate_error(
        obstore.exceptions.GenericError(words), "GetObject"
    )

    assert type(answer) is expected


@pytest.mark.parametrize(
    ("code", "call", "words"),
    [
        ("AccessDenied", "GetObject", "s3:ListBucket if the object may be missing"),
        ("", "HeadObject", "it needs s3:GetObject"),
        ("AccessDenied", "PutObject", "it needs s3:PutObject"),
        ("AccessDenied", "ListObjectsV2", "it needs s3:ListBucket"),
        ("AccessDenied", "DeleteObject", "it needs s3:DeleteObject"),
        ("InvalidObjectState", "GetObject", "is archived (InvalidObjectState); restore it"),
        ("QuotaExceeded", "PutObject", "its quota used up"),
    ],
)
def test_a_refusal_says_for_which_request_and_what_it_needs(code: str, call: str, words: str) -> None:
    """By both clients, with the key."""
    obstore_error = obstore.exceptions.GenericError(f"status code: 403 x: <Code>{code}</Code>")
    boto_error = botocore.exceptions.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}, call
    )
    answers = [
        ObstoreTransport(None, PLACE).translate_error(obstore_error, call, "a/b.json"),
        translate_boto_error(boto_error, location=PLACE, call=call, key="a/b.json", writes=False),
    ]

    for answer in answers:
        assert type(answer) is AccessError
        assert words in str(answer)
        assert f"{call} of 'a/b.json'" in str(answer)


def test_what_a_credential_provider_says_is_not_told() -> None:
    """Its words may hold what nobody should read."""
    error = obstore.exceptions.UnauthenticatedError("External AWS credential provider: canary")
    answer = ObstoreTransport(None, PLACE).translate_error(error, "GetObject")

    assert type(answer) is AccessError
    assert "canary" not in str(answer)


def test_a_missing_key_is_told_from_other_404s() -> None:
    """An unknown access key is a 404 on some servers; it must not read as `not found`."""
    assert isinstance(error_for(404, "NoSuchKey", None, location=PLACE, writes=False), NoSuchKeyError)
    assert isinstance(error_for(404, "", None, location=PLACE, writes=False), NoSuchKeyError)
    for code in ("NoSuchBucket", "XAdminUserNotFound", "NoSuchUpload", "Whatever"):
        assert isinstance(error_for(404, code, None, location=PLACE, writes=False), IsthmusError)
    for broken in ConnectionFailure:
        assert isinstance(error_for(None, "", broken, location=PLACE, writes=False), UnavailableError)


@pytest.mark.asyncio
async def test_the_cause_is_the_error_of_the_client(url: str, transport: str) -> None:
    """Of a connection that was refused, and of a response; without what a server quotes of the request."""
    nowhere = S3Backend(config_for(url, endpoint_url="http://127.0.0.1:9", transport=transport))
    with pytest.raises(ConnectError) as refused:
        await nowhere.open(DEFAULT)
    await nowhere.close()
    module = {"obstore": "obstore", "aioboto3": "botocore"}[transport]
    assert type(refused.value.__cause__).__module__.startswith((module, "builtins", "aiohttp"))

    quoted = "GET\nhost:x\nx-amz-security-token:canary-1\n"
    body = (
        "<Error><Code>SignatureDoesNotMatch</Code><Message>no; X-Amz-Security-Token: canary-2</Message>"
        f"<CanonicalRequest>{quoted}</CanonicalRequest><StringToSign>canary-3</StringToSign></Error>"
    )
    head = f"HTTP/1.1 403 No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    async with proxied(endpoint_of(url)) as proxy:
        proxy.rule = lambda seen: (head + body).encode()
        settings = {"endpoint_url": proxy.endpoint, "transport": transport}
        backend = S3Backend(config_for(url, **settings))
        with pytest.raises(AccessError) as denied:
            await backend.open(DEFAULT)
        await backend.close()
    cause = denied.value.__cause__
    assert cause is not None
    shown = "".join(traceback.format_exception(denied.value)) + repr(cause) + repr(vars(cause))
    assert "SignatureDoesNotMatch" in shown
    assert "canary" not in shown
