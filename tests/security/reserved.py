"""Every reserved character in every secret of every URL scheme, as it is and escaped: what is shown of it?"""

from __future__ import annotations

import contextlib
import io
from urllib.parse import quote

from isthmus import AsyncDatabase
from isthmus.cli._main import run
from isthmus.cli._urls import hide_secrets, redact_url
from isthmus.errors import IsthmusError
from tests.security.secrets import show_error, show_handle

LEFT, RIGHT = "c4n4ry", "s3cr3t"
RESERVED = ":/?#[]@!$&'()*+,;=% \"<>\\^`{|}~-._"
# Port 9 on loopback refuses at once; each place of a secret is `{}`.
URLS = {
    "postgres password": "postgres://u:{}@127.0.0.1:9/app",
    "postgres option password": "postgres://127.0.0.1:9/app?user=u&password={}",
    "postgres ssl_key_password": "postgres://u@127.0.0.1:9/app?ssl_key_password={}",
    "postgresql+asyncpg password": "postgresql+asyncpg://u:{}@127.0.0.1:9/app?sslmode=disable",
    "postgresql+psycopg password": "postgresql+psycopg://u:{}@127.0.0.1:9/app?sslmode=disable",
    "elasticsearch password": "es+http://u:{}@127.0.0.1:9/notes",
    "elasticsearch https password": "es+https://u:{}@127.0.0.1:9/notes",
    "elasticsearch api_key": "es+http://127.0.0.1:9/notes?api_key={}",
    "elasticsearch bearer_token": "es+http://127.0.0.1:9/notes?bearer_token={}",
    "s3 secret key": "s3://KEY:{}@bucket-1/p?region=eu-west-1&endpoint_url=http://127.0.0.1:9",
    "s3 option secret": "s3://bucket-1/p?region=eu-west-1&aws_access_key_id=KEY&aws_secret_access_key={}",
    "s3 session token": "s3://KEY:x@bucket-1/p?region=eu-west-1&aws_session_token={}",
    "sqlite password": "sqlite://u:{}@h/file.db",
    "memory password": "memory://u:{}@h/records",
    "memory cursor_secret": "memory://records?cursor_secret={}",
    "sqlalchemy password": "sqlalchemy+mysql+asyncmy://u:{}@127.0.0.1:9/app",
    "an unknown scheme": "nonsense://u:{}@127.0.0.1:9/app",
}


async def tried() -> tuple[int, list[str]]:
    """Open, refuse, print and pickle each URL; return how many there were, and where a secret was seen."""
    count = 0
    seen: list[str] = []
    for place, url in URLS.items():
        for character in RESERVED:
            secret = f"{LEFT}{character}{RIGHT}"
            for given in (url.format(secret), url.format(quote(secret, safe=""))):
                count += 1
                shown = await _surfaces(given)
                seen += [
                    f"{place} with {character!r}: {name}: {text[:120]}"
                    for name, text in shown.items()
                    if LEFT in text or RIGHT in text
                ]
    return count, seen


async def _surfaces(url: str) -> dict[str, str]:
    shown = {"the command line's form": redact_url(url), "a message": hide_secrets(f"no {url}", [url])}
    try:
        db = await AsyncDatabase.open(url, lazy=True)
    except IsthmusError as error:
        show_error(error, "refused", shown)
        return shown
    shown |= show_handle(db)
    await db.close()
    return shown


def tried_by_command_line() -> tuple[int, list[str]]:
    """Give each URL to `isthmus ls`, which refuses it or finds no server; return as `tried` does."""
    count = 0
    seen: list[str] = []
    for place, url in URLS.items():
        for character in "/?#@[]:%& ":
            count += 1
            output = io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                run(["ls", url.format(f"{LEFT}{character}{RIGHT}")])
            text = output.getvalue()
            if LEFT in text or RIGHT in text:
                seen.append(f"{place} with {character!r}: isthmus ls: {text[:200]}")
    return count, seen
