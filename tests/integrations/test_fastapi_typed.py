"""A service over models: responses and OpenAPI of the model, searches by its names, on three stores."""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from isthmus._ids import new_id
from tests.examples.processes import served

POSTGRES = os.environ.get("ISTHMUS_TEST_POSTGRES_URL")


@pytest.fixture(
    scope="module",
    params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.backend("postgres"))],
)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Start the order service on a store, with five orders."""
    if request.param == "postgres":
        if POSTGRES is None:
            from tests.servers import server

            base = server("postgres").url
        else:
            base = POSTGRES
        # The collection is named by the service: a schema of its own keeps runs apart.
        url = f"{base}{'&' if '?' in base else '?'}schema=orders_{new_id().replace('-', '')[-12:]}"
    else:
        path = tmp_path_factory.mktemp("orders") / "orders.db"
        url = f"sqlite:///{path}" if request.param == "sqlite" else "memory://"
    with served("examples.orders:app", url) as address, httpx.Client(base_url=address) as connected:
        for number in range(1, 6):
            order = {
                "id": f"o{number}",
                "customer": "Ann" if number % 2 else "Bob",
                "due": f"2026-12-0{number}",
                "lines": [{"sku": f"s{number}", "quantity": number, "price": "1.25"}],
                "note": "fragile" if number == 2 else None,
            }
            assert connected.post("/orders", json=order).status_code == 201
        yield connected


def find(client: httpx.Client, condition: Any = None, **parameters: Any) -> list[str]:
    """Return the ids that a search answers."""
    if condition is not None:
        parameters["filter"] = json.dumps(condition)
    answer = client.get("/orders", params=parameters)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_searches_filter_and_sort_by_the_names_of_the_model(client: httpx.Client) -> None:
    """Dates are compared as they are stored, however they are written; pages go on by cursor."""
    assert find(client, {"field": "due", "op": ">=", "value": "2026-12-04"}, sort="-due") == ["o5", "o4"]
    assert find(client, {"field": "total", "op": "<", "value": 3}) == ["o1", "o2"]
    assert find(client, {"field": "lines.sku", "op": "=", "value": "s3"}) == ["o3"]
    assert find(client, {"field": "id", "op": "in", "value": ["o1", "o9"]}) == ["o1"]
    page = client.get("/orders", params={"size": 3, "sort": "-total"}).json()
    assert [item["id"] for item in page["items"]] == ["o5", "o4", "o3"]
    assert find(client, size=3, sort="-total", cursor=page["cursor"]) == ["o2", "o1"]
    assert page["items"][0]["total"] == "6.25"
    assert page["items"][0]["version"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"filter": '{"field": "custmer", "op": "=", "value": "Ann"}'}, "did you mean 'customer'"),
        ({"filter": '{"field": "state", "op": "=", "value": "opne"}'}, "did you mean 'open'"),
        ({"filter": '{"field": "total", "op": ">", "value": "much"}'}, "holds Decimal"),
        ({"filter": '{"field": "customer", "op": "regex", "value": "A"}'}, "not allowed"),
        ({"sort": "-totl"}, "did you mean 'total'"),
    ],
)
def test_a_bad_search_is_the_clients_fault(
    client: httpx.Client, parameters: dict[str, str], message: str
) -> None:
    """422 with the nearest name."""
    answer = client.get("/orders", params=parameters)

    assert answer.status_code == 422
    assert message in answer.json()["message"]


def test_the_schema_names_the_model_and_its_fields(client: httpx.Client) -> None:
    """OpenAPI: the response is a page of orders; there is no `select`; the fields are named."""
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/orders"]["get"]

    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["$ref"].endswith("/ModelPage_Order_")
    page = schema["components"]["schemas"]["ModelPage_Order_"]
    assert page["properties"]["items"]["items"]["$ref"].endswith("/Order-Output")
    names = {parameter["name"]: parameter for parameter in operation["parameters"]}
    assert set(names) == {"filter", "sort", "size", "cursor"}
    assert "customer, state, due, total" in names["sort"]["description"]


def test_the_other_routes_are_lambdas(client: httpx.Client) -> None:
    """Selections, groups and compare-and-set over HTTP."""
    late = client.get("/orders/overdue", params={"today": "2026-12-03"}).json()
    assert [order["id"] for order in late] == ["o2", "o1"]
    assert late[0] == {"id": "o2", "customer": "Bob", "total": "2.5"}
    assert [
        o["id"] for o in client.get("/orders/with-article", params={"sku": "s2", "noted": True}).json()
    ] == ["o2"]
    assert client.get("/orders/with-article", params={"sku": "s1", "noted": True}).json() == []
    assert client.get("/customers").json() == [
        ["Ann", 3, "11.25", "2026-12-05"],
        ["Bob", 2, "7.5", "2026-12-04"],
    ]
    paid = client.post("/orders/o4/pay").json()
    assert paid["state"] == "paid"
    assert client.post("/orders/o4/pay").status_code == 409
    assert client.delete("/customers/Bob/orders").json() == {"deleted": 1}
    assert find(client, {"field": "customer", "op": "=", "value": "Bob"}) == ["o4"]
