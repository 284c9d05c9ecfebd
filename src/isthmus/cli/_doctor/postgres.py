"""Checks of a PostgreSQL server, its table, and the settings to connect with."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, cast

import orjson

from isthmus.cli._doctor.finding import Finding, check_clock, cleartext_problem, ok, problem, warning
from isthmus.cli._doctor.postgres_changes import check_changes, check_native_changes
from isthmus.cli._doctor.postgres_native import check_native

if TYPE_CHECKING:
    from isthmus import AsyncDatabase
    from isthmus.backends.postgres.config import PostgresConfig

_MAX_SKEW = 5.0
_OLDEST_VERSION = 130000
_MAX_TRANSACTION_AGE = 1_500_000_000

# Each query gives one JSON object, because drivers differ in whether rows have names.
_SERVER = """
SELECT row_to_json(facts)::text FROM (SELECT current_setting('server_version_num')::int AS number,
  current_setting('server_version') AS version,
  extract(epoch FROM clock_timestamp())::numeric(20, 6) AS now,
  pg_is_in_recovery() AS standby,
  current_setting('transaction_read_only') = 'on' AS read_only,
  pg_encoding_to_char(encoding) AS encoding,
  current_setting('max_connections')::int AS max_connections,
  current_setting('superuser_reserved_connections')::int AS reserved,
  (SELECT count(*) FROM pg_stat_activity
   WHERE backend_type = 'client backend'
   AND application_name <> current_setting('application_name')) AS others,
  datconnlimit AS database_limit,
  (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
  current_setting('synchronous_commit') AS synchronous_commit,
  current_setting('fsync') AS fsync,
  (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout,
  age(datfrozenxid) AS age,
  inet_server_port() AS port,
  coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls
FROM pg_database WHERE datname = current_database()) facts"""

_TABLE = """
SELECT row_to_json(facts)::text FROM (SELECT
  has_table_privilege(c.oid, 'SELECT') AS may_select,
  has_table_privilege(c.oid, 'INSERT') AS may_insert,
  has_table_privilege(c.oid, 'UPDATE') AS may_update,
  has_table_privilege(c.oid, 'DELETE') AS may_delete,
  coalesce('autovacuum_enabled=false' = ANY (c.reloptions)
           OR 'autovacuum_enabled=off' = ANY (c.reloptions), false) AS vacuum_off,
  array(SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = c.oid AND NOT x.indisvalid) AS broken,
  coalesce(s.n_live_tup, 0) AS live, coalesce(s.n_dead_tup, 0) AS dead
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE n.nspname = $1 AND c.relname = $2) facts"""


def check_config(config: PostgresConfig) -> Iterator[Finding]:
    """Check the settings, without connecting."""
    mode = "disable" if config.ssl is False else config.ssl
    remote = [host for host, _ in config.addresses() if not _is_local(host)]
    if remote and mode in ("disable", "allow", "prefer"):
        yield cleartext_problem(
            f"ssl={mode} to {remote[0]}",
            "set ssl=verify-full, with ssl_root_cert= for an authority of your own",
        )
    elif remote and mode in ("require", True):
        yield warning(
            "tls",
            "encrypted, but the server's name is not verified: an impostor would not be noticed",
            "set ssl=verify-full",
        )
    else:
        yield ok("tls", f"{mode or 'fully verified, except on loopback'}")


def _is_local(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def check_server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check the server, the session and the table."""
    config = cast("PostgresConfig", db.config)
    pool = await db._backend.native()
    async with pool.acquire() as connection:
        start = time.time()
        server: dict[str, Any] = orjson.loads(await connection.fetchval(_SERVER))
        skew = server["now"] - (start + time.time()) / 2
        yield ok("connection", f"PostgreSQL {server['version']}" + (", TLS" if server["tls"] else ""))
        yield _check_version(server)
        yield check_clock(skew, _MAX_SKEW)
        yield _check_writable(server)
        for finding in _check_database(server):
            yield finding
        yield _check_pool_size(server, config.pool.max_size)
        yield _check_pooler(server, config)
        if config.layout == "native":
            async for finding in _check_native(connection, config):
                yield finding
            return
        table = await connection.fetchval(_TABLE, config.schema_name, config.table)
        if table is not None:
            for finding in _check_table(orjson.loads(table), config):
                yield finding
            async for finding in check_changes(connection, config):
                yield finding


async def _check_native(connection: Any, config: PostgresConfig) -> AsyncIterator[Finding]:
    from isthmus.backends.postgres.native.catalog import read_table

    table = await read_table(connection, config, config.table)
    async for finding in check_native(connection, table):
        yield finding
    async for finding in check_native_changes(connection, table):
        yield finding


def _check_version(server: dict[str, Any]) -> Finding:
    version = str(server["version"])
    if server["number"] < _OLDEST_VERSION:
        return problem("version", f"{version} is too old", "upgrade the server to 13 or newer")
    return ok("version", version)


def _check_writable(server: dict[str, Any]) -> Finding:
    if server["standby"]:
        return problem(
            "writable",
            "this server is a standby: it refuses writes",
            "connect to the primary, or name all hosts with target_session_attrs=read-write",
        )
    if server["read_only"]:
        return problem(
            "writable",
            "sessions are read-only by default",
            "ALTER DATABASE ... RESET default_transaction_read_only (or of the role)",
        )
    return ok("writable", "yes")


def _check_database(server: dict[str, Any]) -> Iterator[Finding]:
    """Check encoding, durability, timeouts and the age of transactions."""
    if server["encoding"] != "UTF8":
        yield problem(
            "encoding",
            f"the encoding is {server['encoding']}: text beyond ASCII is refused or damaged",
            "create a database with ENCODING 'UTF8' TEMPLATE template0 and copy the records into it",
        )
    else:
        yield ok("encoding", "UTF8")
    if server["fsync"] == "off":
        yield warning(
            "durability",
            "fsync is off: a power cut can destroy the whole cluster",
            "set fsync = on in postgresql.conf and reload, unless all of it can be lost",
        )
    if server["synchronous_commit"] == "off":
        yield warning(
            "durability",
            "synchronous_commit is off: a crash loses the last commits",
            "RESET synchronous_commit for the role, the database or in postgresql.conf",
        )
    elif server["fsync"] == "on":
        yield ok("durability", "a commit is on disk when it returns")
    if 0 < server["statement_timeout"] < 1000:
        yield warning(
            "timeouts",
            f"statement_timeout is {server['statement_timeout']} ms: batches will be cancelled",
            "ALTER ROLE ... RESET statement_timeout, and set command_timeout here instead",
        )
    if server["age"] > _MAX_TRANSACTION_AGE:
        yield problem(
            "wraparound",
            f"the oldest transaction is {server['age']:,} old; at 2,100,000,000 writes stop",
            "VACUUM (FREEZE) the oldest tables now, and find out why autovacuum does not",
        )


def _check_pool_size(server: dict[str, Any], max_size: int) -> Finding:
    limits = [server["max_connections"] - server["reserved"]]
    limits += [n for n in (server["database_limit"], server["role_limit"]) if n is not None and n >= 0]
    free = min(limits) - server["others"]
    if max_size <= free:
        return ok("pool size", f"{max_size} of {free} free connections")
    return problem(
        "pool size",
        f"pool.max_size is {max_size}, but only {free} more connections fit"
        f" (the limit is {min(limits)}, others hold {server['others']})",
        f"set pool.max_size to {max(1, free // 2)} or less for each process, or use PgBouncer",
    )


def _check_pooler(server: dict[str, Any], config: PostgresConfig) -> Finding:
    ports = {port for _, port in config.addresses()}
    forwarded = server["port"] is not None and server["port"] not in ports
    if forwarded and config.pooler == "none":
        return warning(
            "pooler",
            f"the server listens on {server['port']}, the client connects to"
            f" {', '.join(map(str, sorted(ports)))}: a pooler or forwarder is in between",
            "if each transaction can get another session (PgBouncer's pool_mode=transaction),"
            " add pooler=transaction",
        )
    if config.pooler == "transaction" and not forwarded:
        return warning(
            "pooler",
            "pooler=transaction, but no pooler was noticed: statements are not prepared",
            "leave pooler=transaction out for direct connections: reads are faster",
        )
    return ok("pooler", config.pooler)


def _check_table(table: dict[str, Any], config: PostgresConfig) -> Iterator[Finding]:
    name = f'"{config.schema_name}"."{config.table}"'
    missing = [kind for kind in ("select", "insert", "update", "delete") if not table[f"may_{kind}"]]
    if missing:
        privileges = ", ".join(missing).upper()
        yield problem(
            "privileges",
            f"the user may not {privileges} on {name}",
            f"as the table's owner: GRANT {privileges} ON {name} TO <user>",
        )
    else:
        yield ok("privileges", "select, insert, update, delete")
    if table["broken"]:
        yield problem(
            "indexes",
            f"invalid, so written but never used: {', '.join(table['broken'])}",
            f"REINDEX INDEX CONCURRENTLY for each of them (schema {config.schema_name})",
        )
    else:
        yield ok("indexes", "all valid")
    if table["vacuum_off"]:
        yield warning(
            "vacuum",
            f"autovacuum is off for {name}: the table only grows and plans become outdated",
            f"ALTER TABLE {name} RESET (autovacuum_enabled)",
        )
    elif table["dead"] > 10_000 and table["dead"] > table["live"]:
        yield warning(
            "vacuum",
            f"{table['dead']:,} dead rows and only {table['live']:,} live ones",
            f"VACUUM ANALYZE {name}, and look for sessions that stay idle in transaction",
        )
    else:
        yield ok("vacuum", f"{table['dead']:,} dead rows")
