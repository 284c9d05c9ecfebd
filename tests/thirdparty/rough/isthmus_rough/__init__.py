"""A backend that pushes down badly on purpose: an example for authors, and a test of the planner.

It declares leaves EXACT, SUPERSET or NONE by a hash, returns false matches for SUPERSET leaves,
returns some records as recheck candidates, and orders and aggregates only sometimes. The core does
the rest, so the whole suite must pass all the same.
"""

from __future__ import annotations

from typing import Any

from isthmus.spi import Capabilities, Plugin


def _config() -> Any:
    from isthmus_rough.config import RoughConfig

    return RoughConfig


def _build(config: Any) -> Any:
    from isthmus_rough.backend import RoughBackend

    return RoughBackend(config)


plugin = Plugin(
    name="rough",
    schemes=("rough",),
    config=_config,
    build=_build,
    capabilities=Capabilities(conditional_create=True, compare_and_set=True),
)
