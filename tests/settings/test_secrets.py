"""A password with any reserved character, in a URL of any scheme: it works or is refused, never shown."""

from __future__ import annotations

import pickle
import traceback

import pytest

from isthmus import AsyncDatabase
from isthmus.cli._urls import redact_url
from isthmus.errors import ConfigError

pytestmark = pytest.mark.asyncio

LEFT, RIGHT = "c4n4ry", "s3cr3t"
RESERVED = ":/?#[]@!$&'()*+,;=% \"<>\\^`{|}~-._"
URLS = {
    "postgres": "postgres://u:{}@127.0.0.1:9/app",
    "postgresql+asyncpg": "postgresql+asyncpg://u:{}@127.0.0.1:9/app?sslmode=disable",
    "elasticsearch": "es+http://u:{}@127.0.0.1:9/notes",
    "s3": "s3://KEY:{}@bucket-1/p?region=eu-west-1&endpoint_url=http://127.0.0.1:9",
    "sqlite": "sqlite://u:{}@h/file.db",
    "memory": "memory://u:{}@h/records",
    "sqlalchemy": "sqlalchemy+mysql+asyncmy://u:{}@127.0.0.1:9/app",
}
ENDING = frozenset("/?#")
"""The characters that end a password when they are not escaped."""


def _shown(error: BaseException) -> str:
    texts = [str(error), repr(error), repr(error.__dict__), repr(pickle.dumps(error))]
    texts += traceback.format_exception(error)
    cause: BaseException | None = error
    while cause is not None:
        texts.append(f"{cause!r} {cause.args!r}")
        cause = cause.__cause__ or cause.__context__
    return "\n".join(texts)


def _is_shown(text: str) -> bool:
    return LEFT in text or RIGHT in text


def _password(db: AsyncDatabase) -> str:
    config = db.config
    for name in ("password", "aws_secret_access_key", "address"):
        secret = getattr(config, name, None)
        if secret is not None:
            return str(secret.get_secret_value())
    raise AssertionError(f"{type(config).__name__} has no password")


@pytest.mark.parametrize("character", RESERVED, ids=lambda c: f"{ord(c):02x}")
@pytest.mark.parametrize("scheme", URLS)
async def test_a_reserved_character_in_a_password_shows_nothing(scheme: str, character: str) -> None:
    """Unescaped it is the password, or a ConfigError that says how to write it."""
    password = f"{LEFT}{character}{RIGHT}"
    url = URLS[scheme].format(password)

    db, refused = await _open(url)

    if db is None:
        assert scheme in ("sqlite", "memory") or character in ENDING, refused
        assert scheme in ("sqlite", "memory") or f"%{ord(character):02X}" in refused
    else:
        assert password in _password(db)
        refused = repr(db) + repr(db.config) + str(db.config.explain()) + repr(db.stats)
        await db.close()
    assert not _is_shown(refused)
    assert not _is_shown(redact_url(url))


async def _open(url: str) -> tuple[AsyncDatabase | None, str]:
    """Return a handle, or how its refusal looks on every surface."""
    try:
        return await AsyncDatabase.open(url, lazy=True), ""
    except ConfigError as error:
        return None, _shown(error)


@pytest.mark.parametrize("character", RESERVED, ids=lambda c: f"{ord(c):02x}")
@pytest.mark.parametrize("scheme", ["postgres", "elasticsearch", "s3"])
async def test_an_escaped_character_is_the_passwords(scheme: str, character: str) -> None:
    """`%xx` works for each of them."""
    url = URLS[scheme].format(f"{LEFT}%{ord(character):02X}{RIGHT}")

    db = await AsyncDatabase.open(url, lazy=True)

    assert _password(db) == f"{LEFT}{character}{RIGHT}"
    await db.close()


@pytest.mark.parametrize("password", ["12/s3cr3t", "12?s3cr3t", "12#s3cr3t", "12?x=s3cr3t", "a@12/s3cr3t"])
@pytest.mark.parametrize("scheme", ["postgres", "elasticsearch", "s3"])
async def test_a_password_that_begins_like_a_port_is_not_taken_for_one(scheme: str, password: str) -> None:
    """The rest of it would be a database, an index or a prefix, and shown."""
    with pytest.raises(ConfigError) as caught:
        await AsyncDatabase.open(URLS[scheme].format(password), lazy=True)

    assert "s3cr3t" not in _shown(caught.value)


