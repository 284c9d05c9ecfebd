"""Elasticsearch 8.15 and later: an index with natural field names, and exact answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.capabilities import Capabilities
from isthmus._core.registry import Plugin

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig
    from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
    from isthmus.backends.elasticsearch.config import ElasticsearchConfig

CAPABILITIES = Capabilities(
    durable=True,
    conditional_create=True,
    compare_and_set=True,
    consistent_stream=True,
    relevance=True,
    vectors=True,
    drop=True,
    max_record_bytes=32 * 2**20,
)


def _config() -> type[BackendConfig]:
    from isthmus.backends.elasticsearch.config import ElasticsearchConfig

    return ElasticsearchConfig


def _build(config: ElasticsearchConfig) -> ElasticsearchBackend:
    from isthmus.backends.elasticsearch.backend import ElasticsearchBackend

    return ElasticsearchBackend(config)


plugin = Plugin(
    name="elasticsearch",
    config=_config,
    build=_build,
    capabilities=CAPABILITIES,
    schemes=("es+http", "es+https", "elasticsearch"),
    aliases=("es",),
    extra="elasticsearch",
)
