"""Why a store cannot: what lies behind each refusal of the backends that isthmus brings along."""

from __future__ import annotations

_TEXT = "keeps no index of words"
_VECTORS = "keeps no index of vectors"
REASONS: dict[tuple[str, str], str] = {
    ("memory", "relevance"): _TEXT,
    ("memory", "vectors"): _VECTORS,
    ("sqlite", "relevance"): f"{_TEXT}; its FTS5 tables are not used",
    ("sqlite", "vectors"): f"{_VECTORS} without an extension",
    ("postgres", "relevance"): f"{_TEXT} that ranks as BM25 does; its tsvector is not used",
    ("postgres", "vectors"): f"{_VECTORS} without the extension pgvector",
    ("elasticsearch", "transactions"): "writes each document by itself; the server has no transactions",
    ("elasticsearch", "savepoints"): "has no transactions to have savepoints in",
    ("elasticsearch", "for_update"): "has no locks",
    ("elasticsearch", "atomic_batch"): "writes the items of a bulk request each by itself",
    ("s3", "transactions"): "writes one object at a time; no request spans several",
    ("s3", "savepoints"): "has no transactions to have savepoints in",
    ("s3", "for_update"): "has no locks",
    ("s3", "atomic_batch"): "writes one object at a time, and here each record is one",
    ("s3", "consistent_stream"): "lists and reads objects as they are at that moment; it has no snapshots",
    ("s3", "relevance"): "has no query language",
    ("s3", "vectors"): "has no query language",
    ("s3", "conditional_create"): "ignores If-None-Match on this server",
    ("s3", "compare_and_set"): "ignores If-Match on this server",
    (
        "sqlalchemy",
        "consistent_stream",
    ): "is any database: not all keep a snapshot while a stream is read",
    ("sqlalchemy", "relevance"): "is any database: each has a full-text language of its own",
    ("sqlalchemy", "vectors"): "is any database: few have vectors",
}


def reason(backend: str, capability: str) -> str:
    """Return why a backend lacks a capability; empty if that is not known here."""
    return REASONS.get((backend, capability), "")
