"""The search page, by a real HTTP client against a real server process."""

import asyncio
import os
import re
from html import unescape
from pathlib import Path

import httpx
import pytest

from isthmus import AsyncDatabase, Record
from isthmus._ids import new_id
from tests.examples.processes import served

ARTICLES = [
    Record(
        {
            "title": f"Article {n}",
            "text": f"about {'rivers' if n % 2 else 'bridges'} & <b>tags</b>",
            "year": 1900 + n,
        },
        id=f"a{n:03}",
    )
    for n in range(25)
]


@pytest.fixture(params=["sqlite", pytest.param("elasticsearch", marks=pytest.mark.backend("elasticsearch"))])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a store with the articles in it."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'articles.db'}"
    else:
        from tests.servers import server

        base = os.environ.get("ISTHMUS_TEST_ELASTICSEARCH_URL") or server("elasticsearch").url
        address = f"es+{base}/search_{new_id().replace('-', '')}?fulltext=text"

    async def fill() -> None:
        async with await AsyncDatabase.open(address) as db:
            await db.create_batch(ARTICLES)
            await db.refresh()

    asyncio.run(fill())
    return address


def test_every_hit_is_shown_once_over_the_pages(url: str) -> None:
    """The link to the next page is followed until there is none."""
    with served("examples.search:app", url) as address, httpx.Client(base_url=address) as client:
        titles: list[str] = []
        link: str | None = "/?q=rivers"
        while link is not None:
            answer = client.get(link)
            assert answer.status_code == 200
            assert "12 found" in answer.text
            titles += re.findall(r"<li><b>(.*?)</b>", answer.text)
            found = re.search(r'rel="next" href="(.*?)"', answer.text)
            link = "/" + unescape(found[1]) if found else None

        assert sorted(titles) == sorted(f"Article {n}" for n in range(1, 25, 2))
        assert client.get("/", params={"q": "nothing-like-it"}).text.count("Nothing found.") == 1


def test_what_was_typed_and_stored_is_escaped(url: str) -> None:
    """Neither a query nor a record brings markup onto the page; a made-up cursor is the client's fault."""
    with served("examples.search:app", url) as address, httpx.Client(base_url=address) as client:
        page = client.get("/", params={"q": '"><script>alert(1)</script>'}).text
        assert "<script>" not in page
        assert "&lt;b&gt;tags&lt;/b&gt;" in client.get("/").text
        assert client.get("/", params={"q": "100%_"}).status_code == 200
        assert client.get("/", params={"cursor": "made-up"}).status_code == 422
