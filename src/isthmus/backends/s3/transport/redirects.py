"""Redirects are refused: a request that follows one takes a session's token to another host.

aioboto3 is told not to follow them. obstore has no such setting: it follows those of requests without a
body, so that a server is tried before obstore is used, by a request without credentials.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.errors import REDIRECTS, redirect_error
from isthmus.backends.s3.keys import MARKER

# For the trial, which a thread waits for: that of a cancelled caller would hold up the end of a program.
_SECONDS = 2.0


class Unredirected:
    """aiohttp's session, as aiobotocore uses it, which follows no redirect."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Begin a request."""
        return self._session.request(*arguments, allow_redirects=False, **options)


async def refuse_redirects(config: S3Config, location: str) -> None:
    """Raise `ConfigError` if the server at `endpoint_url` redirects a read.

    One request without credentials, whatever it is answered otherwise: what is wrong with the connection
    is the first signed request's to say.
    """
    if config.endpoint_url is None:
        return
    scheme, _, place = config.endpoint_url.rstrip("/").partition("://")
    base = f"{config.bucket}.{place}" if config.bucket_in_host else f"{place}/{quote(config.bucket)}"
    headers = {"x-amz-request-payer": "requester"} if config.requester_pays else {}
    try:
        await asyncio.to_thread(_read, f"{scheme}://{base}/{MARKER}", headers, config)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in REDIRECTS:
            raise redirect_error(
                location, error.code, {k.lower(): v for k, v in error.headers.items()}
            ) from None
    except (OSError, ValueError, http.client.HTTPException):
        return


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Makes each redirect an `HTTPError`."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _read(url: str, headers: Mapping[str, str], config: S3Config) -> None:
    """Send a GET; raises `HTTPError` if the response is not a success."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if url.startswith("https:"):  # reading the authorities takes some milliseconds
        context = ssl.create_default_context(cafile=config.ca_file)
    opener = urllib.request.build_opener(_Unfollowed, urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - the scheme is checked
    opener.open(request, timeout=min(_SECONDS, config.timeout)).close()
