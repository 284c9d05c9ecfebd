"""The example service by a real HTTP client against a real server process."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.examples.processes import served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the example on SQLite; yield its address."""
    path = tmp_path_factory.mktemp("service") / "people.db"
    with served("examples.service:app", f"sqlite:///{path}") as address:
        yield address


def test_a_record_is_created_read_changed_and_deleted(service: str) -> None:
    """The verbs over HTTP, with their status codes."""
    with httpx.Client(base_url=service) as client:
        created = client.post("/people", json={"name": "Alice", "age": 30})
        assert created.status_code == 201
        key = created.json()["id"]
        read = client.get(f"/people/{key}").json()
        assert read["data"] == {"name": "Alice", "age": 30}
        assert client.patch(
            f"/people/{key}", json={"age": 31}, params={"version": read["version"]}
        ).is_success
        stale = client.patch(f"/people/{key}", json={"age": 32}, params={"version": read["version"]})
        assert (stale.status_code, stale.json()["error"]) == (409, "ConflictError")
        assert client.delete(f"/people/{key}").json() == {"deleted": True}
        gone = client.get(f"/people/{key}")
        assert (gone.status_code, gone.json()["error"]) == (404, "NotFoundError")


def test_pages_are_filtered_sorted_and_continued_by_cursor(service: str) -> None:
    """Filter, sort and cursor as query parameters."""
    with httpx.Client(base_url=service) as client:
        for age in range(20, 32):
            client.post("/people", json={"name": f"p{age}", "age": age})
        parameters = {
            "filter": json.dumps({"field": "age", "op": ">=", "value": 22}),
            "sort": "-age",
            "size": 4,
            "select": "age",
        }
        ages: list[int] = []
        cursor = None
        while True:
            page = client.get(
                "/people", params={**parameters, **({"cursor": cursor} if cursor else {})}
            ).json()
            ages += [item["data"]["age"] for item in page["items"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        assert ages == list(range(31, 21, -1))


@pytest.mark.parametrize(
    "parameters",
    [
        {"filter": "{"},
        {"filter": "[]"},
        {"filter": '{"field": "a", "op": "<>", "value": 1}'},
        {"cursor": "made-up"},
        {"size": 0},
        {"filter": '{"field": "a", "op": "regex", "value": "("}'},
    ],
)
def test_bad_parameters_are_the_clients_fault(service: str, parameters: dict[str, str | int]) -> None:
    """422 with a reason, never a 500."""
    answer = httpx.get(f"{service}/people", params=parameters)
    assert answer.status_code == 422


def test_the_health_route_tells_of_the_pool(service: str) -> None:
    """A ping and the figures."""
    assert httpx.get(f"{service}/health").json()["ok"] is True
