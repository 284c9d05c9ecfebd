"""Prints the reference page of the command line from its own help: `python -m isthmus.cli._reference`."""

from __future__ import annotations

import sys
from typing import Any

from isthmus.cli._errors import MEANINGS

_INTRODUCTION = """\
# The command line

This page is generated from `isthmus --help` (`make docs-cli`); a test fails when it is outdated.

Install it with `pip install 'isthmus[cli]'`. A store is named by its URL, such as
`sqlite:///cities.db`, `postgres://user@host/app`, `es+https://host:9200/index` or
`s3://bucket/prefix?region=eu-west-1`. `-` stands for `$ISTHMUS_URL`. A password comes from the URL,
from `$ISTHMUS_PASSWORD` (`$ISTHMUS_SOURCE_PASSWORD` and `$ISTHMUS_TARGET_PASSWORD` for the sides of
a copy), from the backend's own variables, or from a prompt (`-W`); it is never printed.

Every command takes `--json`, which prints one JSON document, or one for each record; an error is
then one JSON line on standard error. `--debug` may be placed anywhere and prints tracebacks.

## Exit codes

| code | meaning |
| --- | --- |
"""

_FILTERS = """
## Filters

```
age >= 25 and city = "Oslo"
not (name like "A%" or name is null)          like ilike regex (~) starts_with ends_with contains
status in ("new", "open") and n between 1 and 9
address.city = "Oslo" and "key.with.dots" = 1  a quoted name is one key
tags = "red"                                   true if the list tags contains it
items any (sku = "a" and qty >= 2)             true if one object satisfies all of it
at >= datetime("2026-01-31T12:00Z")
_id > "k100" and _metadata.source = "import"
```

`not` binds tighter than `and`, and `and` tighter than `or` (also `! & |`); parentheses group. Text is
quoted by `"` or `'`. Only the escapes `\\\\ \\" \\' \\n \\t \\r` are interpreted; other backslashes are kept,
so patterns need no double backslashes. A filter that begins with `{` is in the library's JSON form:
`{"and": [{"field": "age", "op": ">=", "value": 25}]}`.
"""


def collect_help() -> dict[str, str]:
    """Return the help of `isthmus` and of each command, as printed on 80 columns."""
    import typer

    from isthmus.cli._app import app

    root: Any = typer.main.get_command(app)
    texts = {"isthmus": _format_help(root, "isthmus", None)}
    parent = root.context_class(root, info_name="isthmus", max_content_width=80, terminal_width=80)
    for name, command in root.commands.items():
        texts[f"isthmus {name}"] = _format_help(command, name, parent)
    return texts


def _format_help(command: Any, name: str, parent: Any) -> str:
    context = command.context_class(
        command,
        info_name=name,
        parent=parent,
        max_content_width=80,
        terminal_width=80,
        help_option_names=["-h", "--help"],
    )
    return str(command.get_help(context)).rstrip() + "\n"


def render_page() -> str:
    """Return the reference page as Markdown."""
    codes = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in MEANINGS.items())
    commands = "".join(f"\n## {name}\n\n```\n{text}```\n" for name, text in collect_help().items())
    return _INTRODUCTION + codes + _FILTERS + commands


if __name__ == "__main__":
    sys.stdout.write(render_page())
