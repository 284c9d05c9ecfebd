"""The public contract for backends: everything that a backend by somebody else needs.

A backend implements `Backend` for its store, offers a `Plugin` under an entry point of the group
`isthmus.backends`, and passes the suite in `isthmus.testing.conformance`; the page "Write a
backend" goes through it step by step. Names here change with a note in the changelog only.

* The seam: `Backend`, `Executor`, `Support`, `TransactionExecutor`, the optional `SupportsDrop`,
  `SupportsIndexes`, `SupportsNativeSQL`, `SupportsSplit` and `SupportsTerminate`, and the values that
  they take and return.
* Tables that others made: `SortsIds`, `DescribesCollections` and `SupportsChangeStatements`.
* Writes: `apply_in_order` over `Rows` is the meaning of the five kinds of writes; the functions
  next to it make the errors that refuse an item.
* Modifications: `apply_changes` and `modify_in_order` are their meaning; `SupportsModify` is optional.
* Changes: `SupportsChanges` is optional; `Position`, `ChangePage` and `StoredChange` are its values;
  `SupportsHeldChanges` says by `HeldChanges` what holds readers back.
* Unique fields: `SupportsUnique` is optional; `key_in` and `canonical_text` are their meaning.
* Declared columns: `SupportsColumns` is optional; `DeclaredColumn` and `OddRows` are its values.
* Predicates: the leaves (`Equal`, `In`, `Like`, …) and `And`, `Or`, `Not`; `matches` evaluates them.
* Order: `cursor_position` and `sort_key` are the total order of records; `Groups` holds aggregates.
* Records: `Record.stored` wraps the JSON text of a stored record without decoding it; a `Hit` with its
  `Passage`s is what a ranked search found.
* Life: `Plugin`, `BackendConfig` with the settings `UniqueFields`, `ColumnSettings` and
  `ChangesSettings`, and `LoopBound`, which keeps one pool for each event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus._core.apply import (
    Rows,
    already_exists,
    apply_in_order,
    apply_one,
    merge_documents,
    not_found,
    not_written,
    refusal,
    refuse_batch,
    reject_invalid,
    version_conflict,
)
from isthmus._core.capabilities import Capabilities
from isthmus._core.changes import (
    ChangePage,
    HeldChanges,
    Position,
    StoredChange,
    SupportsChanges,
    SupportsChangeStatements,
    SupportsHeldChanges,
    missing_changes,
    no_changes,
    other_source,
    pruning_error,
)
from isthmus._core.columns import (
    DeclaredColumn,
    OddRows,
    SupportsColumns,
    check_kinds,
    columns_of,
    join_columns,
    missing_text,
)
from isthmus._core.executor import (
    MORE,
    After,
    AggregateRequest,
    AggregateResult,
    Backend,
    CountResult,
    DeleteResult,
    Executor,
    ItemResult,
    Mutation,
    NativePlan,
    Page,
    PageRequest,
    PoolStats,
    Support,
    TransactionExecutor,
    TransactionOptions,
    WriteKind,
    WriteResult,
)
from isthmus._core.loop_pools import LoopBound, LoopPool
from isthmus._core.modify import Modification, SupportsModify, SupportsModifyBatch
from isthmus._core.modify_rows import ModifiableRows, modify_in_order
from isthmus._core.mutation_batch import MutationBatch
from isthmus._core.registry import Plugin, import_driver
from isthmus._core.supports import (
    DescribesCollections,
    SortsIds,
    SupportsDrop,
    SupportsIndexes,
    SupportsNativeSQL,
    SupportsSplit,
    SupportsTerminate,
)
from isthmus._core.unique import (
    SupportsUnique,
    Unique,
    canonical_text,
    clash,
    has_duplicates,
    key_in,
    missing_unique,
    unique_from_json,
    unique_of,
)
from isthmus._ids import new_id, new_version
from isthmus._path import Path, Root
from isthmus._query.aggregate import Groups
from isthmus._query.ast import (
    FALSE,
    KNN,
    RANKED,
    TRUE,
    And,
    AnyObject,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    Function,
    In,
    Leaf,
    Like,
    Measure,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    Regex,
    SortKey,
    StartsWith,
    TextMatch,
    leaves,
)
from isthmus._query.bucket import Bucket, GroupKey
from isthmus._query.changes import FieldChange, apply_changes
from isthmus._query.codec import text as predicate_text
from isthmus._query.evaluate import leaf_matches, matches
from isthmus._query.order import BY_ID, cursor_position, sort_key, sort_records
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._search_hit import Hit, Passage
from isthmus._values import decode, encode

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig, ChangesSettings, ColumnSettings, SecretStr, UniqueFields

__all__ = [
    "BY_ID",
    "FALSE",
    "KNN",
    "MORE",
    "RANKED",
    "TRUE",
    "After",
    "AggregateRequest",
    "AggregateResult",
    "And",
    "AnyObject",
    "Backend",
    "BackendConfig",
    "Between",
    "Bucket",
    "Capabilities",
    "ChangePage",
    "ChangesSettings",
    "ColumnSettings",
    "Contains",
    "CountResult",
    "DeclaredColumn",
    "DeleteResult",
    "DescribesCollections",
    "EndsWith",
    "Equal",
    "EqualList",
    "Executor",
    "Exists",
    "FieldChange",
    "Function",
    "GroupKey",
    "Groups",
    "HeldChanges",
    "Hit",
    "In",
    "ItemResult",
    "Leaf",
    "Like",
    "LoopBound",
    "LoopPool",
    "Measure",
    "ModifiableRows",
    "Modification",
    "Mutation",
    "MutationBatch",
    "NativePlan",
    "Not",
    "OddRows",
    "Or",
    "Order",
    "Ordered",
    "Page",
    "PageRequest",
    "Passage",
    "Path",
    "Plugin",
    "PoolStats",
    "Position",
    "Predicate",
    "Pushdown",
    "Record",
    "Regex",
    "Root",
    "Rows",
    "SecretStr",
    "SortKey",
    "SortsIds",
    "StartsWith",
    "StoredChange",
    "Support",
    "SupportsChangeStatements",
    "SupportsChanges",
    "SupportsColumns",
    "SupportsDrop",
    "SupportsHeldChanges",
    "SupportsIndexes",
    "SupportsModify",
    "SupportsModifyBatch",
    "SupportsNativeSQL",
    "SupportsSplit",
    "SupportsTerminate",
    "SupportsUnique",
    "TextMatch",
    "TransactionExecutor",
    "TransactionOptions",
    "Unique",
    "UniqueFields",
    "WriteKind",
    "WriteResult",
    "already_exists",
    "apply_changes",
    "apply_in_order",
    "apply_one",
    "canonical_text",
    "check_kinds",
    "clash",
    "columns_of",
    "cursor_position",
    "decode",
    "encode",
    "has_duplicates",
    "import_driver",
    "join_columns",
    "key_in",
    "leaf_matches",
    "leaves",
    "matches",
    "merge_documents",
    "missing_changes",
    "missing_text",
    "missing_unique",
    "modify_in_order",
    "new_id",
    "new_version",
    "no_changes",
    "not_found",
    "not_written",
    "other_source",
    "predicate_text",
    "pruning_error",
    "refusal",
    "refuse_batch",
    "reject_invalid",
    "sort_key",
    "sort_records",
    "unique_from_json",
    "unique_of",
    "version_conflict",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use: a plugin is listed without pydantic.
    if name in ("BackendConfig", "ChangesSettings", "ColumnSettings", "SecretStr", "UniqueFields"):
        from isthmus._core import config

        return getattr(config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
