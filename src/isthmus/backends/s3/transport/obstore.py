"""The transport over obstore: Rust's object_store, five times faster than botocore.

obstore 0.12 distinguishes some errors by class and the rest only in messages, which are parsed here
and nowhere else. It is bound to no loop, but hangs in a process forked after its first use.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from isthmus._core.registry import import_driver
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
from isthmus.errors import AccessError, IsthmusError

_status = re.compile(r"status(?: code)?: (\d{3})").search
_code = re.compile(r"<Code>([^<]*)</Code>").search
_message = re.compile(r"<Message>([^<]*)</Message>").search
# An error that obstore does not classify (`Unknown`) quotes its HTTP client's error, which does.
_kind = re.compile(r"\bkind: (Connect|Timeout|Request|Interrupted|Decode)\b").search
# The names of rustls, in the debug form of the error.
_certificate = re.compile(r"\bInvalidCertificate\(\s*(\w+)").search
_tls = re.compile(r"\berror: (?:InvalidMessage|PeerIncompatible|AlertReceived|PeerMisbehaved)\b").search
_lacking = re.compile(r"\b(ETag|Content-Length|Last-Modified) Header missing").search


class ObstoreTransport:
    """Requests through one `S3Store`."""

    # hyper repeats only requests of which it has sent nothing.
    repeats = False

    def __init__(self, store: Any, location: str, storage_class: str | None = None) -> None:
        self._store = store
        self._attributes = {} if storage_class is None else {"attributes": {"Storage-Class": storage_class}}
        self._location = location
        obstore = import_driver("obstore", extra="s3")
        self._put, self._get, self._head = obstore.put_async, obstore.get_async, obstore.head_async
        self._list, self._delete = obstore.list, obstore.delete_async

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object in one request, never in parts."""
        mode: Any = "create" if if_absent else {"e_tag": if_match} if if_match is not None else "overwrite"
        try:
            done = await self._put(self._store, key, body, mode=mode, use_multipart=False, **self._attributes)
        except Exception as error:  # obstore raises its own classes, OSError and ValueError
            raise self.translate_error(error, "PutObject", key, writes=True) from cause_of(error)
        return self._etag(done, "PutObject")

    async def get(self, key: str) -> Blob | None:
        """Return an object; None if there is none."""
        try:
            found = await self._get(self._store, key)
            body = await found.bytes_async()
        except Exception as error:  # as above
            answer = self.translate_error(error, "GetObject", key)
            if isinstance(answer, NoSuchKeyError):
                return None
            raise answer from cause_of(error)
        return Blob(bytes(body), self._etag(found.meta, "GetObject"))

    async def get_range(self, key: str, start: int, end: int, etag: str) -> bytes:
        """Return a part of an object that has this entity tag."""
        try:
            options = {"range": (start, end), "if_match": etag}
            found = await self._get(self._store, key, options=options)
            return bytes(await found.bytes_async())
        except Exception as error:  # as above
            raise self.translate_error(error, "GetObject", key) from cause_of(error)

    async def head(self, key: str) -> str | None:
        """Return the entity tag; None if there is no object."""
        try:
            found = await self._head(self._store, key)
        except Exception as error:  # as above
            answer = self.translate_error(error, "HeadObject", key)
            if isinstance(answer, NoSuchKeyError):
                return None
            raise answer from cause_of(error)
        return self._etag(found, "HeadObject")

    def _etag(self, found: Any, call: str) -> str:
        """Return the entity tag of a response, which each of S3 has."""
        if found["e_tag"] is None:
            raise not_s3(self._location, call, "answered without ETag")
        return str(found["e_tag"])

    async def listing(self, prefix: str, *, after: str = "", limit: int = 1000, rest: Any = None) -> Listing:
        """Return a page of a listing; object_store requests 1,000 keys whatever the limit."""
        # object_store's prefixes are whole folders, as ours are: it appends the slash itself.
        if rest is None:
            folder, offset = prefix.rstrip("/") or None, prefix + after if after else None
            rest = self._list(self._store, folder, offset=offset, chunk_size=1000)
        try:
            chunk = await anext(rest)
        except StopAsyncIteration:
            return Listing([], more=False)
        except Exception as error:  # as above
            raise self.translate_error(error, "ListObjectsV2") from cause_of(error)
        cut = len(prefix)
        found = [
            Listed(o["path"][cut:], str(o["e_tag"]), o["size"], o["last_modified"]) for o in chunk[:limit]
        ]
        return Listing(found, more=len(chunk) >= min(limit, 1000), rest=rest if limit >= len(chunk) else None)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, IsthmusError]:
        """Delete in one bulk request; object_store reports the first error only."""
        try:
            await self._delete(self._store, list(keys))
        except Exception as error:  # as above
            answer = self.translate_error(error, "DeleteObjects", writes=True)
            if not isinstance(answer, NoSuchKeyError):
                raise answer from cause_of(error)
        return {}

    def translate_error(
        self, error: Exception, call: str, key: str | None = None, *, writes: bool = False
    ) -> Exception:
        """Return the error of isthmus for an error of obstore."""
        if isinstance(error, IsthmusError | asyncio.CancelledError):
            return error
        text = str(error)
        status, code, kind, detail = _status(text), _code(text), _kind(text), _message(text)
        name = type(error).__name__
        # PreconditionError also stands for If-Match on a missing object (a 404), AlreadyExistsError
        # also for a conditional write that met another one (a 409).
        if name in {"AlreadyExistsError", "PreconditionError"} and (
            code is None or code[1] not in {"NoSuchBucket", "ConditionalRequestConflict"}
        ):
            return PreconditionError()
        if status is None and name in {"PermissionDeniedError", "UnauthenticatedError"}:
            # Its message, and that of the provider's exception, may contain credentials.
            error.args = ("no credentials",)
            error.__cause__ = error.__context__ = None
            return AccessError(f"{self._location}: no credentials could be obtained for the next request")
        broken = None
        if status is None and "Received redirect" not in text:
            broken = _tls_failure(text) or (_BROKEN.get(kind[1]) if kind else None)
            if broken is None and name == "FileNotFoundError":
                return NoSuchKeyError()
            if broken is None and (lacking := _lacking(text)):
                return not_s3(self._location, call, f"answered without {lacking[1]}")
        return error_for(
            301 if "Received redirect" in text else int(status[1]) if status else None,
            code[1] if code else "",
            broken,
            location=self._location,
            writes=writes,
            call=call,
            key=key,
            message=detail[1] if detail else "" if status else text.split("\n", maxsplit=1)[0][:200],
        )


def _tls_failure(text: str) -> ConnectionFailure | None:
    """Return why TLS failed; None if it did not."""
    why = _certificate(text)
    if why is not None:
        return certificate_failure(why[1])
    return ConnectionFailure.NO_TLS if _tls(text) else None


_BROKEN = {
    "Connect": ConnectionFailure.CONNECT,
    "Timeout": ConnectionFailure.TIMEOUT,
    "Request": ConnectionFailure.CUT,
    "Interrupted": ConnectionFailure.CUT,
    "Decode": ConnectionFailure.CUT,
}
