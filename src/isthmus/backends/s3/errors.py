"""Maps failures of S3 and its clients to errors of isthmus.

Both transports reduce a failure to three facts (status, error code, failure of the connection), so
that the same failure gives the same error. Messages of clients are not passed on: that of a
signature error quotes the headers, and a session token is one of them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

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


class ConnectionFailure(enum.Enum):
    """Why there is no response."""

    CONNECT = "no connection could be made"
    TIMEOUT = "the response timed out"
    CUT = "the connection ended before the response was complete"
    UNTRUSTED = (
        "the server's certificate was refused: its issuer is unknown here;"
        " if it is the right server, pass the issuer's certificate as ca_file="
    )
    EXPIRED = (
        "the server's certificate was refused: it has expired or is not valid yet by this machine's clock;"
        " renew it, or set the clock"
    )
    MISNAMED = (
        "the server's certificate was refused: it is another host's;"
        " name the server in endpoint_url= as its certificate does"
    )
    REFUSED = "the server's certificate was refused: it is damaged or not valid for a server; replace it"
    NO_TLS = "no TLS connection could be made; for a server without TLS, use http:// in endpoint_url="

    @property
    def before_sending(self) -> bool:
        """Whether the failure came before a request could be sent."""
        return self not in {ConnectionFailure.TIMEOUT, ConnectionFailure.CUT}


def certificate_failure(message: str) -> ConnectionFailure:
    """Return why a certificate was refused, by the message of OpenSSL or the error name of rustls."""
    for why, known in _REFUSALS:
        if any(word in message for word in known):
            return why
    return ConnectionFailure.REFUSED


_REFUSALS = (
    (ConnectionFailure.UNTRUSTED, ("UnknownIssuer", "issuer certificate", "self-signed", "self signed")),
    (ConnectionFailure.EXPIRED, ("Expired", "NotValidYet", "has expired", "not yet valid")),
    (ConnectionFailure.MISNAMED, ("NotValidForName", "mismatch", "not valid for")),
)


_quoted = re.compile(r"<(CanonicalRequest|StringToSign)(\w*)>.*?</\1\2>", re.DOTALL)
_header = re.compile(r"(?i)(x-amz-security-token|authorization)(\W{1,5})[^\s<,;\"']+")


def cause_of(error: Exception) -> Exception:
    """Return a client's exception as the `__cause__` of ours: without what it quotes of a signed request."""
    text = _header.sub(r"\1\2***", _quoted.sub("", str(error)))
    if text != str(error):
        error.args = (text, *error.args[1:])
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        details = response.get("Error", {})
        for name in [name for name in details if name.startswith(("CanonicalRequest", "StringToSign"))]:
            del details[name]
        if "Message" in details:
            details["Message"] = _header.sub(r"\1\2***", details["Message"])
    return error


class NoSuchKeyError(Exception):
    """There is no object with this key. Never leaves the backend."""


class PreconditionError(Exception):
    """The condition of a conditional write does not hold. Never leaves the backend.

    `ambiguous`: an earlier attempt of the same write may have succeeded and been overwritten since.
    """

    def __init__(self, *, ambiguous: bool = False) -> None:
        super().__init__("precondition failed")
        self.ambiguous = ambiguous


class ContendedError(Exception):
    """Another conditional write to the key is in progress (409), so try again. Never leaves the backend."""


