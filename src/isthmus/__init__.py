"""One async Python interface to PostgreSQL, Elasticsearch and S3, with SQLite and memory embedded."""

from isthmus._batch import Outcomes
from isthmus._change_stream import Change, ChangeStream
from isthmus._collection import Collection
from isthmus._core.capabilities import Capabilities
from isthmus._database import AsyncDatabase
from isthmus._explain import Explanation
from isthmus._index_annotation import Indexed
from isthmus._named import (
    AsyncElasticsearchDatabase,
    AsyncMemoryDatabase,
    AsyncPostgresDatabase,
    AsyncS3Database,
    AsyncSQLiteDatabase,
)
from isthmus._query.field import Field, field, match, nearest
from isthmus._query.query import Query
from isthmus._reads import CursorPage
from isthmus._record import Record
from isthmus._search_hit import Hit, Passage
from isthmus._session import Stats
from isthmus._stream import RecordStream
from isthmus._transaction import Transaction
from isthmus._writes import StreamReceipt
from isthmus.errors import (
    AccessError,
    AlreadyExistsError,
    Applied,
    BatchError,
    ChangesExpiredError,
    CircuitOpenError,
    ClosedError,
    ConfigError,
    ConflictError,
    ConnectError,
    DeadlineError,
    InvalidRecordError,
    IsthmusError,
    MissingExtraError,
    NotFoundError,
    NotWrittenError,
    PoolTimeoutError,
    QueryError,
    RateLimitedError,
    RecordError,
    SerializationError,
    StoreError,
    TransactionError,
    UnavailableError,
    UnexpectedError,
    UnsupportedError,
    UsageError,
)
from isthmus.layers._policy import Policy

__version__ = "0.1.0"

__all__ = [
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
