"""Checks of a PostgreSQL server and of the settings to use it with."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from isthmus.cli.doctor._finding import Finding, ok, warning, wrong

if TYPE_CHECKING:
    from isthmus import AsyncDatabase
    from isthmus.backends.postgres.config import PostgresConfig
    from isthmus.backends.postgres.drivers.protocol import Connection

_SKEW = 5.0
_OLDEST = 130000

_SERVER = """
SELECT current_setting('server_version_num')::int AS number,
  current_setting('server_version') AS version,
  extract(epoch FROM clock_timestamp())::float8 AS now,
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
  coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls,
  pg_database_size(datname) AS size
FROM pg_database WHERE datname = current_database()"""

_TABLE = """
SELECT c.oid::int8 AS oid,
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
WHERE n.nspname = $1 AND c.relname = $2"""


def config(config: PostgresConfig) -> Iterator[Finding]:
    """Check what can be seen without a connection."""
    mode = "disable" if config.ssl is False else config.ssl
    remote = [host for host, _ in config.addresses() if not _local(host)]
    if remote and mode in ("disable", "allow", "prefer"):
        yield wrong(
            "tls",
            f"ssl={mode}: passwords and data go to {remote[0]} readable for all on the way",
            "set ssl=verify-full, with ssl_root_cert= if the authority is your own",
        )
    elif remote and mode in ("require", True):
        yield warning(
            "tls",
            "encrypted, but the server's name is not checked: an impostor would not be noticed",
            "set ssl=verify-full",
        )
    else:
        yield ok("tls", f"{mode or 'verified in full off this machine'}")


def _local(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check the server, the session and the table."""
    settings: Any = db.config
    pool = await db._backend.native()
    async with pool.acquire() as connection:
        start = time.time()
        seen = await connection.fetchrow(_SERVER)
        middle = (start + time.time()) / 2
        facts = dict(zip(_names(_SERVER_NAMES), seen, strict=True))
        yield ok("connection", f"PostgreSQL {facts['version']}" + (", TLS" if facts["tls"] else ""))
        for finding in _of_server(facts, middle):
            yield finding
        for finding in _of_pool(facts, settings):
            yield finding
        async for finding in _of_table(connection, settings, facts):
            yield finding


_SERVER_NAMES = (
    "number version now standby read_only encoding max_connections reserved others database_limit role_limit"
    " synchronous_commit fsync statement_timeout age port tls size"
)
_TABLE_NAMES = "oid may_select may_insert may_update may_delete vacuum_off broken live dead"


def _names(text: str) -> list[str]:
    return text.split()


def _of_server(facts: dict[str, Any], now: float) -> Iterator[Finding]:
    if facts["number"] < _OLDEST:
        yield wrong("version", f"{facts['version']} is too old", "upgrade the server to 13 or newer")
    else:
        yield ok("version", str(facts["version"]))
    skew = facts["now"] - now
    if abs(skew) > _SKEW:
        yield wrong(
            "clock",
            f"the server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's",
            "let both follow a time server (chronyd, systemd-timesyncd); certificates and times depend on it",
        )
    else:
        yield ok("clock", f"{skew:+.2f} s")
    if facts["standby"]:
        yield wrong(
            "writable",
            "this server is a standby: it refuses writes",
            "connect to the primary, or give all hosts with target_session_attrs=read-write",
        )
    elif facts["read_only"]:
        yield wrong(
            "writable",
            "sessions are read-only by default",
            "ALTER DATABASE ... RESET default_transaction_read_only (or of the role)",
        )
    else:
        yield ok("writable", "yes")
    if facts["encoding"] != "UTF8":
        yield wrong(
            "encoding",
            f"the database is {facts['encoding']}: text beyond ASCII is refused or damaged",
            "create the database anew with ENCODING 'UTF8' TEMPLATE template0 and copy into it",
        )
    else:
        yield ok("encoding", "UTF8")
    if facts["fsync"] == "off":
        yield warning(
            "durability",
            "fsync is off: a power cut can destroy the whole cluster",
            "set fsync = on in postgresql.conf and reload, unless all of it can be lost",
        )
    if facts["synchronous_commit"] == "off":
        yield warning(
            "durability",
            "synchronous_commit is off: a crash loses the last commits",
            "RESET synchronous_commit for the role, the database or in postgresql.conf",
        )
    elif facts["fsync"] == "on":
        yield ok("durability", "a commit is on disk when it returns")
    if 0 < facts["statement_timeout"] < 1000:
        yield warning(
            "timeouts",
            f"statement_timeout is {facts['statement_timeout']} ms: batches will be cut off",
            "ALTER ROLE ... RESET statement_timeout, and set command_timeout here instead",
        )
    if facts["age"] > 1_500_000_000:
        yield wrong(
            "wraparound",
            f"the oldest transaction is {facts['age']:,} old; at 2,100,000,000 writes stop",
            "VACUUM (FREEZE) the oldest tables now, and see why autovacuum does not",
        )


