"""The public surface, and what importing it loads."""

import pickle
import subprocess
import sys

import isthmus
from isthmus import errors, typed

PUBLIC = [
    "AccessError",
    "AlreadyExistsError",
    "Applied",
    "AsyncDatabase",
    "AsyncElasticsearchDatabase",
    "AsyncMemoryDatabase",
    "AsyncPostgresDatabase",
    "AsyncS3Database",
    "AsyncSQLiteDatabase",
    "BatchError",
    "Capabilities",
    "Change",
    "ChangeStream",
    "ChangesExpiredError",
    "CircuitOpenError",
    "ClosedError",
    "Collection",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "CursorPage",
    "DeadlineError",
    "Explanation",
    "Field",
    "Hit",
    "Indexed",
    "InvalidRecordError",
    "IsthmusError",
    "MissingExtraError",
    "NotFoundError",
    "NotWrittenError",
    "Outcomes",
    "Passage",
    "Policy",
    "PoolTimeoutError",
    "Query",
    "QueryError",
    "RateLimitedError",
    "Record",
    "RecordError",
    "RecordStream",
    "SerializationError",
    "Stats",
    "StoreError",
    "StreamReceipt",
    "Transaction",
    "TransactionError",
    "UnavailableError",
    "UnexpectedError",
    "UnsupportedError",
    "UsageError",
    "field",
    "match",
    "nearest",
]


def test_the_exported_names_are_pinned() -> None:
    """A name is added or removed on purpose only."""
    assert sorted(isthmus.__all__) == sorted(PUBLIC)
    assert all(hasattr(isthmus, name) for name in PUBLIC)


def test_the_names_of_typed_queries_are_pinned() -> None:
    """The helpers of lambdas are a module of their own: importing isthmus loads no pydantic."""
    assert sorted(typed.__all__) == [
        "Condition", "ListField", "TextField",
        "TypedCollection", "TypedField", "TypedHit", "TypedPage", "TypedQuery", "TypedStream",
        "Version", "avg", "count", "each", "f", "like", "max_", "maybe", "min_", "not_", "one_of", "some",
        "sum_", "upgrade",
    ]  # fmt: skip


def test_every_error_is_exported_and_has_the_root() -> None:
    """One root, so that one `except` catches all."""
    for name in errors.__all__:
        assert name in isthmus.__all__
        kind = getattr(errors, name)
        assert name == "Applied" or issubclass(kind, errors.IsthmusError)


def test_outages_and_timeouts_are_also_the_builtin_errors() -> None:
    """Code that knows only the builtins still sees what happened."""
    assert issubclass(errors.UnavailableError, ConnectionError)
    assert issubclass(errors.PoolTimeoutError, TimeoutError)
    assert issubclass(errors.DeadlineError, TimeoutError)
    assert not issubclass(errors.NotFoundError, errors.StoreError)


def test_errors_survive_pickling_with_their_attributes() -> None:
    """A worker process may send them home."""
    error = errors.BatchError("two failed", outcomes=["id", errors.NotFoundError("gone", record_id="x")])

    again = pickle.loads(pickle.dumps(error))

    assert str(again) == "two failed"
    assert again.outcomes[1].record_id == "x"


def test_importing_loads_no_driver_and_nothing_slow() -> None:
    """pydantic, importlib.metadata, sqlite3 and drivers are loaded on first use only."""
    code = (
        "import sys; from isthmus import AsyncDatabase, Query, Record, field;"
        "print([m for m in ('pydantic', 'importlib.metadata', 'sqlite3', 'asyncpg', 'psycopg',"
        " 'elasticsearch', 'aiohttp', 'aioboto3', 'botocore', 'obstore', 'sqlalchemy', 'typer', 'rich')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
