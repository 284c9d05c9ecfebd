"""Elasticsearch 8.15 and later: an index with natural field names, searched exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.registry import Plugin
from isthmus.backends.elasticsearch.capabilities import CAPABILITIES

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig
    from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
    from isthmus.backends.elasticsearch.config import ElasticsearchConfig


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
