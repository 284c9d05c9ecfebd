"""A search page over any store: `ISTHMUS_URL=es+http://localhost:9200/articles uvicorn examples.search:app`.

A form, results, and a link to the next page. Pages continue by cursor, which is correct under
concurrent writes and beyond 10,000 results. On Elasticsearch the words are analyzed if the index was
created with `?fulltext=text`; otherwise each word must occur in the title or the text.
"""

from __future__ import annotations

import os
from html import escape
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI
from fastapi import Query as Parameter
from fastapi.responses import HTMLResponse

from isthmus import AsyncDatabase, Query, Record, field, match
from isthmus.integrations.fastapi import Database, add_health, answer_errors, lifespan

URL = os.environ.get("ISTHMUS_URL", "memory://")
SIZE = 10

app = FastAPI(
    title="search", lifespan=lifespan(URL.split("://", 1)[0], {"url": URL, "resilience": "service"})
)
answer_errors(app)
add_health(app)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }}
form {{ display: flex; gap: .5rem }} input {{ flex: 1; font: inherit; padding: .4rem }}
button {{ font: inherit; padding: .4rem 1rem }} li {{ margin: 1rem 0 }} .note {{ color: #555 }}
</style></head><body>
<form role="search"><input name="q" value="{q}" aria-label="words" autofocus><button>Search</button></form>
<p class="note">{note}</p><ol>{items}</ol>{more}</body></html>"""


def build_query(db: AsyncDatabase, words: str) -> Query:
    """Return the query for `words`, newest first."""
    query = Query().sort("year", "desc")
    if words and db.capabilities.relevance and getattr(db.config, "fulltext", None):
        # Sorted by year all the same: cursors need a stable order, which a ranking does not have.
        return query.filter(match("text", words))
    for word in words.split():
        query = query.any_of(
            field("title").ilike(_contains_pattern(word)), field("text").ilike(_contains_pattern(word))
        )
    return query


def _contains_pattern(word: str) -> str:
    for special in ("\\", "%", "_"):
        word = word.replace(special, "\\" + special)
    return f"%{word}%"


@app.get("/", response_class=HTMLResponse)
async def page(
    db: Database,
    q: Annotated[str, Parameter(max_length=200)] = "",
    cursor: Annotated[str | None, Parameter(max_length=10_000)] = None,
) -> str:
    """Return one page of results as HTML."""
    query = build_query(db, q.strip())
    result = await db.page(query, size=SIZE, cursor=cursor)
    count = await db.count(query.where)
    more = ""
    if result.cursor is not None:
        more = f'<a rel="next" href="?{escape(urlencode({"q": q, "cursor": result.cursor}))}">More</a>'
    return PAGE.format(
        title=escape(q) or "search",
        q=escape(q),
        note=f"{count:,} found" if count else "Nothing found.",
        items="".join(map(_format_item, result.records)),
        more=more,
    )


def _format_item(record: Record) -> str:
    data = record.data
    return (
        f"<li><b>{escape(str(data.get('title', record.id)))}</b> {escape(str(data.get('year', '')))}<br>"
        + (f"{escape(str(data.get('text', '')))[:300]}</li>")
    )
