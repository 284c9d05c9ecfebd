"""The files backend: what lies in a folder or under an S3 prefix, as one read-only collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.registry import Plugin
from isthmus.backends.files.support import CAPABILITIES

if TYPE_CHECKING:
    from isthmus.backends.files.backend import FilesBackend
    from isthmus.backends.files.config import FilesConfig


def _config() -> type[FilesConfig]:
    from isthmus.backends.files.config import FilesConfig

    return FilesConfig


def _build(config: FilesConfig) -> FilesBackend:
    from isthmus.backends.files.backend import FilesBackend

    return FilesBackend(config)


plugin = Plugin(
    name="files",
    aliases=("file",),
    schemes=("files", "file"),
    config=_config,
    build=_build,
    capabilities=CAPABILITIES,
    extra="files",
)
