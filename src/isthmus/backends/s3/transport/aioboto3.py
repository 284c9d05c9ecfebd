"""The transport over aioboto3: works in a forked child, and has the requests that obstore lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.errors import (
    ConnectionFailure,
    NoSuchKeyError,
    PreconditionError,
    cause_of,
    certificate_failure,
    error_for,
    not_s3,
)
from isthmus.backends.s3.transport.protocol import Blob, Listed, Listing
from isthmus.errors import AccessError, ConfigError, IsthmusError, UnexpectedError


class BotoTransport:
    """Requests through one aioboto3 client of this loop."""

    # aiohttp (from 3.10 on) sends a PUT again when a kept-alive connection breaks, whatever the
    # settings of botocore; its condition then fails because the first one succeeded.
    repeats = True

    def __init__(self, client: Any, config: S3Config, location: str) -> None:
        self._client = client
        self._location = location
        self._every = {"Bucket": config.bucket}
        if config.requester_pays:
            self._every["RequestPayer"] = "requester"
        put = {
            "ChecksumAlgorithm": "SHA256" if config.checksum == "sha256" else None,
            "ServerSideEncryption": config.server_side_encryption,
            "SSEKMSKeyId": config.sse_kms_key_id,
            "StorageClass": config.storage_class,
        }
        self._put = {**self._every, **{name: value for name, value in put.items() if value is not None}}

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object in one request."""
        condition = {"IfNoneMatch": "*"} if if_absent else {} if if_match is None else {"IfMatch": if_match}
        try:
            done = await self._client.put_object(
                Key=key,
                Body=body,
                ContentType="application/json",
                **condition,
                **self._put,
            )
            return str(done["ETag"])
        except Exception as error:  # errors of botocore, aiohttp and asyncio
            answer = self.translate_error(error, "PutObject", key, writes=True)
            if isinstance(answer, NoSuchKeyError) and if_match is not None:
                answer = PreconditionError()
            raise answer from cause_of(error)

    async def get(self, key: str) -> Blob | None:
        """Return an object; None if there is none."""
        try:
            found = await self._client.get_object(Key=key, **self._every)
            async with found["Body"] as stream:
                body = await stream.read()
            length, etag = found["ContentLength"], str(found["ETag"])
        except Exception as error:  # as above
            answer = self.translate_error(error, "GetObject", key)
            if isinstance(answer, NoSuchKeyError):
                return None
            raise answer from cause_of(error)
        if len(body) != length:
            raise error_for(None, "", ConnectionFailure.CUT, location=self._location, writes=False)
        return Blob(body, etag)

    async def get_range(self, key: str, start: int, end: int, etag: str) -> bytes:
        """Return a part of an object that has this entity tag."""
        wanted = f"bytes={start}-{end - 1}"
        try:
            found = await self._client.get_object(Key=key, Range=wanted, IfMatch=etag, **self._every)
            async with found["Body"] as stream:
                return bytes(await stream.read())
        except Exception as error:  # as above
            raise self.translate_error(error, "GetObject", key) from cause_of(error)

    async def head(self, key: str) -> str | None:
        """Return the entity tag; None if there is no object."""
        try:
            return str((await self._client.head_object(Key=key, **self._every))["ETag"])
        except Exception as error:  # as above
            answer = self.translate_error(error, "HeadObject", key)
            if isinstance(answer, NoSuchKeyError):
                return None
            raise answer from cause_of(error)

    async def listing(self, prefix: str, *, after: str = "", limit: int = 1000, rest: Any = None) -> Listing:
        """Return a page of a listing."""
        start = {"StartAfter": prefix + after} if after else {}
        try:
            page = await self._client.list_objects_v2(
                Prefix=prefix, MaxKeys=min(limit, 1000), **start, **self._every
            )
            more = _has_more(page)
        except Exception as error:  # as above
            raise self.translate_error(error, "ListObjectsV2") from cause_of(error)
        cut = len(prefix)
        found = [
            Listed(o["Key"][cut:], o["ETag"], o["Size"], o["LastModified"]) for o in page.get("Contents", ())
        ]
        return Listing(found, more=more)

    async def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly under a prefix."""
        names: list[str] = []
        token: dict[str, str] = {}
        while True:
            try:
                page = await self._client.list_objects_v2(
                    Prefix=prefix, Delimiter="/", **token, **self._every
                )
                more = _has_more(page)
            except Exception as error:  # as above
                raise self.translate_error(error, "ListObjectsV2") from cause_of(error)
            names += [found["Prefix"][len(prefix) : -1] for found in page.get("CommonPrefixes", ())]
            if not more:
                return names
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete_many(self, keys: Sequence[str]) -> dict[str, IsthmusError]:
        """Delete objects in one bulk request and return the error of each that failed."""
        try:
            done = await self._client.delete_objects(
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}, **self._every
            )
        except Exception as error:  # as above
            raise self.translate_error(error, "DeleteObjects", writes=True) from cause_of(error)
        failed: dict[str, IsthmusError] = {}
        for one in done.get("Errors", ()):
            answer = error_for(
                None,
                one.get("Code", ""),
                None,
                location=self._location,
                writes=True,
                call="DeleteObject",
                key=one.get("Key"),
                message=one.get("Message", ""),
            )
            if isinstance(answer, IsthmusError):
                failed[one["Key"]] = answer
            elif one.get("Code") != "NoSuchKey":
                failed[one["Key"]] = UnexpectedError(f"{self._location}: not deleted ({one.get('Code')})")
        return failed

    async def delete_if(self, key: str, etag: str) -> None:
        """Delete an object with this entity tag; raises `PreconditionError` or `NoSuchKeyError`."""
        try:
            await self._client.delete_object(Key=key, IfMatch=etag, **self._every)
        except Exception as error:  # as above
            raise self.translate_error(error, "DeleteObject", key, writes=True) from cause_of(error)

    async def create_bucket(self, region: str) -> None:
        """Create the bucket unless it exists."""
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            await self._client.create_bucket(Bucket=self._every["Bucket"], **where)
        except Exception as error:  # as above
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            if code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise self.translate_error(error, "CreateBucket", writes=True) from cause_of(error)

    def translate_error(
        self, error: Exception, call: str, key: str | None = None, *, writes: bool = False
    ) -> Exception:
        """Return the error of isthmus for an error of aioboto3."""
        return translate_boto_error(error, location=self._location, call=call, key=key, writes=writes)


def _has_more(page: dict[str, Any]) -> bool:
    """Return whether a listing goes on; raises `KeyError` for other XML, which botocore takes for empty."""
    known = "Name" in page or "Contents" in page
    return bool(page.get("IsTruncated") if known else page["IsTruncated"])


def translate_boto_error(
    error: Exception, *, location: str, writes: bool, call: str = "", key: str | None = None
) -> Exception:
    """Return the error of isthmus for an error of botocore, aiobotocore or aiohttp."""
    if isinstance(error, IsthmusError | asyncio.CancelledError):
        return error
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        details = response.get("Error", {})
        metadata = response.get("ResponseMetadata", {})
        # The response to a HEAD has no body: botocore uses the status as its code.
        code = details.get("Code", "")
        code = "" if code.isdigit() else code
        return error_for(
            metadata.get("HTTPStatusCode"),
            code,
            None,
            location=location,
            writes=writes,
            call=call,
            key=key,
            message=details.get("Message", "")[:200],
            headers=metadata.get("HTTPHeaders", {}),
        )
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, KeyError):  # botocore leaves out what a response lacks
        return not_s3(location, call, f"answered without {error.args[0]}")
    if "ResponseParserError" in names:  # of a success only: it reads errors of any form
        return not_s3(location, call, "did not answer in XML")
    if names & _TLS:
        _, verified, why = str(error).partition("CERTIFICATE_VERIFY_FAILED")
        broken = certificate_failure(why) if verified else ConnectionFailure.NO_TLS
        return error_for(None, "", broken, location=location, writes=writes)
    for broken, known in _BROKEN:
        if names & known:
            return error_for(None, "", broken, location=location, writes=writes)
    if names & _CREDENTIALS:
        return AccessError(f"{location}: no valid credentials were found ({type(error).__name__})")
    if names & _SETTINGS:
        return ConfigError(f"{location}: {type(error).__name__}: {str(error)[:200]}")
    return error_for(
        None,
        "",
        None,
        location=location,
        writes=writes,
        message=f"{type(error).__name__}: {str(error)[:200]}",
    )


# By name, so that botocore need not be imported. The order matters: a connect timeout is first of all
# a connection that was not made.
_TLS = frozenset({"SSLError", "ClientSSLError"})
_CONNECT = frozenset({
    "EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "ClientConnectorError",
    "ConnectionRefusedError",
})  # fmt: skip
_CUT = frozenset({
    "ConnectionError", "HTTPClientError", "ClientError", "ResponseStreamingError", "IncompleteReadError",
    "ResponseParserError", "ChecksumError", "FlexibleChecksumError", "OSError",
})  # fmt: skip
_BROKEN = (
    (ConnectionFailure.CONNECT, _CONNECT),
    (ConnectionFailure.TIMEOUT, frozenset({"ReadTimeoutError", "ServerTimeoutError", "TimeoutError"})),
    (ConnectionFailure.CUT, _CUT),
)
_CREDENTIALS = frozenset({
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "NoAuthTokenError",
    "TokenRetrievalError", "SSOError", "RefreshWithMFAUnsupportedError", "MetadataRetrievalError",
    "InvalidConfigError",
})  # fmt: skip
_SETTINGS = frozenset({
    "BaseEndpointResolverError", "EndpointVariantError", "InvalidChecksumConfigError",
    "InvalidDNSNameError", "InvalidDefaultsMode", "InvalidEndpointConfigurationError",
    "InvalidEndpointDiscoveryConfigurationError", "InvalidHostLabelError", "InvalidIMDSEndpointError",
    "InvalidIMDSEndpointModeError", "InvalidMaxRetryAttemptsError", "InvalidProxiesConfigError",
    "InvalidRetryConfigurationError", "InvalidRetryModeError",
    "InvalidS3UsEast1RegionalEndpointConfigError", "InvalidSTSRegionalEndpointsConfigError",
    "MissingDependencyException", "ServiceNotInRegionError", "UnknownCredentialError",
    "UnknownFIPSEndpointError", "UnknownRegionError", "UnknownSignatureVersionError",
    "UnsupportedOutpostResourceError", "UnsupportedSignatureVersionError", "ProfileNotFound",
    "NoRegionError", "InvalidRegionError", "InvalidS3AddressingStyleError", "ConfigParseError",
    "ConfigNotFound", "ParamValidationError", "EndpointResolutionError", "EndpointProviderError",
    "UnsupportedS3ConfigurationError", "UnsupportedS3AccesspointConfigurationError",
    "UnsupportedS3ArnError", "UnsupportedS3ControlArnError", "UnsupportedS3ControlConfigurationError",
    "ValidationError", "ValueError",
})  # fmt: skip
# Of paging, waiting, stubbing and damaged installations: no request here raises them, and if one did
# it would be an UnexpectedError. Listed one by one, so that a test reports new classes.
_OTHER = frozenset({
    "ApiVersionNotFoundError", "AwsChunkedWrapperError", "CapacityNotAvailableError", "DataNotFoundError",
    "EofStream", "InvalidExpressionError", "MD5UnavailableError", "MissingParametersError",
    "MissingServiceIdError", "OperationNotPageableError", "PaginationError", "StubAssertionError",
    "StubResponseError", "UnStubbedResponseError", "UndefinedModelAttributeError",
    "UnknownClientMethodError", "UnknownServiceError", "UnknownServiceStyle", "UnseekableStreamError",
    "UnsupportedServiceProtocolsError", "WSMessageTypeError", "WaiterConfigError", "WaiterError",
    "WebSocketError",
})  # fmt: skip
KNOWN = _TLS.union(*(names for _, names in _BROKEN), _CREDENTIALS, _SETTINGS, _OTHER)
