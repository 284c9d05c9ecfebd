"""The config model of the files backend: where the files lie and how they are read."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args
from urllib.parse import SplitResult, unquote
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from isthmus._core.config import BackendConfig, SecretStr
from isthmus._core.home import expand_home
from isthmus.backends.files.formats.encoding import is_wide
from isthmus.errors import ConfigError

Kind = Literal["text", "number", "bool"]
FormatName = Literal["json", "jsonl", "csv", "tsv", "parquet", "arrow"]
_PROBE, _ESCAPE = b'a,"\t\r\n', "surrogateescape"


class FilesConfig(BackendConfig):
    """Settings of one read-only collection of files."""

    backend: ClassVar[str] = "files"
    spellings: ClassVar[Mapping[str, str]] = {
        "folder": "location",
        "glob": "location",
        "file": "location",
        "sep": "delimiter",
        "separator": "delimiter",
        "timezone": "zone",
        "tz": "zone",
        "id_field": "id",
        "collection": "table",
    }

    location: str
    """A folder, a file, or a pattern with `*`, `?`, `[…]`, `**`; or in `s3://bucket/…`; `~` is your home."""
    s3: dict[str, Any] = Field(default={})
    """Settings of the bucket, as of the backend `s3`: `region`, `endpoint_url`, `profile`, `pool`, …"""
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    table: str = "records"
    """The name of the collection."""
    format: FormatName | None = None
    """The format of all files; None takes it from each file's suffix."""
    id: str | None = None
    """The field that holds the id, such as `iso` or `properties.code`; None numbers the rows of each file."""
    records: bool = False
    """Whether each row is a whole record with id, data and metadata, as `isthmus dump` writes them."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """What separates the cells of CSV; None finds `,`, `;`, `|` or a tab in each file's first lines."""
    encoding: str | None = None
    """The encoding of CSV; None is UTF-8, or UTF-16 with a byte order mark."""
    header: bool | tuple[str, ...] = True
    """Whether CSV files begin with headings; False for `column1`, `column2`, …, or the names themselves."""
    null: tuple[str, ...] = ()
    """Cells of CSV that are null in every column, such as `NA`; empty ones are in numbers and booleans."""
    types: Literal["text"] | dict[str, Kind] = Field(default={})
    """The types of columns of CSV: `text`, `number` or `bool`; `text` in place of a mapping for all."""
    path: str | None = None
    """Where the array of records is inside a JSON document, such as `features`."""
    zone: str | None = None
    """The time zone of timestamps that have none; None refuses their rows."""
    round: bool = False
    """Whether fractions of a second below a microsecond are cut; their rows are refused otherwise."""
    on_invalid: Literal["raise", "skip"] = "raise"
    """Whether a broken file or row ends the call, or is left out and reported by `explain`."""

    @field_validator("location", mode="before")
    @classmethod
    def _location_text(cls, value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return expand_home(value) if isinstance(value, str) else value

    @field_validator("location", mode="after")
    @classmethod
    def _location(cls, value: str) -> str:
        if not value or "\0" in value:
            raise ValueError("it must be a folder, a file or a pattern")
        return value

    @field_validator("null", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("header", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() not in ("true", "false", "1", "0", "yes", "no"):
            return tuple(value.split(","))
        return value

    @field_validator("header", mode="after")
    @classmethod
    def _unlike_names(cls, value: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        if isinstance(value, tuple) and len(set(value)) != (len(value) or 1):
            raise ValueError("expected names of columns, each once")
        return value

    @field_validator("types", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if isinstance(value, str) and "=" in value:
            value = {name: kind for name, _, kind in (pair.rpartition("=") for pair in value.split(","))}
        kinds = value.values() if isinstance(value, Mapping) else ()
        if (isinstance(value, str) and value != "text") or any(kind not in get_args(Kind) for kind in kinds):
            raise ValueError("expected NAME=KIND, with text, number or bool as KIND; or text for all columns")
        return value

    @field_validator("delimiter", mode="after")
    @classmethod
    def _delimiter(cls, value: str | None) -> str | None:
        if value is not None and value in '"\r\n\0':
            raise ValueError("a quote or a line break cannot separate cells")
        if value is not None and not value.isascii():
            raise ValueError("expected a character of ASCII")
        return value

    @field_validator("encoding", mode="after")
    @classmethod
    def _find_encoding(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            name = codecs.lookup(value).name.removesuffix("-sig")  # a mark is passed over anyway
            if not is_wide(name) and _PROBE.decode(name, _ESCAPE).encode(name, _ESCAPE) != _PROBE:
                raise LookupError
        except (LookupError, UnicodeError):
            raise ValueError("there is no such encoding of text") from None
        return name

    @field_validator("zone", mode="after")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                raise ValueError("there is no such time zone; it is named as in Europe/Oslo or UTC") from None
        return value

    @model_validator(mode="after")
    def _one_source_of_ids(self) -> Self:
        if self.records and self.id is not None:
            raise ValueError("records=True has ids of its own; id is for other rows")
        return self

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return `files`, `file` and `files+s3`."""
        return ("files", "file", "files+s3")

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `files:///data/*.csv?delimiter=;` or `files+s3://bucket/data/?region=…`."""
        if url.scheme == "files+s3":
            return cls._from_bucket_url(url, options)
        start = unquote(url.netloc)  # `%2Fdata` and `.` begin a path
        if start not in ("", "localhost") and start[0] not in "./":
            raise ConfigError(
                "files: a URL has no host; write files:///folder/*.csv, or files://./*.csv for a relative one"
            )
        # A name of a file may be other bytes than UTF-8, as Python has them in text.
        path = unquote(url.path, errors=_ESCAPE)
        return {**options, "location": start.removeprefix("localhost") + path}

    @classmethod
    def _from_bucket_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for a URL of a bucket; options that are not of files are the bucket's."""
        if url.username or url.password:
            raise ConfigError(
                "files: credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in the settings"
                " of their names, not in the URL"
            )
        known = {*cls.model_fields, *cls.spellings}
        settings = {key: value for key, value in options.items() if key in known}
        further = {key: value for key, value in options.items() if key not in known}
        if further:
            settings["s3"] = {**settings.get("s3", {}), **further}
        return {**settings, "location": f"s3://{url.netloc}{unquote(url.path)}"}