_ACCESS = {
    "AccessDenied": "access is denied",
    "AccountProblem": "the account has a problem",
    "AllAccessDisabled": "all access is disabled",
    "AuthorizationQueryParametersError": "the signature is refused",
    "CredentialsNotSupported": "these credentials are not supported",
    "ExpiredToken": "the session token has expired",
    "Forbidden": "access is denied",
    "InvalidAccessKeyId": "the access key is unknown",
    "InvalidSecurity": "the credentials are not valid",
    "InvalidToken": "the session token is not valid",
    "KMS.AccessDeniedException": "access to the KMS key is denied",
    "NotSignedUp": "the account has no S3",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "TokenRefreshRequired": "the session token must be refreshed",
    "UnauthorizedAccess": "access is denied",
    "XAdminUserNotFound": "the access key is unknown",
}
_ARCHIVED = {"InvalidObjectState", "ObjectArchived"}
_FULL = {"QuotaExceeded", "QuotaExceededException", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
_PERMISSIONS = {
    "GetObject": "s3:GetObject, and s3:ListBucket if the object may be missing",
    "HeadObject": "s3:GetObject, and s3:ListBucket if the object may be missing",
    "PutObject": "s3:PutObject, and kms:GenerateDataKey where a KMS key encrypts",
    "ListObjectsV2": "s3:ListBucket on the bucket",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "CreateBucket": "s3:CreateBucket",
}
_SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
_LIMITED = {
    "BandwidthLimitExceeded",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# The scheme and the host of an address, without a login and a port.
_target = re.compile(r"(https?://)(?:[^/?#@]*@)?(\[[0-9a-fA-F:.]+\]|[^/?#:@\[\]]+)").match
_PASSING = {
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
}


def error_for(
    status: int | None,
    code: str,
    broken: ConnectionFailure | None,
    *,
    location: str,
    writes: bool,
    call: str = "",
    key: str | None = None,
    message: str = "",
    headers: Mapping[str, str] | None = None,
) -> Exception:
    """Return the error of a failed request; `location` names endpoint and bucket, `code` is "" if unknown.

    `call` is S3's name of the request, `key` its object, `headers` those of a response that may redirect.
    A write without a response, or with a server error, may have been applied.
    """
    if broken is not None:
        if broken.before_sending:
            # Of these, only a refused connection may succeed the next time.
            return ConnectError(f"{location}: {broken.value}", transient=broken is ConnectionFailure.CONNECT)
        return UnavailableError(f"{location}: {broken.value}", applied=_if_written(writes))
    if code == "NoSuchBucket":
        return ConfigError(f"{location}: the bucket does not exist")
    if code in _SKEWED:
        return AccessError(f"{location}: this machine's clock differs too much from the server's ({code})")
    place = f"{location}: {_request(call, key)}"
    if code in _ARCHIVED:
        return AccessError(f"{place}the object is archived ({code}); restore it first")
    if code in _FULL:
        return AccessError(f"{place}the store is full, or its quota used up ({code})")
    if code in _ACCESS:
        return AccessError(f"{place}{_ACCESS[code]} ({code}){_need(call, code)}")
    if code in _REGION or status in REDIRECTS:
        return redirect_error(location, code or status, headers or {})
    if code in _LIMITED or status == 429:
        return RateLimitedError(f"{location}: the server is throttling requests ({code or status})")
    if status == 412 or code == "PreconditionFailed":
        return PreconditionError()
    if code == "ConditionalRequestConflict":
        return ContendedError()
    if status == 404 and code in {"", "404", "NoSuchKey", "NotFound"}:
        return NoSuchKeyError() if _is_missing_key(code, call) else _missing_service(location, call)
    if status in {401, 403}:
        return AccessError(f"{place}access is denied ({code or status}){_need(call, code)}")
    return _error_by_status(status, code, location=location, writes=writes, message=message)


def redirect_error(location: str, what: int | str | None, headers: Mapping[str, str]) -> ConfigError:
    """Return the error of a redirect, which names the region or the host, never the rest of the address.

    `what` is its status or code; the names of `headers` are in lower case.
    """
    region, target = headers.get("x-amz-bucket-region"), _target(headers.get("location", ""))
    if region:
        where = f"the bucket is in the region {region}: set region= and, if it is given, endpoint_url="
    elif target is not None:
        where = f"the server redirects to {target[1]}{target[2]}, which is not followed"
    else:
        where = "the bucket is in another region, or at another endpoint"
    return ConfigError(f"{location}: {where} ({what})")


def not_s3(location: str, call: str, what: str) -> ConfigError:
    """Return the error of a response that is not S3's."""
    return ConfigError(f"{location}: {_request(call, None)}the server {what}; is endpoint_url= an S3 server?")


def _is_missing_key(code: str, call: str) -> bool:
    """Return whether a 404 can be about an object's key, not about the bucket or the whole service.

    S3 names the code in each response with a body; that to a HEAD has none. A request that needs no
    object gets a 404 only if its bucket is missing, or from another service.
    """
    if call in {"", "HeadObject"}:
        return True
    return code == "NoSuchKey" and call in {"GetObject", "PutObject", "DeleteObject"}


def _missing_service(location: str, call: str) -> ConfigError:
    return ConfigError(
        f"{location}: {_request(call, None)}the server answered 404 without an error of S3: the bucket does"
        " not exist, or endpoint_url= is no S3 server"
    )


def _request(call: str, key: str | None) -> str:
    return f"{call} of {key!r}: " if call and key is not None else f"{call}: " if call else ""


def _need(call: str, code: str) -> str:
    """Return which permissions a request needs, if it may be those that are missing."""
    if code not in {"", "AccessDenied", "Forbidden", "UnauthorizedAccess"} or call not in _PERMISSIONS:
        return ""
    return f"; it needs {_PERMISSIONS[call]}"


def _error_by_status(
    status: int | None, code: str, *, location: str, writes: bool, message: str
) -> IsthmusError:
    unimplemented = status == 501 or code == "NotImplemented"
    if code in _PASSING or (status is not None and status >= 500 and not unimplemented):
        if status == 503 and not code:
            return RateLimitedError(
                f"{location}: the server is throttling requests (503)", applied=_if_written(writes)
            )
        return UnavailableError(
            f"{location}: the server failed ({code or status})", applied=_if_written(writes)
        )
    detail = f": {message}" if message else ""
    return UnexpectedError(
        f"{location}: the server answered {status} {code}{detail}",
        applied=_if_written(status is None and writes),
    )


def _if_written(writes: bool) -> Applied:
    return Applied.MAYBE if writes else Applied.NO
