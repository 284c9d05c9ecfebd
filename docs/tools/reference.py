"""Writes the pages of the reference that are made from the code; `--check` only compares.

`python -m docs.tools.reference`
"""

# ruff: noqa: E501 - lines of prose that go into pages

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from docs.tools.capabilities import table as capabilities_table
from isthmus import Capabilities, errors
from isthmus._core.config import BackendConfig
from isthmus._core.registry import BACKENDS, plugin
from isthmus.layers import PRESETS

FOLDER = Path(__file__).parents[1] / "reference"
MADE = "<!-- made by: python -m docs.tools.reference -->\n\n"


def _attribute_texts(cls: type) -> dict[str, str]:
    """Return the docstring below each field, which only the source has."""
    import ast
    import inspect
    import textwrap

    found: dict[str, str] = {}
    for kind in reversed(cls.__mro__):
        if kind.__module__.startswith("isthmus"):
            body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, after in zip(body.body, [*body.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    text = after.value.value if _is_text(after) else ""  # type: ignore[union-attr]
                    found[field.target.id] = " ".join(str(text).split())
    return found


def _is_text(node: Any) -> bool:
    import ast

    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _type_text(annotation: Any) -> str:
    text = (
        annotation.__name__
        if isinstance(annotation, type) and "[" not in str(annotation)
        else str(annotation)
    )
    text = re.sub(r"(?:[a-zA-Z_]\w*\.)+(?=[A-Za-z])", "", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda m: " or ".join(p.strip("' ") for p in m[1].split(",")), text)
    text = re.sub(r"tuple\[str, \.\.\.\]", "texts", text)
    return text.replace("SecretStr", "secret").replace(" | None", "").replace("NoneType", "None")


def _default_text(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    match field.default:
        case None:
            return "–"
        case bool():
            return str(field.default).lower()
        case str():
            return f"`{field.default}`" if field.default else "–"
        case tuple():
            return ", ".join(f"`{part}`" for part in field.default) or "–"
        case dict():
            return "–" if not field.default else f"`{field.default}`"
        case int() | float():
            return f"{field.default:,}" if field.default >= 10_000 else f"{field.default:g}"
        case other:
            return f"`{other}`"


def _rows(model: type[BaseModel], prefix: str, apart: frozenset[str] = frozenset()) -> list[str]:
    lines: list[str] = []
    texts = _attribute_texts(model)
    for name, field in model.model_fields.items():
        if name in apart:
            continue
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            lines += _rows(part, f"{prefix}{name}.")
            continue
        cells = [f"`{prefix}{name}`", _type_text(part), _default_text(field), texts.get(name, "")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


HEAD = ["| setting | type | default | |", "| --- | --- | --- | --- |"]


def configuration() -> str:
    """Return the page of all settings."""
    shared = frozenset(BackendConfig.model_fields)
    lines = [
        "# Configuration\n",
        "A setting is taken from an argument, the URL, the environment or its default, in this order of precedence, and",
        "credentials of one kind (a password, a key, a token) replace the other kinds of a weaker source;",
        '`db.config.explain()` shows its source. A dot is a group: `pool.max_size` is `{"pool": {"max_size": 20}}`',
        "in a dict and `?pool.max_size=20` in a URL. An unknown setting is a `ConfigError` with the three nearest names,",
        "and one for a variable that cannot be read names the variable.\n",
        "## All backends\n",
        *HEAD,
        *_rows(BackendConfig, ""),
        "\n`resilience` is one of these presets of layers; `layers` overrides single layers.\n",
        "| preset | layers |",
        "| --- | --- |",
    ]
    for name, layers in PRESETS.items():
        texts = [
            layer + (f" ({', '.join(f'{k} {v:g}' for k, v in settings.items())})" if settings else "")
            for layer, settings in layers.items()
        ]
        lines.append(f"| `{name}` | {', '.join(texts) or '–'} |")
    for name in BACKENDS:
        config = plugin(name).config()
        lines += [f"\n## {name}\n", *HEAD, *_rows(config, "", shared)]
        schemes = plugin(name).schemes
        notes = []
        if schemes:
            notes.append("URL schemes: " + ", ".join(f"`{scheme}://`" for scheme in schemes) + ".")
        if config.spellings:
            pairs = ", ".join(f"`{old}` = `{new}`" for old, new in sorted(config.spellings.items()))
            notes.append(f"Other spellings: {pairs}.")
        variables = getattr(sys.modules[config.__module__], "_VARIABLES", {})
        if name == "postgres":
            variables = {**variables, "DATABASE_URL": "url"}
        if name == "elasticsearch":
            notes.append(
                "`basic_auth` and `http_auth` are user and password in one: a pair, or `user:password`."
                " `cloud_id` of Elastic Cloud stands for `hosts`."
            )
        if variables:
            flat = {
                variable: (key if isinstance(value, tuple) else value)
                for key, value in variables.items()
                for variable in (value if isinstance(value, tuple) else (key,))
            }
            notes.append("Environment: " + ", ".join(f"`{v}` ({k})" for v, k in sorted(flat.items())) + ".")
        lines += [f"\n{note}" for note in notes]
    return "\n".join(lines) + "\n"


def error_tree() -> str:
    """Return the page of errors: the tree from the module's docstring, then each class."""
    drawing = (errors.__doc__ or "").split("\n\n", 1)[1].strip()
    lines = [
        "# Errors\n",
        "Every error that isthmus raises is an `IsthmusError`. The driver's exception is its `__cause__`, where a driver",
        "raised one: the error of one item of an Elasticsearch or S3 batch has none.\n",
        f"```text\n{drawing}\n```\n",
        "Each has `transient` (the same call may succeed later), `applied` (`Applied.MAYBE`: the write may have",
        "been applied although it failed) and `retry_after` (the delay in seconds that the store requested, or None).\n",
        "| error | transient | |",
        "| --- | --- | --- |",
    ]
    carries = {
        "MissingExtraError": "`extra`",
        "UnsupportedError": "`capability`",
        "RecordError": "`record_id`",
        "NotFoundError": "`record_id`",
        "AlreadyExistsError": "`record_id`",
        "ConflictError": "`record_id`",
        "InvalidRecordError": "`record_id`, `path`",
        "NotWrittenError": "`record_id`",
        "BatchError": "`outcomes`",
    }
    for name in errors.__all__:
        kind = getattr(errors, name)
        if not (isinstance(kind, type) and issubclass(kind, errors.IsthmusError)):
            continue
        also = [base.__name__ for base in kind.__mro__ if base in (ConnectionError, TimeoutError)]
        first = (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
        transient = "yes" if kind.transient else "by its items" if name == "BatchError" else "no"
        text = f"{first} Also a builtin {' and a '.join(also)}." if also else first
        if name in carries:
            text += f" Carries {carries[name]}."
        lines.append(f"| `{name}` | {transient} | {text} |")
    return "\n".join(lines) + "\n"


def capabilities() -> str:
    """Return the page of capabilities."""
    texts = _attribute_texts(Capabilities)
    lines = [
        "# Capabilities\n",
        "`db.capabilities` is plain data. A missing capability is refused with an `UnsupportedError`, never emulated.\n",
        capabilities_table(),
        *(f"* **{name.replace('_', ' ')}**: {text}" for name, text in texts.items() if text),
    ]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    made = {
        "configuration.md": configuration(),
        "errors.md": error_tree(),
        "capabilities.md": capabilities(),
    }
    return {FOLDER / name: MADE + text for name, text in made.items()}


def main() -> int:
    """Write or check the pages; return 1 if a check finds an outdated one."""
    old = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in old:
            print(f"{path} is outdated: python -m docs.tools.reference", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        path.write_text(pages()[path])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
