"""Config: one frozen model per backend, from arguments, a URL, the environment and defaults.

Importing this module loads pydantic; `isthmus` imports it on first use.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin
from urllib.parse import SplitResult

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from isthmus._arguments import shorten
from isthmus._core.changes import KEEP_SECONDS, no_changes
from isthmus._core.columns import KINDS, describe_kind
from isthmus._core.url import merge, nest, parse_url, split_query, text_part
from isthmus._path import is_encodable
from isthmus._suggest import suggest_nearest
from isthmus.errors import ConfigError, UnsupportedError

__all__ = ["BackendConfig", "ConfigGroup", "SecretStr", "parse_url", "split_query", "text_part"]


class ConfigGroup(BaseModel):
    """A group of settings; frozen, unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        populate_by_name=True,
    )

    @field_validator("*")
    @classmethod
    def _refuse_surrogates(cls, value: Any) -> Any:
        # Encoding such a secret raises a UnicodeEncodeError, which holds it.
        if isinstance(value, SecretStr) and not is_encodable(value.get_secret_value()):
            raise ValueError("it is not UTF-8: it has a lone surrogate or, in a variable, other bytes")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes True as 1: a deadline of one second.
        annotation = cls.model_fields[str(info.field_name)].annotation
        accepted = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and bool not in accepted and accepted & {int, float}:
            raise ValueError(f"a number is expected, got {value}")
        return value


class UniqueSettings(ConfigGroup):
    """The unique fields of a collection."""

    unique: tuple[tuple[str, ...], ...] = ()
    """Fields whose values no two records share: `["email"]`; several together: `[["tenant", "email"]]`."""

    @field_validator("unique", mode="before")
    @classmethod
    def _groups(cls, value: Any) -> Any:
        groups = (value,) if isinstance(value, str) else value
        if not isinstance(groups, list | tuple):
            return groups
        return tuple((group,) if isinstance(group, str) else group for group in groups)


class ColumnSettings(ConfigGroup):
    """The declared columns of a collection."""

    columns: Literal["model"] | dict[str, Literal["number", "text", "bool"]] = Field(default={})
    """Fields with a typed column: `{"population": "number", "at": "text"}`; `model`: all of its model."""

    @field_validator("columns", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        if isinstance(value, list | tuple | set) or (isinstance(value, str) and value != "model"):
            names = [value] if isinstance(value, str) else list(value)
            shown = ", ".join(f'"{name}": "number"' for name in names)
            raise ValueError(f"columns have kinds (number, text or bool): write {{{shown}}}")
        if not isinstance(value, Mapping):
            return value
        kinds = _join_keys(value)
        for name, kind in kinds.items():
            if kind not in KINDS:
                raise ValueError(describe_kind(name, kind))
        return kinds


def _join_keys(value: Mapping[Any, Any], prefix: str = "") -> dict[Any, Any]:
    """Return nested mappings, as a URL makes of `columns.address.city=text`, with dotted keys."""
    flat: dict[Any, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}" if isinstance(key, str) else key
        flat |= _join_keys(inner, f"{name}.") if isinstance(inner, Mapping) else {name: inner}
    return flat


def _in_seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, dt.timedelta) else value


class ChangesSettings(ConfigGroup):
    """Whether changes are kept, and for how long."""

    changes: bool = False
    """Keep the changes of a collection that is made by this handle, for `changes()`."""
    changes_keep: Annotated[float, BeforeValidator(_in_seconds), Field(gt=0, allow_inf_nan=False)] = (
        KEEP_SECONDS
    )
    """How long changes are kept, in seconds or as a timedelta; 7 days."""


