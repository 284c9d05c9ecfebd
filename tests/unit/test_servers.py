"""The test servers keep what crash tests rely on: the port and the data survive a kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
from botocore.session import Session as AwsSession

from tests.servers import PgBouncerServer, PostgresServer, VersityServer, find, server
from tests.servers._process import Pid
from tests.servers.s3 import ACCESS_KEY, BUCKET, REGION, SECRET_KEY

ROOT = Path(__file__).parents[2]


async def value(url: str, *statements: str) -> object:
    """Return the first value of the last of these statements."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        for statement in statements:
            answer = await connection.fetchval(statement)
        return answer
    finally:
        await connection.close()


@pytest.mark.backend("postgres")
def test_postgres_keeps_port_and_acknowledged_rows_over_a_kill() -> None:
    """With fsync on, what was acknowledged before SIGKILL is there after the restart."""
    with PostgresServer(fsync=True, config={"max_connections": 17}) as postgres:
        url = postgres.url
        asyncio.run(value(url, "CREATE TABLE t AS SELECT 42 AS n"))

        postgres.kill()
        assert not postgres.running
        postgres.start()

        assert postgres.url == url
        assert asyncio.run(value(url, "SELECT n FROM t")) == 42
        assert asyncio.run(value(url, "SHOW fsync")) == "on"
        assert asyncio.run(value(url, "SHOW max_connections")) == "17"
        home = postgres.home
    assert not home.exists()


@pytest.mark.backend("postgres")
def test_a_killed_postgres_leaves_no_child_although_one_was_busy() -> None:
    """A backend in a long statement does not outlive the server."""
    with PostgresServer() as postgres:
        running = postgres.pid
        assert running is not None

        async def sleeper() -> None:
            await asyncpg.Connection.fetchval(await asyncpg.connect(postgres.url), "SELECT pg_sleep(600)")

        async def kill_under_it() -> list[Pid]:
            task = asyncio.create_task(sleeper())
            while (
                await value(postgres.url, "SELECT count(*) FROM pg_stat_activity WHERE wait_event='PgSleep'")
                == 0
            ):
                await asyncio.sleep(0)
            children = running.children()
            await asyncio.to_thread(postgres.kill)
            with pytest.raises((OSError, asyncpg.PostgresError)):
                await task
            return children

        children = asyncio.run(kill_under_it())

        assert len(children) > 3
        assert [child for child in children if child.alive()] == []


@pytest.mark.backend("postgres")
def test_pgbouncer_pools_by_transaction() -> None:
    """Two clients share one server connection, each for the time of a statement, also after a kill."""
    with PgBouncerServer(pool=1) as bouncer:
        bouncer.kill()
        bouncer.start()

        async def processes() -> set[int]:
            first = await asyncpg.connect(bouncer.url, statement_cache_size=0)
            second = await asyncpg.connect(bouncer.url, statement_cache_size=0)
            found = {await one.fetchval("SELECT pg_backend_pid()") for one in (first, second, first)}
            await first.close()
            await second.close()
            return found

        assert len(asyncio.run(processes())) == 1


@pytest.mark.backend("s3")
@pytest.mark.parametrize("tmpfs", [False, True])
def test_s3_keeps_port_and_objects_over_a_kill(tmp_path: Path, tmpfs: bool) -> None:
    """An object that was acknowledged before SIGKILL is there after the restart."""
    with VersityServer(tmpfs=tmpfs) as store:
        client = AwsSession().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=store.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        client.put_object(Bucket=BUCKET, Key="p/a.json", Body=b"{}", IfNoneMatch="*")

        store.kill()
        store.start()

        assert client.get_object(Bucket=BUCKET, Key="p/a.json")["Body"].read() == b"{}"
        with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
            client.put_object(Bucket=BUCKET, Key="p/a.json", Body=b"{}", IfNoneMatch="*")
        client.close()
        assert (store.home.parent == Path("/dev/shm")) is tmpfs


@pytest.mark.backend("postgres")
def test_one_session_has_one_server_of_a_kind() -> None:
    """A test that asks twice gets the same server, and is told where it is from."""
    first, second = server("postgres"), find("postgres")

    assert first.url == second.url
    assert first.source in {"local", "docker", "environment"}
    assert asyncio.run(value(first.url, "SELECT 1")) == 1


def wait_for(path: Path) -> str:
    """Return the content of a file that another process is about to write."""
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)
    return path.read_text()


@pytest.mark.backend("s3")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_ending_the_runner_ends_its_servers(tmp_path: Path, number: signal.Signals) -> None:
    """Neither a polite nor a rude end of `tests.servers run` leaves a server behind."""
    told = tmp_path / "told"
    script = (
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text(f\"{os.getpid()} {os.environ['ISTHMUS_TEST_SESSION']}\")\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(told)]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ISTHMUS_TEST_")}
    runner = subprocess.Popen(
        [sys.executable, "-m", "tests.servers", "run", "s3", "--", *command],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    number_of_command, _, folder = wait_for(told).partition(" ")
    command_process, session = Pid.of(int(number_of_command)), Path(folder)
    state = session / "s3.shared.json"
    started = state.read_text()

    runner.send_signal(number)

    code = runner.wait(40)
    # Nobody ends the command of a runner that had no time to do so.
    command_process.send(signal.SIGKILL)
    assert code == (130 if number == signal.SIGTERM else -number)
    deadline = time.monotonic() + 40
    while session.exists():
        assert time.monotonic() < deadline, "the session was not ended"
        time.sleep(0.05)
    server_state = json.loads(started)
    assert not Pid(*server_state["pid"]).alive()
    assert not Path(server_state["home"]).exists()
