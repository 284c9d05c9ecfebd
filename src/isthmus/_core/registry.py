"""The registry of backends: built-in ones by name, others by entry point (`isthmus.backends`)."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._core.capabilities import Capabilities
from isthmus._suggest import suggest
from isthmus._value import Value
from isthmus.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig
    from isthmus._core.executor import Backend


class Plugin(Value):
    """A backend's description, its module's `plugin`; created without importing a driver."""

    name: str
    config: Callable[[], type[BackendConfig]]
    """Returns the config class, importing it then."""
    build: Callable[[Any], Backend]
    """Returns a backend for a config, without I/O."""
    capabilities: Capabilities
    """The capabilities with the default config."""
    schemes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    extra: str | None = None
    """The extra to install if a driver is missing."""


# Name, or other name or URL scheme, to module. Known without importlib.metadata, which is slow.
_BUILTIN = {
    "memory": "memory",
    "mem": "memory",
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "postgres": "postgres",
    "postgresql": "postgres",
    "pg": "postgres",
    "elasticsearch": "elasticsearch",
    "es": "elasticsearch",
    "es+http": "elasticsearch",
    "es+https": "elasticsearch",
    "s3": "s3",
    "sqlalchemy": "sqlalchemy",
    "files": "files",
    "file": "files",
    "files+s3": "files",
}
# Anything else that is given as a name may hold a secret.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]{0,40}")
BACKENDS = ("memory", "sqlite", "postgres", "elasticsearch", "s3", "sqlalchemy", "files")


def plugin(name: str) -> Plugin:
    """Return the backend with a name, an alias or a URL scheme.

    Raises `ConfigError` with the nearest known name, `MissingExtraError` if a driver is missing.
    """
    if not isinstance(name, str):
        raise ConfigError(f"a backend is named by text such as 'postgres', got {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "a backend is named by a word such as 'postgres'; for a URL use open() (the name is not shown:"
            " it may hold a secret)"
        )
    # postgresql+asyncpg:// is SQLAlchemy's way to name the driver.
    base = name.lower().partition("+")[0]
    module = _BUILTIN.get(base if base in ("postgres", "postgresql") else name.lower())
    if module is not None:
        found: Plugin = _import(f"isthmus.backends.{module}").plugin
        return found
    if name.lower().startswith("sqlalchemy+"):  # sqlalchemy+mysql+asyncmy://…
        found = _import("isthmus.backends.sqlalchemy").plugin
        return found
    others = _entry_points()
    for other in others.values():
        if name == other.name or name in other.schemes or name in other.aliases:
            return other
    known = [*BACKENDS, *others]
    raise ConfigError(f"unknown backend {name!r}{suggest(name, known)}")


@functools.cache
def _entry_points() -> dict[str, Plugin]:
    from importlib.metadata import entry_points

    found = {}
    for point in entry_points(group="isthmus.backends"):
        if point.name not in BACKENDS:
            loaded = point.load()
            found[point.name] = loaded if isinstance(loaded, Plugin) else loaded.plugin
    return found


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends, including those of other packages."""
    return (*BACKENDS, *_entry_points())


def select_config(
    chosen: Plugin, config: Mapping[str, Any] | BackendConfig | None
) -> Mapping[str, Any] | BackendConfig | None:
    """Return the part for one backend of a config that is keyed by backend names, else the config itself."""
    if not isinstance(config, Mapping) or not all(isinstance(part, Mapping) for part in config.values()):
        return config
    names = (chosen.name, *chosen.aliases)
    mine = next((name for name in names if name in config), None)
    if mine is None or not all(key in names or _is_backend(key) for key in config):
        return config
    part: Mapping[str, Any] = config[mine]
    return part


def _is_backend(name: str) -> bool:
    try:
        plugin(name)
    except ConfigError:
        return False
    return True


def _import(module: str) -> Any:
    return importlib.import_module(module)


def import_driver(module: str, *, extra: str) -> Any:
    """Import a driver; raises `MissingExtraError` that says what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this backend needs {error.name}: pip install 'isthmus[{extra}]'", extra=extra
        ) from None
