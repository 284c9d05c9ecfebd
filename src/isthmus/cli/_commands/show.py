"""`isthmus STORE`: what is in a store, and a prompt for questions."""

from __future__ import annotations

import asyncio
import sys

from isthmus import Query
from isthmus.cli._commands.fields import (
    All,
    build_profile,
    build_text_profile,
    load_libraries,
    print_profile,
    profile_to_json,
)
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, RequiredStore
from isthmus.cli._output import print_json
from isthmus.cli._profile import Profile
from isthmus.cli._prompt import Prompt
from isthmus.cli._stores import StoreAddress, open_store, resolve_store


def show(
    store: RequiredStore,
    collection: CollectionName = None,
    *,
    everything: All = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> Prompt | None:
    """Describe a store or a file, and ask for questions where there is a terminal.

    Nothing is written or created. The same as `isthmus STORE`.
    """
    address = resolve_store(store, collection, prompt=prompt)
    load_libraries(address)
    profile, total, names = asyncio.run(_describe(address, everything=everything))
    if as_json:
        described = {} if profile is None else profile_to_json(profile, total)
        print_json({"store": address.display_name, "collections": names, **described})
        return None
    sys.stdout.write(f"{address.display_name}\n")
    if names is not None:
        listed = "\n".join(f"  {name}" for name in names)
        sys.stdout.write(f"collections (-c NAME describes one):\n{listed}\n" if names else "no collections\n")
    if profile is None:
        return None
    print_profile(profile, total)
    if sys.stdin.isatty() and sys.stdout.isatty():
        return Prompt(address, list(profile.fields))
    return None


async def _describe(
    address: StoreAddress, *, everything: bool
) -> tuple[Profile | None, int | None, list[str] | None]:
    """Return the profile of the collection and its size, or the names of all if none is chosen."""
    async with open_store(address) as (db, names):
        if names is not None:
            if len(names) != 1:
                return None, 0, names
            address = StoreAddress(address.url, names[0], address.password)
        else:
            collection = db.collection(db.collection_name)
            profile, total = await build_profile(collection, Query(), everything=everything)
            if profile.records == 0 and total is None:
                profile = await build_text_profile(address, Query())
            return profile, total, None
    return await _describe(address, everything=everything)
