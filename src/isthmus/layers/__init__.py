"""The layers around a backend, one file each; `LayerOrder` says where each one stands and why.

Configured by a preset (`resilience="service"`), by name
(`layers={"retry": True, "limit": {"max_in_flight": 32}}`), or with a `Layer` of one's own
(`layers={"mine": MyLayer()}`). A layer that is not configured does not exist and costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.stack import Layer
from isthmus._suggest import suggest
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "none": {},
    # A response or an error soon: a user is waiting.
    "service": {
        "metrics": {},
        "deadline": {"seconds": 10.0},
        "retry": {"attempts": 3, "base": 0.05, "cap": 1.0},
        "breaker": {"failures": 5, "open_seconds": 1.0},
        "limit": {"max_in_flight": 64, "max_wait": 1.0},
    },
    # Patience: a job that survives a restart of the store is worth more than an early error.
    "batch": {
        "metrics": {},
        "retry": {"attempts": 10, "base": 0.1, "cap": 10.0, "share": 0.1, "reserve": 100.0},
    },
}
_CLASSES = {
    "trace": "Trace",
    "metrics": "Metrics",
    "deadline": "Deadline",
    "retry": "Retry",
    "failover": "Failover",
    "breaker": "Breaker",
    "limit": "Limit",
    "attempt_timeout": "AttemptTimeout",
}
# The setting that a bare value stands for: `{"deadline": 5.0}`.
_SHORT = {
    "deadline": "seconds",
    "attempt_timeout": "seconds",
    "limit": "max_in_flight",
    "retry": "attempts",
    "trace": "spans",
    "failover": "replicas",
}
_NEEDED = {"trace": "spans", "failover": "replicas"}
# The minimum of whole numbers; the other settings are seconds or shares, greater than 0.
_LEAST = {"attempts": 1, "failures": 1, "max_in_flight": 1, "max_waiting": 0, "reserve": 0}


def from_config(
    config: BackendConfig, clock: Clock = SYSTEM_CLOCK, shared: dict[str, Layer] | None = None
) -> list[Layer]:
    """Return the layers that a config names; their modules are imported now and not before.

    `shared` keeps layers by name and settings: handles derived from one another share a budget, a
    breaker and metrics where their settings are equal. Raises `ConfigError` that names the setting.
    """
    layers: list[Layer] = []
    for name, settings in layer_settings(config).items():
        if isinstance(settings, Layer):
            layers.append(settings)
            continue
        key = f"{name} {sorted(settings.items(), key=lambda item: item[0])!r}"
        layer = None if shared is None else shared.get(key)
        if layer is None:
            layer = _build(name, settings, config, clock)
            if shared is not None:
                shared[key] = layer
        layers.append(layer)
    return layers


def layer_settings(config: BackendConfig) -> dict[str, Layer | dict[str, Any]]:
    """Return the settings of each layer: the preset's, changed by `layers`, and by `deadline`."""
    preset = config.resilience or "none"
    if preset not in PRESETS:
        raise ConfigError(f"{config.backend}.resilience: unknown preset {preset!r}{suggest(preset, PRESETS)}")
    result: dict[str, Layer | dict[str, Any]] = {
        name: dict(settings) for name, settings in PRESETS[preset].items()
    }
    for name, given in config.layers.items():
        if isinstance(given, Layer):
            result[name] = given
            continue
        where = f"{config.backend}.layers.{name}"
        if name not in _CLASSES:
            raise ConfigError(f"{config.backend}.layers: unknown layer {name!r}{suggest(name, _CLASSES)}")
        if isinstance(given, str):  # from a URL
            given = {"true": True, "false": False}.get(given.lower(), given)
        if given is False:
            result.pop(name, None)
            continue
        before = result.get(name)
        result[name] = {**(before if isinstance(before, dict) else {}), **_settings(name, given, where)}
    if config.deadline is not None:
        result["deadline"] = {"seconds": config.deadline}
    return result


def _settings(name: str, given: Any, where: str) -> dict[str, Any]:
    short = _SHORT.get(name)
    if isinstance(given, Mapping):
        settings = dict(given)
    elif given is True or given is None:
        settings = {}
    elif short is not None:
        settings = {short: given}
    else:
        raise ConfigError(f"{where}: is True, False or a mapping of settings, got {type(given).__name__}")
    needed = _NEEDED.get(name)
    if needed is not None and needed not in settings:
        raise ConfigError(f"{where}: needs {needed!r}")
    return settings


def _build(name: str, settings: dict[str, Any], config: BackendConfig, clock: Clock) -> Layer:
    import inspect  # costs more to import than all of this

    where = f"{config.backend}.layers.{name}"
    kind = getattr(importlib.import_module(f"isthmus.layers.{name}"), _CLASSES[name])
    known = inspect.signature(kind).parameters
    offered = [key for key in known if key not in ("clock", "random", "backend")]
    for key, value in settings.items():
        if key not in offered:
            raise ConfigError(f"{where}: unknown setting {key!r}{suggest(key, offered)}")
        settings[key] = _check_setting(f"{where}.{key}", key, value, known[key].default)
    if "clock" in known:
        settings["clock"] = clock
    if "backend" in known:
        settings["backend"] = config.backend
    if name == "failover":
        settings["replicas"] = [_replica(config, url, where) for url in settings["replicas"]]
    return kind(**settings)  # type: ignore[no-any-return]


def _check_setting(where: str, key: str, value: Any, default: Any) -> Any:
    """Return a setting with the type of its default; text from a URL is read as a number."""
    if key == "jitter":
        if value not in ("decorrelated", "full"):
            raise ConfigError(f"{where}: is 'decorrelated' or 'full'")
        return value
    if key == "replicas":
        urls = list(value) if isinstance(value, (list, tuple)) else [value]
        if not urls or not all(isinstance(url, str) or hasattr(url, "get_secret_value") for url in urls):
            raise ConfigError(f"{where}: is a list of URLs")
        return urls
    if not isinstance(default, (int, float)):
        if not callable(value):
            raise ConfigError(f"{where}: is a function, got {type(value).__name__}")
        return value
    kind = type(default)
    number = _number(value, kind)
    if number is None:
        raise ConfigError(f"{where}: is {'a whole number' if kind is int else 'a number'}")
    least = _LEAST.get(key)
    if not (number > 0 if least is None else number >= least) or number == float("inf"):
        raise ConfigError(f"{where}: must be {'more than 0' if least is None else f'at least {least}'}")
    return number


def _number(value: Any, kind: type[int] | type[float]) -> float | None:
    """Return a number of a type, None if it is none; a URL's settings are text."""
    if isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return None if kind is int and not isinstance(value, int) else kind(value)


def _replica(config: BackendConfig, url: Any, where: str) -> Callable[[], Any]:
    from isthmus._core.registry import plugin

    chosen_plugin = plugin(config.backend)
    settings: dict[str, Any] = {"url": url}
    if "create_table" in type(config).model_fields:
        settings["create_table"] = "never"  # a replica is written by its primary alone
    try:
        loaded = type(config).load(settings, environ={})
    except ConfigError as error:
        raise ConfigError(f"{where}.replicas: {error}") from None
    return lambda: chosen_plugin.build(loaded)
