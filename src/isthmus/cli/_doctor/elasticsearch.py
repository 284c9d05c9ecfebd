"""Checks of an Elasticsearch cluster and index."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from isthmus.cli._doctor.finding import Finding, ok, warning, wrong

if TYPE_CHECKING:
    from isthmus import AsyncDatabase

_SKEW = 5.0
_FOUND = frozenset({200, 404})
_LOCAL = ("localhost", "127.0.0.1", "::1")


def config(config: Any) -> Iterator[Finding]:
    """Check what can be seen without a connection."""
    plain = [h for h in config.hosts if h.startswith("http://") and urlsplit(h).hostname not in _LOCAL]
    if plain:
        yield wrong(
            "tls",
            f"{plain[0]}: passwords and data go readable for all on the way",
            "use https:// (URL es+https://), with ca= if the authority is your own",
        )
    elif not config.verify_certs:
        yield wrong(
            "tls",
            "verify_certs is off: an impostor would not be noticed",
            "leave verify_certs out, and give ca= or ssl_assert_fingerprint=",
        )
    else:
        yield ok(
            "tls", "verified" if any(h.startswith("https") for h in config.hosts) else "not off this machine"
        )
    if config.consistency == "eventual":
        yield warning(
            "consistency",
            "consistency=eventual: a search may miss this process's own last writes",
            "leave consistency out unless that is wanted",
        )


async def server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check the cluster and the index."""
    backend: Any = db._backend
    pool = await backend._pool()
    start = time.time()
    # Not GET /: that is a module of its own, which small installations leave out.
    path = "/_nodes/_local?filter_path=nodes.*.version,nodes.*.jvm.timestamp"
    _, body = await pool.call("GET", path, doing="look at the node", told=_FOUND)
    (node,) = body["nodes"].values()
    version = node["version"]
    yield ok("connection", f"Elasticsearch {version}, answered in {(time.time() - start) * 1e3:.0f} ms")
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < (8, 15):
        yield wrong("version", f"{version} is too old", "upgrade the cluster to 8.15 or newer")
    else:
        yield ok("version", version)
    async for finding in _clock(pool):
        yield finding
    async for finding in _index(pool, quote(db.collection_name, safe="")):
        yield finding


async def _clock(pool: Any) -> AsyncIterator[Finding]:
    """Compare clocks by the node's own statistics, which carry its time."""
    before = time.time()
    path = "/_nodes/_local/stats/process?filter_path=nodes.*.timestamp"
    _, body = await pool.call("GET", path, doing="look at the node's clock", told=_FOUND)
    (node,) = body["nodes"].values()
    skew = node["timestamp"] / 1e3 - (before + time.time()) / 2
    if abs(skew) > _SKEW:
        yield wrong(
            "clock",
            f"the server's clock differs by {skew:+.0f} s",
            "let both follow a time server (chronyd, systemd-timesyncd)",
        )
    else:
        yield ok("clock", f"{skew:+.2f} s")


async def _index(pool: Any, name: str) -> AsyncIterator[Finding]:
    status, found = await pool.call("GET", f"/{name}", doing=f"look at {name}", told=_FOUND)
    if status == 404:
        return
    path = f"/_cluster/health/{name}"
    _, health = await pool.call("GET", path, doing=f"look at the health of {name}", told=_FOUND)
    if health["status"] == "red":
        yield wrong(
            "health",
            f"{health['unassigned_shards']} shards of {name} are not there: answers lack records",
            "GET /_cluster/allocation/explain says why; bring the lost node back or restore a snapshot",
        )
    elif health["status"] == "yellow":
        yield warning(
            "health",
            f"{health['unassigned_shards']} copies have no node: one lost node loses data",
            "add a node, or set replicas=0 if one copy is enough",
        )
    else:
        yield ok("health", "green")
    (index,) = found.values()
    settings = index["settings"]["index"]
    for block, value in settings.get("blocks", {}).items():
        if str(value) == "true":
            mend = f'PUT /{name}/_settings {{"index.blocks.{block}": null}}'
            if block == "read_only_allow_delete":
                mend = "free space below the flood watermark (90 %), then " + mend
            yield wrong(
                "disk" if block == "read_only_allow_delete" else "writable",
                f"index.blocks.{block} is set: writes are refused",
                mend,
            )
    if str(settings.get("refresh_interval", "")) == "-1":
        yield warning(
            "refresh",
            "refresh_interval is -1: other handles never see new records",
            f'PUT /{name}/_settings {{"index.refresh_interval": null}}',
        )
    for finding in _mapping(name, index, settings):
        yield finding


def _mapping(name: str, index: Any, settings: Any) -> Iterator[Finding]:
    mappings = index["mappings"]
    if "isthmus" not in mappings.get("_meta", {}):
        yield wrong(
            "mapping",
            f"{name} was not made by isthmus: answers could not be exact",
            "copy it into an index of ours, or name another one with -c",
        )
        return
    count = _fields(mappings.get("properties", {}))
    limit = int(settings.get("mapping", {}).get("total_fields", {}).get("limit", 1000))
    if count > 0.9 * limit:
        yield warning(
            "mapping",
            f"{count} of {limit} fields are mapped: filters on further ones run here",
            "raise field_limit, or keep free keys in one object",
        )
    else:
        yield ok("mapping", f"ours, {count} of {limit} fields")


def _fields(properties: dict[str, Any]) -> int:
    return sum(1 + _fields(part.get("properties", {})) for part in properties.values())
