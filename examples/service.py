"""A web service on any store: `uvicorn examples.service:app`; ISTHMUS_URL is the store."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from isthmus.integrations.fastapi import Database, Search, add_health, answer_errors, lifespan, shape

URL = os.environ.get("ISTHMUS_URL", "memory://")

app = FastAPI(title="people", lifespan=lifespan(URL.split("://", 1)[0], {"url": URL}))
answer_errors(app)
add_health(app)


@app.get("/people")
async def search(db: Database, search: Search) -> dict[str, Any]:
    """Return one page of people: `?filter={"field":"age","op":">=","value":25}&sort=-age&size=20`."""
    return await search.page(db)


@app.post("/people", status_code=201)
async def create(db: Database, person: dict[str, Any]) -> dict[str, str]:
    """Create a person."""
    return {"id": await db.create(person)}


@app.get("/people/{id}")
async def get(db: Database, id: str) -> dict[str, Any]:
    """Return a person, or 404."""
    return shape(await db.require(id))


@app.patch("/people/{id}")
async def update(db: Database, id: str, patch: dict[str, Any], version: str | None = None) -> dict[str, str]:
    """Merge fields into a person; with `version`, 409 if the person has changed since."""
    return {"version": await db.update(id, patch, if_version=version)}


@app.delete("/people/{id}")
async def delete(db: Database, id: str) -> dict[str, bool]:
    """Delete a person."""
    return {"deleted": await db.delete(id)}
