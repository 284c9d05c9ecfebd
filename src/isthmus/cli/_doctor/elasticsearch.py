"""Checks of an Elasticsearch cluster and index."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from isthmus.cli._doctor.finding import Finding, check_clock, cleartext_problem, ok, problem, warning

if TYPE_CHECKING:
    from isthmus import AsyncDatabase
    from isthmus.backends.elasticsearch.client import ClientPool
    from isthmus.backends.elasticsearch.config import ElasticsearchConfig

_MAX_SKEW = 5.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_config(config: ElasticsearchConfig) -> Iterator[Finding]:
    """Check the settings, without connecting."""
    plain = [h for h in config.hosts if h.startswith("http://") and urlsplit(h).hostname not in _LOOPBACK]
    if plain:
        yield cleartext_problem(
            plain[0], "use https:// (URL es+https://), with ca= for an authority of your own"
        )
    elif not config.verify_certs:
        yield problem(
            "tls",
            "verify_certs is off: an impostor would not be noticed",
            "leave verify_certs out, and set ca= or ssl_assert_fingerprint=",
        )
    else:
        https = any(h.startswith("https") for h in config.hosts)
        yield ok("tls", "verified" if https else "loopback only")
    if config.consistency == "eventual":
        yield warning(
            "consistency",
            "consistency=eventual: a search may miss this process's own last writes",
            "leave consistency out unless that is intended",
        )


async def check_server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check the cluster and the index."""
    backend: Any = db._backend
    pool: ClientPool = await backend._pool()
    start = time.time()
    # Not GET /, which is a module of its own that small installations leave out.
    path = "/_nodes/_local?filter_path=nodes.*.version,nodes.*.jvm.timestamp"
    _, body = await _get(pool, path, "look at the node")
    (node,) = body["nodes"].values()
    version = node["version"]
    yield ok("connection", f"Elasticsearch {version}, answered in {(time.time() - start) * 1e3:.0f} ms")
    if tuple(int(part) for part in version.split(".")[:2]) < (8, 15):
        yield problem("version", f"{version} is too old", "upgrade the cluster to 8.15 or newer")
    else:
        yield ok("version", version)
    start = time.time()
    # The statistics of a node carry its time.
    path = "/_nodes/_local/stats/process?filter_path=nodes.*.timestamp"
    _, body = await _get(pool, path, "look at the node's clock")
    (node,) = body["nodes"].values()
    yield check_clock(node["timestamp"] / 1e3 - (start + time.time()) / 2, _MAX_SKEW)
    async for finding in _check_index(pool, quote(db.collection_name, safe="")):
        yield finding


async def _get(pool: ClientPool, path: str, action: str) -> tuple[int, Any]:
    """Return status and body of a GET whose answer may be 404."""
    status, body = await pool.call("GET", path, action=action, expected=frozenset({200, 404}))
    return status, body


async def _check_index(pool: ClientPool, name: str) -> AsyncIterator[Finding]:
    status, found = await _get(pool, f"/{name}", f"look at {name}")
    if status == 404:
        return
    _, health = await _get(pool, f"/_cluster/health/{name}", f"look at the health of {name}")
    if health["status"] == "red":
        yield problem(
            "health",
            f"{health['unassigned_shards']} shards of {name} are missing: results lack records",
            "GET /_cluster/allocation/explain tells why; bring the lost node back or restore a snapshot",
        )
    elif health["status"] == "yellow":
        yield warning(
            "health",
            f"{health['unassigned_shards']} copies have no node: losing one node loses data",
            "add a node, or set replicas=0 if one copy is enough",
        )
    else:
        yield ok("health", "green")
    (index,) = found.values()
    settings = index["settings"]["index"]
    for block, value in settings.get("blocks", {}).items():
        if str(value) == "true":
            yield _explain_block(name, block)
    if str(settings.get("refresh_interval", "")) == "-1":
        yield warning(
            "refresh",
            "refresh_interval is -1: other handles never see new records",
            f'PUT /{name}/_settings {{"index.refresh_interval": null}}',
        )
    for finding in _check_mapping(name, index["mappings"], settings):
        yield finding


def _explain_block(name: str, block: str) -> Finding:
    seen = f"index.blocks.{block} is set: writes are refused"
    fix = f'PUT /{name}/_settings {{"index.blocks.{block}": null}}'
    if block == "read_only_allow_delete":
        return problem("disk", seen, f"free space below the flood watermark (90 %), then {fix}")
    return problem("writable", seen, fix)


def _check_mapping(name: str, mappings: Any, settings: Any) -> Iterator[Finding]:
    if "isthmus" not in mappings.get("_meta", {}):
        yield problem(
            "mapping",
            f"{name} was not created by isthmus: results could be inexact",
            "copy it into an index created by isthmus, or name another one with -c",
        )
        return
    count = _count_fields(mappings.get("properties", {}))
    limit = int(settings.get("mapping", {}).get("total_fields", {}).get("limit", 1000))
    if count > 0.9 * limit:
        yield warning(
            "mapping",
            f"{count} of {limit} fields are mapped: filters on further fields run client-side",
            "raise field_limit, or keep arbitrary keys in one object",
        )
    else:
        yield ok("mapping", f"created by isthmus, {count} of {limit} fields")


def _count_fields(properties: dict[str, Any]) -> int:
    return sum(1 + _count_fields(field.get("properties", {})) for field in properties.values())
