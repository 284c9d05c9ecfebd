"""A service over models: responses and OpenAPI of the model, searches by its names, on three stores."""

import datetime as dt
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
            assert connected.put(f"/articles/s{number}", json={"stock": 100}).status_code == 200
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


def order_of(sku: str, quantity: int = 1, customer: str = "Cleo") -> dict[str, Any]:
    """Return an order of one line."""
    line = {"sku": sku, "quantity": quantity, "price": "2.00"}
    return {"customer": customer, "due": "2027-01-01", "lines": [line]}


def test_stock_never_goes_below_zero(client: httpx.Client) -> None:
    """Of 20 buyers of 7 pieces 7 get one; a refused order leaves no order, record or message behind."""
    client.put("/articles/rare", json={"stock": 7})
    client.post("/jobs/deliver")

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: client.post("/orders", json=order_of("rare")), range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] * 7 + [409] * 13
    assert client.get("/articles/rare").json() == {"stock": 0, "sold": 7}
    created = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert {
        brief["id"] for brief in client.get("/orders/with-article", params={"sku": "rare"}).json()
    } == created
    messages = client.post("/jobs/deliver").json()
    assert {message["text"].split()[1] for message in messages} == created
    assert client.post("/jobs/deliver").json() == []
    two_lines = order_of("s1")
    two_lines["lines"] += order_of("rare")["lines"]
    before = client.get("/articles/s1").json()
    assert client.post("/orders", json=two_lines).status_code == 409
    assert client.get("/articles/s1").json() == before
    assert client.post("/orders", json=order_of("unknown")).status_code == 404


def test_an_email_address_belongs_to_one_customer(client: httpx.Client) -> None:
    """At registration and at a change; the answer names the field."""
    ada = client.post("/customers", json={"email": "ada@example.org", "name": "Ada"}).json()
    bob = client.post("/customers", json={"email": "bob@example.org", "name": "Bob"}).json()

    refused = client.post("/customers", json={"email": "ada@example.org", "name": "Eve"})
    assert refused.status_code == 409
    assert refused.json()["error"] == "AlreadyExistsError"
    assert "email" in refused.json()["message"]
    change = f"/customers/{bob['id']}/email"
    assert client.put(change, params={"email": "ada@example.org"}).status_code == 409
    assert client.put(change, params={"email": "robert@example.org"}).json()["name"] == "Bob"
    assert client.put(f"/customers/{ada['id']}/email", params={"email": "bob@example.org"}).status_code == 200


def test_a_change_names_the_version_that_it_was_made_on(client: httpx.Client) -> None:
    """Partial updates leave the rest as it is; a stale one is refused."""
    order = client.post("/orders", json=order_of("s1")).json()
    path = f"/orders/{order['id']}"

    changed = client.patch(path, json={"note": "ring"}, headers={"If-Match": order["version"]}).json()
    assert (changed["note"], changed["due"], changed["customer"]) == ("ring", "2027-01-01", "Cleo")
    stale = client.patch(path, json={"note": "knock"}, headers={"If-Match": order["version"]})
    assert stale.status_code == 409
    assert client.patch(path, json={"due": "2027-02-01"}).json()["note"] == "ring"
    assert client.get(path).json()["due"] == "2027-02-01"


def test_a_deleted_order_is_gone_and_its_pieces_are_back(client: httpx.Client) -> None:
    """Softly: its records stay until they expire; a paid one is not deleted."""
    client.put("/articles/lamp", json={"stock": 5})
    ids = [client.post("/orders", json=order_of("lamp", 2)).json()["id"] for _ in range(2)]
    assert client.post(f"/orders/{ids[1]}/pay").json()["state"] == "paid"

    assert client.delete(f"/orders/{ids[0]}").status_code == 204
    assert client.delete(f"/orders/{ids[0]}").status_code == 409
    assert client.delete(f"/orders/{ids[1]}").status_code == 409
    assert client.post(f"/orders/{ids[0]}/pay").status_code == 409
    assert client.get(f"/orders/{ids[0]}").status_code == 404
    assert client.patch(f"/orders/{ids[0]}", json={"note": "x"}).status_code == 404
    assert find(client, {"field": "id", "op": "in", "value": ids}) == [ids[1]]
    assert client.get("/articles/lamp").json() == {"stock": 3, "sold": 2}
    actions = [[entry["action"] for entry in client.get(f"/orders/{id}/audit").json()] for id in ids]
    assert actions == [["created", "deleted"], ["created", "paid"]]
    before = dt.datetime.now(dt.UTC)
    yesterday = (before - dt.timedelta(days=1)).isoformat()
    assert client.post("/jobs/expire", params={"before": yesterday}).json() == {"removed": 0}
    assert client.post("/jobs/expire", params={"before": before.isoformat()}).json() == {"removed": 1}