def _of_pool(facts: dict[str, Any], settings: Any) -> Iterator[Finding]:
    limits = [facts["max_connections"] - facts["reserved"]]
    limits += [
        limit for limit in (facts["database_limit"], facts["role_limit"]) if limit is not None and limit >= 0
    ]
    free = min(limits) - facts["others"]
    size = settings.pool.max_size
    if size > free:
        yield wrong(
            "pool size",
            f"pool.max_size is {size}, but only {free} more connections fit"
            f" (the limit is {min(limits)}, others hold {facts['others']})",
            f"set pool.max_size to {max(1, free // 2)} or less for each process, or put PgBouncer in front",
        )
    else:
        yield ok("pool size", f"{size} of {free} free connections")
    asked = {port for _, port in settings.addresses()}
    behind = facts["port"] is not None and facts["port"] not in asked
    if behind and settings.pooler == "none":
        yield warning(
            "pooler",
            f"the server listens on {facts['port']}, we connect to {', '.join(map(str, sorted(asked)))}:"
            " a pooler or forwarder is between",
            "if it gives each transaction another session (PgBouncer's pool_mode=transaction),"
            " add pooler=transaction",
        )
    elif settings.pooler == "transaction" and not behind:
        yield warning(
            "pooler",
            "pooler=transaction, but no pooler was noticed: statements are not prepared",
            "leave pooler=transaction out for direct connections: reads are faster",
        )
    else:
        yield ok("pooler", settings.pooler)


async def _of_table(connection: Connection, settings: Any, facts: dict[str, Any]) -> AsyncIterator[Finding]:
    row = await connection.fetchrow(_TABLE, settings.schema_name, settings.table)
    if row is None:
        return
    table = dict(zip(_names(_TABLE_NAMES), row, strict=True))
    name = f'"{settings.schema_name}"."{settings.table}"'
    lacking = [verb for verb in ("select", "insert", "update", "delete") if not table[f"may_{verb}"]]
    if lacking:
        verbs = ", ".join(lacking).upper()
        yield wrong(
            "privileges",
            f"the user may not {verbs} on {name}",
            f"as the table's owner: GRANT {verbs} ON {name} TO <user>",
        )
    else:
        yield ok("privileges", "select, insert, update, delete")
    if table["broken"]:
        broken = ", ".join(table["broken"])
        yield wrong(
            "indexes",
            f"invalid, so never used but always written: {broken}",
            f"REINDEX INDEX CONCURRENTLY for each of them (schema {settings.schema_name})",
        )
    else:
        yield ok("indexes", "all valid")
    if table["vacuum_off"]:
        yield warning(
            "vacuum",
            f"autovacuum is off for {name}: it will only grow and plans go stale",
            f"ALTER TABLE {name} RESET (autovacuum_enabled)",
        )
    elif table["dead"] > 10_000 and table["dead"] > table["live"]:
        yield warning(
            "vacuum",
            f"{table['dead']:,} dead rows beside {table['live']:,} live ones",
            f"VACUUM ANALYZE {name}, and look for sessions that stay idle in transaction",
        )
    else:
        yield ok("vacuum", f"{table['dead']:,} dead rows")
