"""The form of a response to each kind of request, by which a stranger's is recognized.

Whatever stands in the place of Elasticsearch may answer 200 to everything, a gateway with the header of
Elasticsearch too. What a caller takes out of a response is looked for here, at a cost that does not grow
with it: of a list, the first entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def is_response(method: str, target: str, body: Any) -> bool:
    """Return whether a decoded body has the form of a successful response to a request."""
    if not isinstance(body, Mapping):
        return False
    path = target.partition("?")[0]
    last = path.rpartition("/")[2]
    if method == "GET" and path.count("/") == 1 and not last.startswith("_"):
        return bool(body) and all(map(_is_index, body.values()))
    has_form = _FORMS.get((method, last))
    if has_form is not None:
        return has_form(body)
    return method == "GET" or "acknowledged" in body


def _is_index(found: Any) -> bool:
    """Return whether this is the description of an index, which has a uuid at least."""
    if not isinstance(found, Mapping):
        return False
    parts = [found.get(name, {}) for name in ("aliases", "mappings", "settings")]
    if not all(isinstance(part, Mapping) for part in parts):
        return False
    index = parts[-1].get("index")
    return isinstance(index, Mapping) and isinstance(index.get("uuid"), str)


def _is_search(body: Any) -> bool:
    hits = body.get("hits") if isinstance(body, Mapping) else None
    found = hits.get("hits") if isinstance(hits, Mapping) else None
    return isinstance(found, list) and isinstance(body.get("_shards", {}), Mapping) and _is_list(found, "_id")


def _is_list(entries: Any, *keys: str) -> bool:
    """Return whether this is a list of objects that have one of these keys."""
    if not isinstance(entries, list):
        return False
    return not entries or (isinstance(entries[0], Mapping) and any(key in entries[0] for key in keys))


def _is_msearch(body: Mapping[str, Any]) -> bool:
    parts = body.get("responses")
    if not isinstance(parts, list) or len(parts) != 3:
        return False
    return all(isinstance(part, Mapping) and ("error" in part or _is_search(part)) for part in parts)


def _is_node_list(body: Mapping[str, Any]) -> bool:
    nodes = body.get("nodes", {})
    return isinstance(nodes, Mapping) and all(isinstance(node, Mapping) for node in nodes.values())


_FORMS: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], bool]] = {
    ("GET", "_local"): _is_node_list,
    ("GET", "process"): _is_node_list,
    ("GET", "_mapping"): lambda body: all(_is_list([found], "mappings") for found in body.values()),
    ("POST", "_bulk"): lambda body: "errors" in body and isinstance(body.get("items", []), list),
    ("POST", "_count"): lambda body: isinstance(body.get("count"), int),
    ("POST", "_mget"): lambda body: _is_list(body.get("docs"), "found", "error"),
    ("POST", "_msearch"): _is_msearch,
    ("POST", "_pit"): lambda body: isinstance(body.get("id"), str),
    ("DELETE", "_pit"): lambda body: "succeeded" in body,
    ("POST", "_refresh"): lambda body: isinstance(body.get("_shards"), Mapping),
    ("POST", "_search"): _is_search,
}
"""Requests by their method and the last part of their path; any other but a GET is acknowledged."""
