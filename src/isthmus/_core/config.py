"""Config: one frozen model per backend, from arguments, a URL, the environment and defaults.

Importing this module loads pydantic; `isthmus` imports it on first use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, SecretStr, ValidationError

from isthmus._suggest import suggest
from isthmus.errors import ConfigError

__all__ = ["BackendConfig", "ConfigGroup", "SecretStr", "parse_url", "split_query"]


class ConfigGroup(BaseModel):
    """A group of settings; frozen, unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )


def _hide_urls(given: Any) -> Any:
    """Return settings of layers with every URL (a replica's, with its password) as a secret."""
    if isinstance(given, Mapping):
        return {key: _hide_urls(value) for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return [_hide_urls(value) for value in given]
    return SecretStr(given) if isinstance(given, str) and "://" in given else given


class BackendConfig(ConfigGroup):
    """The settings of every backend.

    Subclasses set `backend`, add their fields, and override `schemes_of` and `from_url` for URLs,
    `spellings` for aliases and `from_environment` for variables. Precedence: argument > URL >
    environment > default.
    """

    backend: ClassVar[str]
    spellings: ClassVar[Mapping[str, str]] = {}
    """Aliases of settings: `{"dsn": "url", "min_connections": "pool.min_size"}`."""

    deadline: float | None = None
    """The time limit of one call in seconds, retries included."""
    resilience: str | None = None
    """`service`, `batch` or `none`: a preset of the layers below."""
    layers: Annotated[dict[str, Any], BeforeValidator(_hide_urls)] = {}
    """Layers by name with their settings, such as `{"retry": True}`; on top of the preset."""
    cursor_secret: SecretStr | None = None
    """The key that signs cursors, so that a client cannot forge one."""
    sort_cap: int = 1_000_000
    """The maximum number of records held to sort client-side what the store cannot sort."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def collection_setting(cls) -> str | None:
        """Return the name of the setting that names the default collection, None if there is none."""
        return next((name for name in ("table", "index", "prefix") if name in cls.model_fields), None)

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for a URL; `options` are its query's, nested by dots, to be merged in."""
        raise NotImplementedError

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
        """Return settings with their variables' names: `{"pool.max_size": (20, "POOL_MAX")}`."""
        return {}

    @classmethod
    def load(
        cls,
        given: Mapping[str, Any] | BackendConfig | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the config for the given settings; `url` among them is parsed.

        Raises `ConfigError` that names the key, what is wrong, and the nearest known key.
        """
        if isinstance(given, BackendConfig):
            if not isinstance(given, cls):
                raise ConfigError(f"{cls.backend}: got a {type(given).__name__}")
            return given
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"{cls.backend}: config must be a mapping, got {type(given).__name__}")
        explicit = cls._rename_aliases(dict(given or {}))
        url = explicit.pop("url", None)
        layers: list[tuple[dict[str, Any], str]] = []
        for key, (value, variable) in cls.from_environment(
            os.environ if environ is None else environ
        ).items():
            layers.append((_nest(key, value), f"environment {variable}"))
        if url is not None:
            parts, options = parse_url(url)
            if cls.schemes_of() and parts.scheme not in cls.schemes_of():
                raise ConfigError(
                    f"{cls.backend}: a URL starts with {' or '.join(s + '://' for s in cls.schemes_of())},"
                    f" not {parts.scheme}://"
                )
            from_url = cls._rename_aliases(cls.from_url(parts, options))
            # The URL is the whole address: no part of it comes from another source.
            layers.append((from_url, "url"))
        layers.append((explicit, "argument"))
        merged: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for settings, origin in layers:
            _merge(merged, settings, origins, origin)
        cls._check_keys(merged)
        problem = ""
        try:
            config = cls.model_validate(merged)
        except ValidationError as error:
            problem = _describe_problems(cls.backend, error)
        if problem:
            # Outside the except block: pydantic's error holds the input, secrets included, and would stay
            # reachable as this error's context.
            raise ConfigError(problem)
        config._origins.update(origins)
        return config

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return the URL schemes of this backend."""
        return ()

    def explain(self) -> dict[str, tuple[Any, str]]:
        """Return each setting with its origin: argument, url, environment or default; secrets are masked."""
        explained: dict[str, tuple[Any, str]] = {}
        _explain(self, "", self._origins, explained)
        return explained

    @classmethod
    def _rename_aliases(cls, settings: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in settings.items():
            target = cls.spellings.get(key, key) if isinstance(key, str) else key
            if not isinstance(target, str):
                raise ConfigError(f"{cls.backend}: config keys must be text, got {key!r}")
            if isinstance(value, Mapping):
                value = dict(value)
            if target != key and target in settings:
                raise ConfigError(
                    f"{cls.backend}: {key!r} and {target!r} are two names of one setting; give one"
                )
            _merge(result, _nest(target, value), {}, "")
        return result

    @classmethod
    def _check_keys(cls, settings: dict[str, Any]) -> None:
        _check_keys(cls, settings, cls.backend, cls.spellings)


def _check_keys(
    model: type[BaseModel], settings: dict[str, Any], where: str, spellings: Mapping[str, str]
) -> None:
    for key, value in settings.items():
        known = model.model_fields
        if key not in known:
            names = [*known, *spellings]
            raise ConfigError(f"{where}: unknown setting {key!r}{suggest(key, sorted(names))}")
        part = known[key].annotation
        if isinstance(value, dict) and isinstance(part, type) and issubclass(part, BaseModel):
            _check_keys(part, value, f"{where}.{key}", {})


def _explain(
    model: BaseModel, prefix: str, origins: dict[str, str], explained: dict[str, tuple[Any, str]]
) -> None:
    for name in type(model).model_fields:
        value = getattr(model, name)
        key = prefix + name
        if isinstance(value, BaseModel):
            _explain(value, key + ".", origins, explained)
        else:
            explained[key] = (value, origins.get(key, "default"))


def _nest(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nest(rest, value)} if rest else {first: value}


def _merge(into: dict[str, Any], settings: Mapping[str, Any], origins: dict[str, str], origin: str) -> None:
    def step(target: dict[str, Any], source: Mapping[str, Any], prefix: str) -> None:
        for key, value in source.items():
            if isinstance(value, dict) and isinstance(target.get(key, {}), dict):
                step(target.setdefault(key, {}), value, f"{prefix}{key}.")
            else:
                target[key] = value
                origins[f"{prefix}{key}"] = origin

    step(into, settings, "")


def _describe_problems(backend: str, error: ValidationError) -> str:
    problems = (
        f"{'.'.join(str(part) for part in problem['loc']) or 'config'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )
    return f"{backend}: " + "; ".join(problems)


def parse_url(url: Any) -> tuple[SplitResult, dict[str, Any]]:
    """Return a URL's parts and its query as nested settings; the URL is never repeated in an error."""
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    if not isinstance(text, str):
        raise ConfigError(f"url: must be text, got {type(url).__name__}")
    try:
        # None of our URLs has a fragment: a # belongs to a file's name or to a key.
        parts = urlsplit(text, allow_fragments=False)
        _ = parts.username, parts.password
    except ValueError as error:
        raise ConfigError(
            f"url: {str(error).split(':')[0]} (the URL is not shown: it may hold a secret)"
        ) from None
    if not parts.scheme:
        raise ConfigError("url: has no scheme such as postgres:// (it is not shown: it may hold a secret)")
    return parts, split_query(parts.query)


def split_query(query: str) -> dict[str, Any]:
    """Return `a=1&pool.max_size=20` as `{"a": "1", "pool": {"max_size": "20"}}`; pydantic makes numbers."""
    options: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=200)
    except ValueError:
        raise ConfigError("url: the part after '?' is not of the form key=value&key=value") from None
    for key, value in pairs:
        _merge(options, _nest(key, value), {}, "")
    return options


def text_part(value: str | None) -> str | None:
    """Return a URL part without its percent escapes."""
    return None if value is None else unquote(value)
