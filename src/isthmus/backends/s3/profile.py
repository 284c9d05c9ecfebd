"""Settings of an AWS profile, read from AWS's own files: one answer for both transports.

obstore reads no profile, and botocore reads more from one than obstore can be given. So region,
endpoint and certificates are read here, in botocore's order, and botocore is told to look no further.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from isthmus._core.home import expand_home
from isthmus.errors import ConfigError

_CONFIG, _CREDENTIALS = "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"
_PLACES = {_CONFIG: "~/.aws/config", _CREDENTIALS: "~/.aws/credentials"}
_TRUE = "true"


def read_profile(profile: str | None, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return `region`, `endpoint_url` and `ca_file` as a profile has them, each with its origin.

    Without a name the profile is that of `AWS_PROFILE`, else `default`. Raises `ConfigError` for a file
    that cannot be parsed, and for a FIPS endpoint, which is not to be left out in silence.
    """
    name = profile or environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    config = _parse(_place(_CONFIG, environ))
    credentials = _parse(_place(_CREDENTIALS, environ))
    section = {
        **config.get(name if name == "default" and name in config else f"profile {name}", {}),
        **credentials.get(name, {}),
    }
    if _TRUE in (
        environ.get("AWS_USE_FIPS_ENDPOINT", "").lower(),
        section.get("use_fips_endpoint", "").lower(),
    ):
        raise ConfigError("s3: use_fips_endpoint is set for AWS: give the endpoint itself as endpoint_url=")
    found = {"region": section.get("region"), "ca_file": section.get("ca_bundle")}
    ignored = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") or section.get(
        "ignore_configured_endpoint_urls"
    )
    if (ignored or "").lower() != _TRUE:
        services = config.get(f"services {section.get('services')}", {})
        found["endpoint_url"] = _read_nested(services.get("s3", "")).get("endpoint_url") or section.get(
            "endpoint_url"
        )
    return {key: (value, f"profile {name}") for key, value in found.items() if value}


def _place(variable: str, environ: Mapping[str, str]) -> Path | None:
    """Return the path of one of AWS's files; None without a home."""
    place = environ.get(variable) or _PLACES[variable]
    if not place.startswith("~"):
        return Path(place)
    if environ is os.environ:
        return Path(expand_home(place))
    home = environ.get("HOME")
    return Path(home, place[2:]) if home else None


def _parse(path: Path | None) -> dict[str, dict[str, str]]:
    """Return the sections of a file; none if there is no file."""
    # As botocore has it: no section is a default of the others, and values are as they stand.
    parser = configparser.RawConfigParser(default_section="")
    try:
        if path is None or not path.is_file():
            return {}
        parser.read_string(path.read_text())
    except (configparser.Error, ValueError, OSError) as error:
        raise ConfigError(f"s3: {path} cannot be read as AWS's settings: {type(error).__name__}") from None
    return {" ".join(name.replace('"', "").split()): dict(parser[name]) for name in parser.sections()}


def _read_nested(text: str) -> dict[str, str]:
    """Return the settings that are indented below a key, as those of a service are."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if value}
