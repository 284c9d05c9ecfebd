"""The memory backend: records in a dict, and the evaluator."""

from __future__ import annotations

from typing import Any

from isthmus._core.registry import Plugin
from isthmus.backends.memory.backend import MemoryBackend
from isthmus.backends.memory.executor import CAPABILITIES


def _config() -> Any:
    from isthmus.backends.memory.config import MemoryConfig

    return MemoryConfig


plugin = Plugin(
    name="memory",
    aliases=("mem",),
    schemes=("memory", "mem"),
    config=_config,
    build=MemoryBackend,
    capabilities=CAPABILITIES,
)
