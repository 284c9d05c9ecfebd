"""The command that rewrites the records of older schemas of a model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus import Collection, ConfigError, UsageError
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._options import AsJson, PromptPassword, RequiredStore
from isthmus.cli._output import print_facts, print_json, print_note
from isthmus.cli._stores import resolve_store, run_on_store
from isthmus.transfer import Migration
from isthmus.transfer import migrate as migrate_collection

if TYPE_CHECKING:
    from pydantic import BaseModel

CollectionArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="Collection to migrate.")]
ModelName = Annotated[str, typer.Argument(metavar="MODULE:MODEL", help="Model with upgrade functions.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; report what would be done.")]
BatchSize = Annotated[int, typer.Option("--batch", metavar="N", help="Records per batch.")]
SchemaKey = Annotated[
    str, typer.Option("--schema-key", metavar="KEY", help="Metadata key of the schema number.")
]


def migrate(
    store: RequiredStore,
    collection: CollectionArgument,
    model: ModelName,
    *,
    dry_run: DryRun = False,
    batch: BatchSize = 500,
    schema_key: SchemaKey = "schema",
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Rewrite records of older schemas of a model; exit code 6 if some fail.

    A record is written only if it is as it was read, so that it may run beside
    writers. A run that was killed goes on where it was when started again.
    """
    from isthmus.typed import TypedCollection  # loads pydantic, as the model does

    imported = import_model(model)
    address = resolve_store(store, collection, prompt=prompt)

    async def work(target: Collection) -> Migration:
        typed = TypedCollection(target, imported, schema_key=schema_key)
        return await migrate_collection(typed, batch_size=batch, dry_run=dry_run, on_progress=_show_progress)

    # Opened without `writes`: a collection that is not there has nothing to migrate, so it is not made.
    migration = run_on_store(address, work)
    if as_json:
        print_json({"dry_run": dry_run, **migration.to_json()})
    else:
        _print_migration(migration, dry_run=dry_run)
    if migration.failed:
        raise CommandError(
            f"{migration.failed} of {migration.read} records cannot be migrated", ExitCode.RECORDS
        )


def import_model(name: str) -> type[BaseModel]:
    """Return the model `module:Model`; modules of the current folder can be imported."""
    from pydantic import BaseModel  # most commands need no model

    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"{name!r}: expected module:Model")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name}: {error}") from None
    finally:
        sys.path.pop(0)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"{name} is no pydantic model")
    return model


def _show_progress(migration: Migration) -> None:
    if sys.stderr.isatty():
        print_note(f"{migration.read} read, {migration.migrated} migrated, {migration.failed} failed")


def _print_migration(migration: Migration, *, dry_run: bool) -> None:
    facts: list[tuple[str, Any]] = [
        ("of older schemas", migration.read),
        ("would be migrated" if dry_run else "migrated", migration.migrated),
        ("overtaken", migration.overtaken),
        ("failed", migration.failed),
    ]
    facts += [
        (f"{count} fail", f"{reason} (such as {migration.examples[reason]!r})")
        for reason, count in migration.reasons.items()
    ]
    print_facts(facts)