class UniqueFields(UniqueSettings):
    """The unique fields of the default collection and of others."""

    collections: dict[str, UniqueSettings] = {}
    """Unique fields of collections other than the default one."""

    def unique_fields(self, default: str) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Return the declared unique fields of each collection; `default` is the default one's name."""
        others = {name: settings.unique for name, settings in self.collections.items()}
        return {**others, default: self.unique}


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
    credentials: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """The kinds of credentials, each with its settings: one kind replaces those of a weaker source."""
    local: ClassVar[frozenset[str]] = frozenset()
    """Settings that are objects of this process, which cannot be sent to the workers of a partition."""

    deadline: float | None = None
    """The time limit of one call in seconds, retries included."""
    resilience: str | None = None
    """`service`, `batch` or `none`: a preset of the layers below."""
    layers: Annotated[dict[str, Any], BeforeValidator(_hide_urls)] = {}
    """Layers by name with their settings, such as `{"retry": True}`; on top of the preset."""
    cursor_secret: SecretStr | None = None
    """The key that signs cursors, so that a client cannot forge one."""
    sort_cap: int = Field(default=1_000_000, ge=0)
    """The maximum number of records held to sort client-side what the store cannot sort."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def private_to_handle(self) -> bool:
        """Return whether the store lives and ends with one handle, so that no other handle can open it."""
        return False

    def is_public(self, key: str) -> bool:
        """Return whether a secret setting holds nothing secret: workers of a partition may be sent it."""
        return False

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
    def from_files(
        cls, settings: Mapping[str, Any], environ: Mapping[str, str]
    ) -> dict[str, tuple[Any, str]]:
        """Return settings of files that the other sources name, each with its origin for `explain`.

        They are the weakest source; `settings` are those of all the others.
        """
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
        from_url = {} if url is None else cls._rename_aliases(cls.read_url(url))
        environ = os.environ if environ is None else environ
        environment = cls.from_environment(environ)
        cls._drop_credentials(from_url, explicit)
        cls._drop_credentials(environment, {**from_url, **explicit})
        merged: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for key, (value, origin) in cls.from_files({**from_url, **explicit}, environ).items():
            merge(merged, nest(key, value), origins, origin)
        for key, (value, variable) in environment.items():
            merge(merged, nest(key, value), origins, f"environment {variable}")
        # The URL is the whole address: no part of it comes from another source.
        merge(merged, from_url, origins, "url")
        merge(merged, explicit, origins, "argument")
        cls._check_keys(merged)
        problem = ""
        try:
            config = cls.model_validate(merged)
        except ValidationError as error:
            problem = _describe_problems(cls, error, origins)
        if problem:
            # Outside the except block: pydantic's error holds the input, secrets included, and would stay
            # reachable as this error's context.
            raise ConfigError(problem)
        config._origins.update(origins)
        return config

    @classmethod
    def read_url(cls, url: Any) -> dict[str, Any]:
        """Return the settings in a URL; raises `ConfigError` that does not repeat it."""
        parts, options = parse_url(url, {*cls.model_fields, *cls.spellings})
        schemes = cls.schemes_of()
        if schemes and parts.scheme not in schemes:
            expected = " or ".join(f"{scheme}://" for scheme in schemes)
            raise ConfigError(f"{cls.backend}: a URL starts with {expected}, not {parts.scheme}://")
        return cls.from_url(parts, options)

    @classmethod
    def _drop_credentials(cls, weaker: dict[str, Any], stronger: Mapping[str, Any]) -> None:
        """Remove the credentials of one source that those of a stronger one replace."""
        given = [kind for kind in cls.credentials if any(stronger.get(name) is not None for name in kind)]
        for kind in cls.credentials:
            if given and kind not in given:
                for name in kind:
                    weaker.pop(name, None)
        # The environment's password is that of the environment's user.
        own, user = weaker.get("user"), stronger.get("user")
        if isinstance(own, tuple) and user not in (None, own[0]):
            weaker.pop("password", None)

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
        names: dict[str, str] = {}
        for key, value in settings.items():
            target = cls.spellings.get(key, key) if isinstance(key, str) else key
            if not isinstance(target, str):
                raise ConfigError(f"{cls.backend}: config keys must be text, got {shorten(key)}")
            if isinstance(value, Mapping):
                value = dict(value)
            nested = nest(target, value)
            found: dict[str, str] = {}
            merge({}, nested, found, key)
            if twice := _find_twice(names, found):
                other = names[twice]
                raise ConfigError(
                    f"{cls.backend}: {other!r} and {key!r} are two names of one setting, {twice}"
                )
            names |= found
            merge(result, nested)
        return result

    def model_columns(self, collection: str) -> bool:
        """Return whether all fields of a typed collection's model are columns: `columns="model"`."""
        return False

    @classmethod
    def _check_keys(cls, settings: dict[str, Any]) -> None:
        _check_keys(cls, settings, cls.backend, cls.spellings)


def _find_twice(first: Mapping[str, str], second: Mapping[str, str]) -> str | None:
    """Return a setting of `first` that `second` gives too: itself, the group that it is of, or a part."""
    for name in sorted(first):
        for other in second:
            if name == other or name.startswith(f"{other}.") or other.startswith(f"{name}."):
                return name
    return None


def _check_keys(
    model: type[BaseModel], settings: dict[str, Any], where: str, spellings: Mapping[str, str]
) -> None:
    for key, value in settings.items():
        known = model.model_fields
        if key not in known:
            if key == "unique":
                raise UnsupportedError(f"{where} has no unique fields", capability="unique")
            if key == "columns":
                raise UnsupportedError(f"{where} has no declared columns", capability="columns")
            if key in ChangesSettings.model_fields:
                raise no_changes(where)
            names = [*known, *spellings]
            raise ConfigError(f"{where}: unknown setting {key!r}{suggest_nearest(key, names)}")
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
            within = (origin for name, origin in origins.items() if name.startswith(f"{key}."))
            explained[key] = (value, origins.get(key) or next(within, "default"))


def _describe_problems(
    config: type[BackendConfig], error: ValidationError, origins: Mapping[str, str]
) -> str:
    """Return what is wrong with each setting, and the variable that it came from."""
    problems = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        key = ".".join(_setting_of(config, problem["loc"]))
        variables = sorted(
            origin
            for name, origin in origins.items()
            if origin.startswith("environment ") and (not key or f"{key}.".startswith(f"{name}."))
        )
        source = f" ({', '.join(dict.fromkeys(variables))})" if variables else ""
        problems.append(f"{key or 'config'}: {problem['msg'].removeprefix('Value error, ')}{source}")
    return f"{config.backend}: " + "; ".join(dict.fromkeys(problems))


def _setting_of(model: type[BaseModel], location: Sequence[str | int]) -> Iterator[str]:
    """Yield the parts of a setting's name, without pydantic's names for the alternatives of a type."""
    for number, part in enumerate(location):
        yield str(part)
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            holds_keys = {get_origin(kind) for kind in (inner, *get_args(inner))} & {dict, list, tuple}
            yield from map(str, location[number + 1 :] if holds_keys else ())
            return
        model = inner
