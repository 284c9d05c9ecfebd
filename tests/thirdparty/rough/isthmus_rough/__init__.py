"""A backend that judges badly on purpose: an example for authors, and a test of the core's planning.

It grades leaves EXACT, SUPERSET or NONE as a hash falls, answers SUPERSET leaves with false
matches, leaves some records aside to be judged by the core, and orders and aggregates only now and
then. Whatever it does not do, the core does; so the whole suite must pass all the same.
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
