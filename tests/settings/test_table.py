"""Every documented setting, alias, URL part and variable: accepted, taken, in the right order, hidden."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus._core.config import BackendConfig
from isthmus._core.registry import BACKENDS
from isthmus.errors import ConfigError
from tests.settings.table import (
    NEEDED,
    SAMPLES,
    URLS,
    config_of,
    is_secret,
    origin_of,
    read_by,
    settings_of,
    url_with,
    value_of,
    variables_of,
)

CELLS = [(backend, setting) for backend in BACKENDS for setting in SAMPLES[backend]]
ALIASES = [
    (backend, alias, target)
    for backend in BACKENDS
    for alias, target in sorted(config_of(backend).spellings.items())
]
VARIABLES = [
    (backend, variable, setting)
    for backend in BACKENDS
    for variable, setting in sorted(variables_of(backend).items())
]
_READ_IN_CONFIG = {"preset", "host", "target_session_attrs"}
"""Settings that the config's own methods read for the backend; `test_effects.py` sees them arrive."""


def _load(
    backend: str, given: dict[str, object] | None = None, environ: dict[str, str] | None = None
) -> BackendConfig:
    return config_of(backend).load(given or {}, environ=environ or {})


def _arguments(backend: str, setting: str, value: object) -> dict[str, object]:
    """Return a config with one setting, nested, and what it needs."""
    first, _, rest = setting.partition(".")
    needed = {**NEEDED.get(backend, {}), **SAMPLES[backend].get(setting, SAMPLES[backend]["deadline"]).needs}
    return {**needed, first: {rest: value} if rest else value}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_table_has_every_setting(backend: str) -> None:
    """A new setting is added to the table, or this fails."""
    assert sorted(settings_of(config_of(backend))) == sorted(SAMPLES[backend])


@pytest.mark.parametrize(("backend", "setting"), CELLS)
def test_a_setting_is_taken_from_an_argument_and_from_a_url(backend: str, setting: str) -> None:
    """The value is the same and its origin is shown; an argument overrides the URL."""
    sample = SAMPLES[backend][setting]

    config = _load(backend, _arguments(backend, setting, sample.text))

    assert value_of(config, setting) == sample.value
    assert origin_of(config, setting) == "argument"
    url = url_with(backend, setting, sample.text) if sample.in_url else None
    if url is None:
        return
    from_url = _load(backend, {"url": url})
    assert value_of(from_url, setting) == sample.value
    assert origin_of(from_url, setting) == "url"
    both = _load(backend, {"url": url, **_nested(setting, sample.other)})
    assert value_of(both, setting) == value_of(
        _load(backend, _arguments(backend, setting, sample.other)), setting
    )
    assert origin_of(both, setting) == "argument"


def _nested(setting: str, value: object) -> dict[str, object]:
    first, _, rest = setting.partition(".")
    return {first: {rest: value} if rest else value}


@pytest.mark.parametrize(("backend", "setting"), CELLS)
def test_a_setting_is_read_by_the_backend(backend: str, setting: str) -> None:
    """None is accepted and then ignored."""
    assert read_by(backend, setting) or setting in _READ_IN_CONFIG


@pytest.mark.parametrize(("backend", "setting"), [cell for cell in CELLS if is_secret(*cell)])
def test_a_secret_is_not_shown(backend: str, setting: str) -> None:
    """Neither by the config's text nor by `explain`."""
    text: object = "mysql+asyncmy://u:c4n4ry@h/a" if setting == "address" else "c4n4ry"
    if isinstance(SAMPLES[backend][setting].text, dict):
        text = dict.fromkeys(SAMPLES[backend][setting].text, "c4n4ry")

    config = _load(backend, _arguments(backend, setting, text))

    assert value_of(config, setting) == text
    assert "c4n4ry" not in repr(config) + str(config) + repr(config.explain()) + repr(config.model_dump())


@pytest.mark.parametrize(("backend", "setting"), [c for c in CELLS if SAMPLES[c[0]][c[1]].bad is not None])
def test_a_value_that_cannot_be_read_is_refused(backend: str, setting: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match=setting.rpartition(".")[2]):
        _load(backend, _arguments(backend, setting, SAMPLES[backend][setting].bad))


