"""Every setting of every backend with values to try it by; `python -m tests.settings` prints the table."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, SecretStr

from isthmus._core.config import BackendConfig
from isthmus._core.registry import plugin


class Sample(NamedTuple):
    """Two values of a setting; as text in a URL or a variable, unless it can only be an argument."""

    text: Any
    value: Any
    other: Any
    bad: str | None = None
    """Text that the setting refuses; None if it takes any."""
    url: str | None = None
    """The URL with `{}` for the value, for settings that have a place in it."""
    needs: Mapping[str, Any] = {}
    """Other settings that it goes with."""
    in_url: bool = True


def _text(url: str | None = None, needs: Mapping[str, Any] | None = None) -> Sample:
    return Sample("one", "one", "two", None, url, needs or {})


def _path() -> Sample:
    return Sample("/one.pem", Path("/one.pem"), "/two.pem")


def _whole(value: int = 7) -> Sample:
    return Sample(str(value), value, str(value + 1), "nonsense")


def _seconds() -> Sample:
    return Sample("2.5", 2.5, "3.5", "nonsense")


def _choice(one: str, two: str) -> Sample:
    return Sample(one, one, two, "nonsense")


def _yes(text: str = "true") -> Sample:
    return Sample(text, text == "true", "false" if text == "true" else "true", "nonsense")


def _fields() -> Sample:
    return Sample("a", ("a",), "b")


def _unique() -> Sample:
    return Sample("a", (("a",),), "b")


def _argument(value: Any, other: Any) -> Sample:
    return Sample(value, value, other, in_url=False)


async def _hook(connection: Any) -> None:
    """Stand for a hook of a pool."""


async def _other_hook(connection: Any) -> None:
    """Stand for another one."""


_HOOK = _argument(_hook, _other_hook)

SHARED = {
    "deadline": _seconds(),
    "resilience": Sample("batch", "batch", "service"),
    "layers": _argument({"retry": True}, {"breaker": True}),
    "cursor_secret": _text(),
    "sort_cap": _whole(),
}
POSTGRES = {
    "unique": _unique(),
    "changes": _yes(),
    "changes_keep": _seconds(),
    "columns": _argument({"a": "text"}, {"b": "number"}),
    "indexes": _fields(),
    "prefix": _fields(),
    "substring": _fields(),
    "gin": _fields(),
    "host": Sample("h1", ("h1",), "h2", "a b"),
    "port": _whole(6543),
    "database": _text("postgres://h/{}"),
    "user": _text("postgres://{}@h"),
    "password": _text("postgres://u:{}@h"),
    "passfile": _path(),
    "table": _text(),
    "schema_name": _text(),
    "create_table": _choice("never", "if_missing"),
    "layout": _choice("native", "records"),
    "key": Sample("a,b", ("a", "b"), "c", needs={"layout": "native"}),
    "version": _text(needs={"layout": "native"}),
    "zone": Sample("UTC", "UTC", "Europe/Oslo", "Nowhere/Else", needs={"layout": "native"}),
    "numeric": _choice("float", "text")._replace(needs={"layout": "native"}),
    "collections": _argument({"c": {"indexes": ("a",)}}, {"d": {}}),
    "ssl": _choice("require", "disable"),
    "ssl_root_cert": _path(),
    "ssl_cert": _path(),
    "ssl_key": _path(),
    "ssl_key_password": _text(),
    "driver": _choice("psycopg", "asyncpg"),
    "pool.min_size": _whole(3),
    "pool.max_size": _whole(20),
    "pool.timeout": _seconds(),
    "pool.max_waiting": _whole(),
    "pool.max_queries": _whole(),
    "pool.max_idle": _seconds(),
    "pool.max_lifetime": _seconds(),
    "pool.check_after": _seconds(),
    "pool.lazy": _yes(),
    "pool.max_opening": _whole(),
    "pool.reconnect_timeout": _seconds(),
    "pool.leak_report": _seconds(),
    "pool.setup": _HOOK,
    "pool.init": _HOOK,
    "pool.reset": _HOOK,
    "pool.connect": _HOOK,
    "pool.connection_class": _argument(int, str),
    "pool.record_class": _argument(int, str),
    "preset": _choice("web", "batch"),
    "connect_timeout": _seconds(),
    "command_timeout": _seconds(),
    "statement_cache_size": _whole(),
    "server_settings": _argument({"work_mem": "7MB"}, {"jit": "on"}),
    "options": Sample("-c search_path=y", "-c search_path=y", "endpoint=x"),
    "libpq": _argument({"channel_binding": "require"}, {"gssencmode": "disable"}),
    "application_name": _text(),
    "pooler": _choice("transaction", "none"),
    "target_session_attrs": _choice("standby", "any"),
    "replicas": Sample("h1:1", ("h1:1",), "h2:1", "a b"),
    "load_balance_hosts": _choice("random", "disable"),
    "tcp_keepalive": _yes("false"),
    "coalesce": _yes("false"),
}
ELASTICSEARCH = {
    "hosts": Sample("http://h1:9200", ("http://h1:9200",), "http://h2:9200", "ftp://h", "es+{}/notes"),
    "index": Sample("one", "one", "two", "UPPER", "es+http://h:9200/{}"),
    "user": _text("es+http://{}:p@h:9200", {"password": "p"}),
    "password": _text("es+http://u:{}@h:9200", {"user": "u"}),
    "api_key": _text(),
    "bearer_token": _text(),
    "ca": _path(),
    "ssl_assert_fingerprint": _text(),
    "verify_certs": _yes("false"),
    "client_cert": _path(),
    "client_key": _path(),
    "http_compress": _yes(),
    "headers": _argument({"x-team": "one"}, {"x-team": "two"}),
    "sniff": _yes(),
    "pool.connections": _whole(),
    "pool.maxsize": _whole(),
    "pool.timeout": _seconds(),
    "request_timeout": _seconds(),
    "bulk.size": _whole(),
    "bulk.bytes": _whole(),
    "bulk.concurrency": _whole(),
    "bulk.retries": _whole(),
    "update_attempts": _whole(),
    "layout": _choice("native", "mapped"),
    "approximate": _yes()._replace(needs={"layout": "native"}),
    "create_index": _choice("never", "if_missing"),
    "shards": _whole(),
    "replicas": _whole(),
    "refresh_interval": Sample("5s", "5s", "6s"),
    "field_limit": _whole(50),
    "settings": _argument({"codec": "best_compression"}, {"codec": "default"}),
    "fulltext": Sample("a", {"a": "standard"}, "b"),
    "vectors": Sample("a:3", {"a": {"dims": 3}}, "b:3", "a:many"),
    "consistency": _choice("eventual", "read_your_writes"),
    "slices": _whole(),
    "keep_alive": Sample("2m", "2m", "3m", "nonsense"),
}
_KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
S3 = {
    "unique": Sample("a", (("a",),), "b", needs={"layout": "log"}),
    "collections": _argument({"c": {"unique": (("a",),)}}, {"d": {}}),
    "bucket": Sample("bucket-2", "bucket-2", "bucket-3", "a b", "s3://{}/p"),
    "prefix": _text("s3://bucket-1/{}"),
    "region": Sample("eu-west-1", "eu-west-1", "eu-west-2", "eu west"),
    "endpoint_url": Sample("http://h1:9", "http://h1:9", "http://h2:9", "ftp://h"),
    "aws_access_key_id": _text("s3://{}:s@bucket-1/p", {"aws_secret_access_key": "s"}),
    "aws_secret_access_key": _text("s3://k:{}@bucket-1/p", {"aws_access_key_id": "k"}),
    "aws_session_token": _text(needs=_KEYS),
    "profile": _text(),
    "layout": _choice("log", "object"),
    "transport": _choice("aioboto3", "obstore"),
    "pool.max_connections": _whole(),
    "pool.timeout": _seconds(),
    "timeout": _seconds(),
    "checksum": _choice("sha256", "when_required"),
    "ca_file": _text(),
    "create_bucket": _yes(),
    "anonymous": _yes(),
    "addressing_style": _choice("virtual", "path"),
    "server_side_encryption": _choice("aws:kms", "AES256"),
    "sse_kms_key_id": _text(needs={"server_side_encryption": "aws:kms"}),
    "requester_pays": _yes(),
    "storage_class": _text(),
    "cache": _argument({"max_bytes": 5, "folder": None}, {"max_bytes": 6}),
    "log.memory_bytes": _whole(),
    "log.checkpoint_entries": _whole(),
    "log.grace": _seconds(),
    "changes": Sample("true", True, "false", "nonsense", needs={"layout": "log"}),
    "changes_keep": _seconds(),
}
_NATIVE_FILE = {"path": "one.db", "layout": "native"}
SQLITE = {
    "unique": _unique(),
    "changes": _yes(),
    "changes_keep": _seconds(),
    "columns": _argument({"a": "text"}, {"b": "number"}),
    "indexes": _fields(),
    "path": Sample("one.db", "one.db", "two.db", None, "sqlite:///{}"),
    "table": _text(),
    "layout": Sample("native", "native", "records", "nonsense", needs={"path": "one.db"}),
    "key": Sample("a,b", ("a", "b"), "c", needs=_NATIVE_FILE),
    "version": _text(needs=_NATIVE_FILE),
    "create_table": _choice("never", "if_missing"),
    "collections": _argument({"c": {"indexes": ("a",)}}, {"d": {}}),
    "pool.readers": _whole(),
    "pool.timeout": _seconds(),
    "busy_timeout": _seconds(),
    "synchronous": _choice("normal", "off"),
}
SQLALCHEMY = {
    "unique": _unique(),
    "collections": _argument({"c": {"unique": (("a",),)}}, {"d": {}}),
    "address": Sample(
        "mysql+asyncmy://u:one@h/a", "mysql+asyncmy://u:one@h/a", "mysql+asyncmy://u:two@h/a",
        None, "sqlalchemy+{}",
    ),
    "engine": _argument("engine 1", "engine 2"),
    "table": _text(),
    "layout": _choice("native", "records"),
    "key": Sample("a,b", ("a", "b"), "c", needs={"layout": "native"}),
    "version": _text(needs={"layout": "native"}),
    "zone": Sample("UTC", "UTC", "Europe/Oslo", "Nowhere/Else", needs={"layout": "native"}),
    "numeric": _choice("float", "text")._replace(needs={"layout": "native"}),
    "create_table": _yes("false"),
    "pool.size": _whole(),
    "pool.max_overflow": _whole(),
    "pool.timeout": _seconds(),
    "pool.recycle": _seconds(),
}  # fmt: skip
FILES = {
    "location": Sample("/one", "/one", "/two", None, "files://{}"),
    "s3": _argument({"region": "a"}, {"region": "b"}),
    "aws_access_key_id": Sample("one", "one", "two", None, None, {"aws_secret_access_key": "x"}),
    "aws_secret_access_key": Sample("one", "one", "two", None, None, {"aws_access_key_id": "x"}),
    "aws_session_token": _text(),
    "table": _text(),
    "format": _choice("csv", "jsonl"),
    "id": _text(),
    "records": _yes(),
    "delimiter": Sample(";", ";", "|", "too long"),
    "encoding": Sample("latin1", "iso8859-1", "utf-16", "nonsense"),
    "header": Sample("a,b", ("a", "b"), "false"),
    "null": Sample("NA", ("NA",), "none"),
    "types": Sample("zip=text", {"zip": "text"}, "text", "nonsense"),
    "path": _text(),
    "zone": Sample("UTC", "UTC", "Europe/Oslo", "Nowhere/Else"),
    "round": _yes(),
    "on_invalid": _choice("skip", "raise"),
}
MEMORY = {
    "unique": _unique(),
    "collections": _argument({"c": {"unique": (("a",),)}}, {"d": {}}),
    "table": _text("memory://{}"),
    "timeout": _seconds(),
    "changes": _yes(),
    "changes_keep": _seconds(),
}

SAMPLES: dict[str, dict[str, Sample]] = {
    "memory": {**SHARED, **MEMORY},
    "sqlite": {**SHARED, **SQLITE},
    "postgres": {**SHARED, **POSTGRES},
    "elasticsearch": {**SHARED, **ELASTICSEARCH},
    "s3": {**SHARED, **S3},
    "sqlalchemy": {**SHARED, **SQLALCHEMY},
    "files": {**SHARED, **FILES},
}
URLS = {
    "memory": "memory://notes",
    "sqlite": "sqlite:///a.db",
    "postgres": "postgres:///app",
    "elasticsearch": "es+http://h:9200/notes",
    "s3": "s3://bucket-1/p",
    "sqlalchemy": "sqlalchemy+mysql+asyncmy://h/a",
    "files": "files:///data",
}
NEEDED: dict[str, dict[str, Any]] = {"s3": {"bucket": "bucket-1"}, "files": {"location": "/data"}}
"""Settings without which no config is valid."""


def config_of(backend: str) -> type[BackendConfig]:
    """Return a backend's config class."""
    return plugin(backend).config()


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the name of each setting, groups as `pool.max_size`."""
    for name, field in model.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield from settings_of(part, f"{prefix}{name}.")
        else:
            yield prefix + name


def variables_of(backend: str) -> dict[str, str]:
    """Return each environment variable of a backend with its setting."""
    known = getattr(sys.modules[config_of(backend).__module__], "_VARIABLES", {})
    if backend != "s3":
        return dict(known)
    return {variable: setting for setting, variables in known.items() for variable in variables}


def url_with(backend: str, setting: str, text: str) -> str | None:
    """Return a URL that has a setting in its place or as an option, None if it cannot."""
    sample = SAMPLES[backend][setting]
    if sample.url is not None:
        raw = text if "://" in text else quote(text, safe="")
        return sample.url.format(raw)
    if not sample.in_url:
        return None
    options = {setting: text, **sample.needs}
    return f"{URLS[backend]}?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in options.items())


def value_of(config: BackendConfig, setting: str) -> Any:
    """Return a setting's value in plain Python, secrets as text."""
    value: Any = config
    for part in setting.split("."):
        value = getattr(value, part)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {
            name: _plain(getattr(value, name)) for name in value.model_fields_set or type(value).model_fields
        }
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def is_secret(backend: str, setting: str) -> bool:
    """Return whether a setting's type hides its value."""
    model: Any = config_of(backend)
    *groups, name = setting.split(".")
    for group in groups:
        model = model.model_fields[group].annotation
    return "SecretStr" in str(model.model_fields[name].annotation)


def read_by(backend: str, setting: str) -> str:
    """Return the first module apart from the config's that reads a setting."""
    import re

    import isthmus

    root = Path(isthmus.__file__).parent
    name = re.compile(rf"\.{setting.rpartition('.')[2]}\b")
    folders = [root / "backends" / backend, root]
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        if path.name not in ("address.py", "config.py") and name.search(path.read_text()):
            inside = path.relative_to(root).as_posix()
            if inside.startswith(f"backends/{backend}/") or not inside.startswith("backends/"):
                return inside
    return ""


def origin_of(config: BackendConfig, setting: str) -> str:
    """Return where `explain` says that a setting, or the first of a group, came from."""
    explained = config.explain()
    return next(origin for name, (_, origin) in explained.items() if f"{name}.".startswith(f"{setting}."))


def names_for(names: Mapping[str, str], setting: str) -> list[str]:
    """Return the aliases or variables of a setting, or of a key of it."""
    return sorted(name for name, target in names.items() if f"{target}.".startswith(f"{setting}."))