@pytest.mark.parametrize("scheme", URLS)
async def test_a_url_in_place_of_a_backends_name_says_open(scheme: str) -> None:
    """`create` takes a name; the URL that it got is not shown."""
    with pytest.raises(ConfigError, match=r"open\(\)") as caught:
        await AsyncDatabase.create(URLS[scheme].format(f"{LEFT}{RIGHT}"), {})

    assert not _is_shown(_shown(caught.value))


@pytest.mark.parametrize("url", ["u:c4n4ry@h", "c4n4ry s3cr3t://h", "postgres//u:s3cr3t@h", "no+c4n4ry!://h"])
async def test_what_is_no_url_is_not_shown(url: str) -> None:
    """Not even its part before the colon."""
    with pytest.raises(ConfigError) as caught:
        await AsyncDatabase.open(url)

    assert not _is_shown(_shown(caught.value))


async def test_hosts_and_endpoints_show_no_password() -> None:
    """Credentials in an address are refused, whatever is in them."""
    for character in RESERVED:
        address = f"http://u:12{character}s3cr3t@127.0.0.1:9"
        for backend, config in (
            ("elasticsearch", {"hosts": [address]}),
            ("s3", {"bucket": "bucket-1", "endpoint_url": address}),
            ("postgres", {"host": f"u:12{character}s3cr3t@127.0.0.1:9"}),
            ("postgres", {"host": "127.0.0.1", "replicas": [f"u:12{character}s3cr3t@127.0.0.1"]}),
        ):
            with pytest.raises(ConfigError) as caught:
                AsyncDatabase(backend, config)
            assert "s3cr3t" not in _shown(caught.value)


async def test_an_at_sign_in_an_option_is_no_password() -> None:
    """Azure's users have one."""
    db = await AsyncDatabase.open("postgres://h:5432/app?user=me@server", lazy=True)

    assert db.config.explain()["user"] == ("me@server", "url")
    await db.close()


SECRETS: list[tuple[str, dict[str, object]]] = [
    ("postgres", {"host": "127.0.0.1", "port": 9, "password": "{}"}),
    ("postgres", {"host": "127.0.0.1", "port": 9, "ssl_key_password": "{}"}),
    ("postgres", {"url": "postgres://u:{}@127.0.0.1:9/app"}),
    ("elasticsearch", {"hosts": ["http://127.0.0.1:9"], "api_key": "{}"}),
    ("elasticsearch", {"hosts": ["http://127.0.0.1:9"], "user": "u", "password": "{}"}),
    ("s3", {"bucket": "bucket-1", "aws_access_key_id": "k", "aws_secret_access_key": "{}"}),
    ("s3", {"bucket": "bucket-1", "aws_session_token": "{}"}),
    ("sqlalchemy", {"url": "mysql+asyncmy://u:{}@127.0.0.1:9/app"}),
    ("memory", {"cursor_secret": "{}"}),
]


@pytest.mark.parametrize(("backend", "settings"), SECRETS, ids=lambda value: str(value)[:60])
async def test_a_secret_that_is_not_utf8_is_refused_and_not_shown(
    backend: str, settings: dict[str, object]
) -> None:
    """A variable with other bytes holds lone surrogates, and the error of encoding them holds the secret."""
    secret = f"{LEFT}\udcff{RIGHT}"
    given = {
        name: value.format(secret) if isinstance(value, str) else value for name, value in settings.items()
    }

    with pytest.raises(ConfigError) as caught:
        await AsyncDatabase.create(backend, given)

    assert not _is_shown(_shown(caught.value))


async def test_a_password_function_that_returns_no_utf8_shows_nothing() -> None:
    """It is called for each connection."""
    settings = {"host": "127.0.0.1", "port": 9, "password": lambda: f"{LEFT}\udcff{RIGHT}"}

    with pytest.raises(ConfigError) as caught:
        await AsyncDatabase.create("postgres", settings)

    assert not _is_shown(_shown(caught.value))


@pytest.mark.parametrize("name", ["aws_access_key_id", "aws_session_token"])
@pytest.mark.parametrize("character", ["\n", "\0", "\u00fc"], ids=["line break", "NUL", "umlaut"])
async def test_what_no_header_can_have_is_refused_by_name(name: str, character: str) -> None:
    """obstore would panic; a line break at the end comes from a file with a secret."""
    given = {"bucket": "bucket-1", "aws_secret_access_key": "s", name: f"{LEFT}{character}"}

    with pytest.raises(ConfigError, match=name) as caught:
        await AsyncDatabase.create("s3", given)

    assert not _is_shown(_shown(caught.value))