@pytest.mark.parametrize(("backend", "alias", "target"), ALIASES)
def test_an_alias_is_its_setting(backend: str, alias: str, target: str) -> None:
    """As an argument, and in a URL where the setting can be an option of it."""
    if target == "url":
        assert _load(backend, {alias: URLS[backend]}) == _load(backend, {"url": URLS[backend]})
        return
    if target not in SAMPLES[backend]:  # a key of a setting that is a dict
        group, _, key = target.partition(".")
        assert value_of(_load(backend, {alias: "60"}), group) == {key: "60"}
        assert value_of(_load(backend, {"url": f"{URLS[backend]}?{alias}=60"}), group) == {key: "60"}
        return
    sample = SAMPLES[backend][target]
    needed = {key: value for key, value in NEEDED.get(backend, {}).items() if key != target} | {
        **sample.needs
    }

    assert value_of(_load(backend, {**needed, alias: sample.text}), target) == sample.value
    if sample.in_url and sample.url is None and backend != "sqlalchemy":
        url = url_with(backend, target, sample.text)
        assert url is not None
        url = url.replace(f"?{target}=", f"?{alias}=")
        assert value_of(_load(backend, {"url": url}), target) == sample.value
    with pytest.raises(ConfigError, match="two names of one setting"):
        _load(backend, {**needed, alias: sample.text, target: sample.text})
    if "." in target:
        group = target.partition(".")[0]
        with pytest.raises(ConfigError, match="two names of one setting"):
            _load(backend, {**needed, group: "5", alias: sample.text})


def _environment(backend: str, variable: str, setting: str, text: str) -> dict[str, str]:
    """Return an environment with a variable, and those that it goes with."""
    names = {key: name for name, key in variables_of(backend).items()}
    needs = SAMPLES[backend][setting].needs if setting in SAMPLES[backend] else {}
    return {variable: text, **{names[key]: str(value) for key, value in needs.items()}}


@pytest.mark.parametrize(("backend", "variable", "setting"), VARIABLES)
def test_a_variable_is_its_setting(backend: str, variable: str, setting: str) -> None:
    """It is weaker than a URL and an argument, and an empty one is none."""
    needed = NEEDED.get(backend, {})
    if setting not in SAMPLES[backend]:
        group, _, key = setting.partition(".")
        assert value_of(_load(backend, needed, {variable: "prefer"}), group) == {key: "prefer"}
        return
    sample = SAMPLES[backend][setting]
    environ = _environment(backend, variable, setting, sample.text)

    config = _load(backend, needed, environ)

    assert value_of(config, setting) == sample.value
    assert origin_of(config, setting) == f"environment {variable}"
    assert origin_of(_load(backend, needed, {variable: ""}), setting) == "default"
    argued = _load(backend, _arguments(backend, setting, sample.other), environ)
    assert origin_of(argued, setting) == "argument"
    if sample.in_url:
        url = url_with(backend, setting, sample.other)
        assert origin_of(_load(backend, {"url": url}, environ), setting) == "url"


@pytest.mark.parametrize(("backend", "variable", "setting"), VARIABLES)
def test_a_variable_that_cannot_be_read_is_named(backend: str, variable: str, setting: str) -> None:
    """The error says which, so that nobody looks for it in the code."""
    bad = SAMPLES[backend][setting].bad if setting in SAMPLES[backend] else None
    if bad is None:
        return  # any text is valid

    with pytest.raises(ConfigError, match=rf"environment {variable}\b"):
        _load(backend, NEEDED.get(backend, {}), {variable: bad})


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_setting_names_three(backend: str) -> None:
    """The nearest ones, not all."""
    with pytest.raises(ConfigError, match="did you mean") as caught:
        _load(backend, {**NEEDED.get(backend, {}), "deadlin": 1})

    assert "'deadline'" in str(caught.value)
    assert str(caught.value).count("'") == 8


@pytest.mark.parametrize(
    ("backend", "given", "says"),
    [
        ("memory", {"deadline": True}, "deadline: a number is expected, got True"),
        (
            "postgres",
            {"host": "h", "pool": {"timeout": False}},
            "pool.timeout: a number is expected, got False",
        ),
        (
            "postgres",
            {"host": "h", "pool": {"max_size": 4}, "max_size": 5},
            "names of one setting, pool.max_size",
        ),
        ("postgres", {"max_size": 5, "pool": {"max_size": 4}}, "names of one setting, pool.max_size"),
        ("postgres", {"host": "h", "password": 12345}, "postgres: password: Input should be a valid string;"),
        ("memory", {"collections": {"a": {"unique": 1}}}, "memory: collections.a.unique: "),
    ],
)
def test_what_a_setting_cannot_be_is_said_by_its_name(backend: str, given: dict[str, Any], says: str) -> None:
    """Nothing is taken for a number, decided in silence, or shown under a name of pydantic's."""
    with pytest.raises(ConfigError, match=says) as refused:
        _load(backend, given)
    assert "[" not in str(refused.value)
