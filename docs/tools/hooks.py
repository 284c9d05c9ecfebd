"""MkDocs hooks: plain code fences, and navigation entries for pages that mkdocs.yml does not list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^( *```)(python|text)[ ]+(.+)$", re.M)


def on_config(config: Any) -> Any:
    """Append the pages of a section's folder that the navigation does not list.

    So a decision, or a generated page, needs no line in mkdocs.yml.
    """
    docs = Path(config["docs_dir"])
    for entry in config["nav"]:
        for section, folder in _GROWING.items():
            if section in entry:
                entry[section] = _grown(entry[section], docs, folder)
    return config


_GROWING = {"Reference": "reference", "Explanation": "explanation", "Decisions": "decisions"}


def _grown(pages: Any, docs: Path, folder: str) -> list[Any]:
    listed = pages if isinstance(pages, list) else []
    named = {name for page in listed for name in (page.values() if isinstance(page, dict) else [page])}
    found = sorted(path.relative_to(docs).as_posix() for path in (docs / folder).glob("*.md"))
    return [*listed, *(page for page in found if page not in named)]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page with plain code fences; `file=name` becomes the title of the block."""

    def plain(found: re.Match[str]) -> str:
        fence, language, words = found.groups()
        file = next((word.removeprefix("file=") for word in words.split() if word.startswith("file=")), None)
        return f"{fence}{language}" + (f' title="{file}"' if file else "")

    return _FENCE.sub(plain, markdown)
