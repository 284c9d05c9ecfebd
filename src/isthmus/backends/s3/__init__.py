"""The S3 backend: records as objects (`layout="object"`) or as a log of batches (`layout="log"`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus._core.registry import Plugin
from isthmus.backends.s3.layout import OBJECT

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig
    from isthmus._core.executor import Backend


def _config() -> type[BackendConfig]:
    from isthmus.backends.s3.config import S3Config

    return S3Config


def _build(config: Any) -> Backend:
    from isthmus.backends.s3.backend import S3Backend

    return S3Backend(config)


plugin = Plugin(name="s3", config=_config, build=_build, capabilities=OBJECT, schemes=("s3",), extra="s3")
