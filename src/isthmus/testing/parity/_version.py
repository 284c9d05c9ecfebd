"""The versions of a store's server and driver."""

from __future__ import annotations

import sqlite3
import sys
from importlib.metadata import version

from isthmus import AsyncDatabase, native

_PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


async def version_of(db: AsyncDatabase) -> str:
    """Return the versions of a database's server and driver, such as `PostgreSQL 15.18, asyncpg 0.31.0`.

    Costs one request to the server.
    """
    match db.backend:
        case "memory":
            return f"in this process, {_PYTHON}"
        case "sqlite":
            return f"SQLite {sqlite3.sqlite_version}, {_PYTHON}"
        case "postgres":
            return await _postgres_version(db)
        case "elasticsearch":
            return await _elasticsearch_version(db)
        case "s3":
            return await _s3_version(db)
        case "sqlalchemy":
            return await _sqlalchemy_version(db)
        case other:
            return other


async def _postgres_version(db: AsyncDatabase) -> str:
    pool = await native.postgres(db)
    number = str(await pool.fetchval("SELECT current_setting('server_version')")).split()[0]
    driver = str(getattr(db.config, "driver", "asyncpg"))
    return f"PostgreSQL {number}, {driver} {version(driver)}"


async def _elasticsearch_version(db: AsyncDatabase) -> str:
    client = await native.elasticsearch(db)
    info = await client.nodes.info(node_id="_local", filter_path="nodes.*.version")
    number = next(iter(info["nodes"].values()))["version"]
    return f"Elasticsearch {number}, elasticsearch {version('elasticsearch')}"


async def _s3_version(db: AsyncDatabase) -> str:
    client = await native.s3(db)
    response = await client.list_buckets()
    server = response["ResponseMetadata"]["HTTPHeaders"].get("server", "S3")
    transport = str(getattr(db.config, "transport", "obstore"))
    return f"{server}, {transport} {version(transport)}"


async def _sqlalchemy_version(db: AsyncDatabase) -> str:
    engine = await native.sqlalchemy(db)
    async with engine.connect():
        number = ".".join(map(str, engine.dialect.server_version_info or ()))
    name = f"{engine.dialect.name} {number}".strip()
    return f"{name}, {engine.dialect.driver}, SQLAlchemy {version('sqlalchemy')}"
