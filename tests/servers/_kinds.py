"""The kinds of servers by name: the one line that another server needs here."""

from tests.servers._local import LocalServer
from tests.servers.elasticsearch import Elasticsearch8Server, ElasticsearchServer
from tests.servers.mariadb import MariaDbServer
from tests.servers.pgbouncer import PgBouncerServer
from tests.servers.postgres import IcuPostgresServer, PostgresServer, WheelPostgresServer
from tests.servers.s3 import MotoServer, VersityServer

KINDS: dict[str, type[LocalServer]] = {
    server.kind: server
    for server in (
        PostgresServer,
        WheelPostgresServer,
        IcuPostgresServer,
        PgBouncerServer,
        ElasticsearchServer,
        Elasticsearch8Server,
        VersityServer,
        MotoServer,
        MariaDbServer,
    )
}


def variable(kind: str) -> str:
    """Return the environment variable that holds the URL of a kind's server."""
    return f"ISTHMUS_TEST_{kind.upper().replace('-', '_')}_URL"
