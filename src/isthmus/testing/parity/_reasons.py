"""Reasons why the built-in backends lack a capability."""

from __future__ import annotations

_TEXT = "has no full-text index"
_VECTORS = "has no vector index"
_READ_ONLY = "reads what others wrote, and writes nothing"
_READ_THEN_WRITE = "changes by a read and a write under the version that was read"
_NO_POLICIES = "has no policies"
_EVERY_RECORD = "evaluates conditions on whole records; a column would not be read"
_NO_TRACE = "leaves nothing behind where a record was deleted"
REASONS: dict[tuple[str, str], str] = {
    ("memory", "relevance"): _TEXT,
    ("memory", "vectors"): _VECTORS,
    ("sqlite", "relevance"): f"{_TEXT}; FTS5 tables are not used",
    ("sqlite", "vectors"): f"{_VECTORS} without an extension",
    ("postgres", "relevance"): f"{_TEXT} that ranks by BM25; tsvector is not used",
    ("postgres", "vectors"): f"{_VECTORS} without the extension pgvector",
    ("elasticsearch", "transactions"): "writes each document separately; the server has no transactions",
    ("elasticsearch", "savepoints"): "has no transactions, so no savepoints",
    ("elasticsearch", "for_update"): "has no locks",
    ("elasticsearch", "atomic_batch"): "applies each item of a bulk request separately",
    ("s3", "transactions"): "writes one object at a time; no request spans several",
    ("s3", "savepoints"): "has no transactions, so no savepoints",
    ("s3", "for_update"): "has no locks",
    ("s3", "atomic_batch"): "writes one object at a time, and each record is an object",
    ("s3", "consistent_stream"): "lists and reads the current objects; it has no snapshots",
    ("s3", "relevance"): "has no query language",
    ("s3", "vectors"): "has no query language",
    ("s3", "conditional_create"): "ignores If-None-Match on this server",
    ("s3", "compare_and_set"): "ignores If-Match on this server",
    ("sqlalchemy", "consistent_stream"): "may be any database, and not all keep a snapshot for a stream",
    ("sqlalchemy", "relevance"): "may be any database, each with its own full-text language",
    ("sqlalchemy", "vectors"): "may be any database, and few have vectors",
    ("memory", "modify"): _READ_THEN_WRITE,
    ("memory", "row_security"): _NO_POLICIES,
    ("sqlite", "row_security"): _NO_POLICIES,
    ("elasticsearch", "modify"): _READ_THEN_WRITE,
    ("elasticsearch", "unique"): "has no constraint but that on the document's id",
    ("elasticsearch", "row_security"): f"{_NO_POLICIES} that a request could choose",
    ("s3", "modify"): _READ_THEN_WRITE,
    ("s3", "unique"): "checks nothing across objects; layout `log` does",
    ("s3", "row_security"): _NO_POLICIES,
    ("sqlalchemy", "modify"): _READ_THEN_WRITE,
    ("sqlite", "changes"): "keeps none yet",
    ("postgres", "changes"): "keeps none yet",
    ("elasticsearch", "changes"): _NO_TRACE,
    ("s3", "changes"): f"{_NO_TRACE}, but layout log has them",
    ("sqlalchemy", "changes"): f"may be any database, and {_NO_TRACE}",
    ("sqlalchemy", "unique"): "locks tables on SQLite, PostgreSQL, MySQL and MariaDB only",
    ("sqlalchemy", "row_security"): "may be any database, and few have policies",
    ("files", "unique"): _READ_ONLY,
    ("memory", "columns"): _EVERY_RECORD,
    ("elasticsearch", "columns"): "has a typed field for each path of its own accord",
    ("s3", "columns"): _EVERY_RECORD,
    ("sqlalchemy", "columns"): "may be any database, and few can compute columns from JSON",
    ("files", "columns"): _READ_ONLY,
    ("files", "changes"): _NO_TRACE,
    ("files", "writes"): "reads what others wrote",
    ("files", "transactions"): _READ_ONLY,
    ("files", "savepoints"): _READ_ONLY,
    ("files", "for_update"): _READ_ONLY,
    ("files", "atomic_batch"): _READ_ONLY,
    ("files", "conditional_create"): _READ_ONLY,
    ("files", "compare_and_set"): _READ_ONLY,
    ("files", "modify"): _READ_ONLY,
    ("files", "row_security"): _READ_ONLY,
    ("files", "relevance"): "has no query language",
    ("files", "vectors"): "has no query language",
}


def reason(backend: str, capability: str) -> str:
    """Return why a backend lacks a capability; empty if the reason is not listed."""
    return REASONS.get((backend, capability), "")
