"""Writes the reference page of the command line from its own help: `python -m isthmus.cli._reference`."""

from __future__ import annotations

import sys
from typing import Any

from isthmus.cli._errors import MEANINGS

_INTRO = """\
# The command line

This page is made from `isthmus --help` (`make docs-cli`); a test fails when it is not current.

Install it with `pip install 'isthmus[cli]'`. A store is named by its URL, such as
`sqlite:///cities.db`, `postgres://user@host/app`, `es+https://host:9200/index` or
`s3://bucket/prefix?region=eu-west-1`. `-` stands for `$ISTHMUS_URL`. A password comes from the URL,
from `$ISTHMUS_PASSWORD` (`$ISTHMUS_SOURCE_PASSWORD` and `$ISTHMUS_TARGET_PASSWORD` for the sides of
a copy), from the backend's own variables, or from a prompt (`-W`); it is never printed.

Every command takes `--json`, which prints one JSON document, or one for each record; an error is
then a JSON line on the error stream. `--debug` may stand anywhere and shows tracebacks.

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
tags = "red"                                   holds if the list tags has it
at >= datetime("2026-01-31T12:00Z")
_id > "k100" and _metadata.source = "import"
```

`and or not` (or `& | !`) bind as everywhere, parentheses group. Text is quoted by `"` or `'`; of backslash
escapes only `\\\\ \\" \\' \\n \\t \\r` are known, others stay as they are, so patterns are written plainly.
A filter that begins with `{` is the library's JSON:
`{"and": [{"field": "age", "op": ">=", "value": 25}]}`.
"""


def helps() -> dict[str, str]:
    """Return the help of `isthmus` and of each command, as printed at 80 columns."""
    import typer

    from isthmus.cli._app import app

    root: Any = typer.main.get_command(app)
    texts = {"isthmus": _help(root, "isthmus", None)}
    for name, command in root.commands.items():
        parent = root.context_class(root, info_name="isthmus", max_content_width=80, terminal_width=80)
        texts[f"isthmus {name}"] = _help(command, name, parent)
    return texts


def _help(command: Any, name: str, parent: Any) -> str:
    context = command.context_class(
        command,
        info_name=name,
        parent=parent,
        max_content_width=80,
        terminal_width=80,
        help_option_names=["-h", "--help"],
    )
    return str(command.get_help(context)).rstrip() + "\n"


def page() -> str:
    """Return the page."""
    codes = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in MEANINGS.items())
    commands = "".join(f"\n## {name}\n\n```\n{text}```\n" for name, text in helps().items())
    return _INTRO + codes + _FILTERS + commands


if __name__ == "__main__":
    sys.stdout.write(page())
