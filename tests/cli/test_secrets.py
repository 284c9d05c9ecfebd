"""No secret of a URL is shown, whichever reserved characters it has and wherever the URL stands."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest

from isthmus import ConfigError
from isthmus.cli._stores import StoreAddress, resolve_store
from isthmus.cli._urls import check_url, hide_secrets, redact_url
from tests.cli.conftest import Cli

pytestmark = pytest.mark.backend("sqlite")

SCHEMES = ["postgres", "postgresql", "es+http", "es+https", "s3", "sqlalchemy", "nosuch"]
RESERVED = "#/?@:[]&=%+;, $!'()*\\\"|^`{}<>~"
PARTS = ("c4n4ry", "s3cr3t", "t41l")
OPTIONS = ["password", "api_key", "aws_secret_access_key", "aws_session_token"]


def assert_hidden(text: str, context: object) -> None:
    assert not any(part in text for part in PARTS), (context, text)


def build_passwords() -> list[str]:
    """Return passwords with each reserved character, and with each pair of them."""
    pairs = itertools.product(RESERVED, repeat=2)
    return [f"{PARTS[0]}{one}{PARTS[1]}{two}{PARTS[2]}" for one, two in pairs]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_url_is_shown_without_a_password_of_any_characters(scheme: str) -> None:
    """As it stands in the URL, or escaped: what is shown has no part of it."""
    for password in build_passwords():
        escaped = quote(password, safe="")
        for login in (f"user:{password}", f"user:{escaped}", f":{password}", f"u/ser:{password}"):
            for place in ("host/db", "h1:1,h2:2/db", "bucket/a/b?region=x", "[::1]:5432/db?a=b"):
                url = f"{scheme}://{login}@{place}"
                assert_hidden(redact_url(url), url)
                assert_hidden(StoreAddress(url, "c").display_name, url)
                assert_hidden(hide_secrets(f"cannot open {url}!", [url]), url)
                assert_hidden(hide_secrets(f"port {password!r} or {password}", ["x", url]), url)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_url_is_shown_without_secret_options(option: str) -> None:
    """Also if an & of the secret makes its end look like another option."""
    for password in build_passwords():
        for url in (f"es+http://h/i?{option}={password}", f"s3://b/p?region=x&{option}={password}&timeout=3"):
            assert_hidden(redact_url(url), url)


@pytest.mark.parametrize("character", "#/?@[]")
def test_a_reserved_character_in_a_password_is_named(
    cli: Cli, character: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how to write it; nothing is opened, and no traceback has the secret."""
    password = f"{PARTS[0]}{character}{PARTS[1]}@/{PARTS[2]}"
    for scheme in SCHEMES[:-1]:
        url = f"{scheme}://user:{password}@127.0.0.1:1/db"
        with pytest.raises(ConfigError, match=re.escape(f"{character} as %")) as caught:
            resolve_store(url)
        assert_hidden(f"{caught.value} {caught.value!r}", scheme)
        monkeypatch.setenv("ISTHMUS_URL", url)
        for arguments in (["ping", url], ["count", "-"], ["doctor", url, "--json"], ["ls", url, "--debug"]):
            ran = cli(*arguments)
            assert ran.code == 3, (arguments[0], ran.err)
            assert_hidden(ran.out + ran.err, arguments[0])


def test_a_url_in_the_place_of_another_argument_is_hidden(cli: Cli, people: str, tmp_path: Path) -> None:
    """A filter, a file, an id, an option and one argument too many quote what they refuse."""
    url = f"postgres://user:{''.join(PARTS)}@127.0.0.1:1/db"
    for arguments in (
        ["query", people, url],
        ["query", people, f"age = {url}"],
        ["count", people, f'"{url}'],
        ["count", people, url, url],
        ["ping", people, url],
        ["load", people, url],
        ["load", people, url, "-f", "csv"],
        ["dump", people, url, "-f", "csv"],
        ["get", people, url],
        ["put", people, "x", url],
        ["query", people, "--limit", url],
        ["query", people, "--sort", url],
        ["agg", people, "-a", url],
        ["copy", people, url, "--map", url],
        ["copy", people, people, "--transform", url],
        ["index", people, url],
        [url],
        ["ping", url.replace("://", ":/")],
        ["count", people, "-c", url],
    ):
        for options in ([], ["--json"], ["--debug"]):
            ran = cli(*arguments, *options)
            assert ran.code != 0, (arguments[0], ran.out)
            assert_hidden(ran.err + ran.out, arguments)


def test_addresses_without_a_login_are_accepted() -> None:
    """An @, a colon or a # elsewhere is no password."""
    for url in (
        "sqlite:////home/me@work/a:b#1.db",
        "sqlite:///x.db?synchronous=full",
        "s3://bucket/folder@home/x",
        "s3://KEY:SECRET@bucket/prefix",
        "postgres://user:p%40ss%2Fword@host:5432/db?application_name=me@host",
        "postgres://host:5432/db?user=me@corp",
        "postgres://user@h1:1,h2:2/db",
        "postgres://[::1]:5432/db",
        "postgres:///db?host=/run/pg",
        "es+https://user:secret@host:9200/index",
        "memory://",
    ):
        check_url(url)
        assert redact_url(url) != f"{url.partition(':')[0]}://…"


def test_ordinary_words_of_a_message_stay() -> None:
    """A password that is also the user's name, or very short, hides nothing else."""
    url = "postgres://postgres:postgres@host/db"
    assert hide_secrets("postgres: cannot connect to host", [url]) == "postgres: cannot connect to host"
    assert hide_secrets("abcabc", ["postgres://u:abc@host/db"]) == "abcabc"


def test_random_urls_never_break_the_display() -> None:
    """Whatever the text, showing it raises nothing."""
    generator = Random(16)
    for _ in range(5_000):
        text = "".join(generator.choice(RESERVED + "abc1") for _ in range(generator.randrange(30)))
        url = f"{generator.choice(SCHEMES)}://{text}"
        assert redact_url(url)
        assert isinstance(hide_secrets(text, [url]), str)


def test_the_text_of_libpq_is_a_store_on_the_command_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "host=127.0.0.1 port=1 dbname=d user=u password=se/cret"

    given = cli("ping", text)
    monkeypatch.setenv("ISTHMUS_URL", text)

    for found in (given, cli("ping")):
        assert found.code == 4
        assert "no connection to 127.0.0.1:1" in found.err
        assert "se/cret" not in found.err


def test_text_that_cannot_be_read_is_not_shown(cli: Cli) -> None:
    found = cli("ping", "host=h password='se c4n4ry")

    assert found.code == 3
    assert "name=value" in found.err
    assert "c4n4ry" not in found.err
