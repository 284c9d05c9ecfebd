"""Which fields and operators the clients of a route may use."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI

from isthmus import UsageError
from isthmus.integrations.fastapi import Database, Search, SearchParameters, answer_errors, lifespan

Limited = Annotated[
    SearchParameters,
    Depends(SearchParameters.limited(fields=["name", "home"], operators=["!=", "like", "regex"])),
]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service with an open and a limited route over one record."""
    app = FastAPI(lifespan=lifespan("memory"))
    answer_errors(app)

    async def unlimited(db: Database, search: Search) -> dict[str, Any]:
        return await search.page(db)

    async def limited(db: Database, search: Limited) -> dict[str, Any]:
        return await search.page(db)

    app.get("/open")(unlimited)
    app.get("/limited")(limited)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        await app.state.isthmus.create({"name": "Alice", "home": {"city": "Oslo"}, "password": "xyzzy"})
        yield client


def _filter(field: str, op: str, value: Any) -> dict[str, str]:
    return {"filter": json.dumps({"not": {"field": field, "op": op, "value": value}})}


@pytest.mark.parametrize(
    ("route", "parameters"),
    [
        ("/open", _filter("name", "regex", "^A")),
        ("/limited", _filter("password", "like", "x%")),
        ("/limited", _filter("name", "<", "x")),
        ("/limited", _filter("name", "in", ["x"])),
        ("/limited", _filter("_version", "!=", "1")),
        ("/limited", {"sort": "password"}),
        ("/limited", {"sort": "-_created_at"}),
        ("/limited", {"select": "name,password"}),
        ("/limited", _filter("name", "regex", "(?=A)")),
    ],
)
@pytest.mark.asyncio
async def test_what_is_not_allowed_is_refused(
    client: httpx.AsyncClient, route: str, parameters: dict[str, str]
) -> None:
    """422 that names it, wherever in the condition, the order or the selection it stands."""
    answer = await client.get(route, params=parameters)

    assert (answer.status_code, answer.json()["error"]) == (422, "QueryError")


@pytest.mark.asyncio
async def test_what_is_allowed_works(client: httpx.AsyncClient) -> None:
    """An operator and its negation, a field and what lies under it; no other field is shown."""
    condition = json.dumps(
        {
            "and": [
                {"field": "name", "op": "=", "value": "Alice"},
                {"field": "home.city", "op": "regex", "value": "^O"},
                {"field": "name", "op": "not_like", "value": "B%"},
            ]
        }
    )

    limited = await client.get("/limited", params={"filter": condition, "sort": "home.city"})
    opened = await client.get("/open", params=_filter("password", "=", "x"))

    assert [item["data"] for item in limited.json()["items"]] == [{"name": "Alice", "home": {"city": "Oslo"}}]
    assert opened.json()["items"][0]["data"]["password"] == "xyzzy"


def test_an_unknown_operator_is_a_mistake_of_the_program() -> None:
    """It is found when the route is declared."""
    with pytest.raises(UsageError, match="did you mean"):
        SearchParameters.limited(operators=["starts_wth"])
