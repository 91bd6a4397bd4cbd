"""`eventbus.embedded` with real servers, and what the tests' own fixtures promise."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from eventbus.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer, account, ports, processes
from eventbus.errors import ConfigurationError, EventBusError
from tests.databases import blocking
from tests.servers import POSTGRES_OPTIONS, OwnPostgres, OwnRedis
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE

Make = Callable[[Path], EmbeddedServer]


def make_postgres(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, options=POSTGRES_OPTIONS)


def write(server: EmbeddedServer, key: str) -> None:
    if isinstance(server, EmbeddedRedis):
        with redis.Redis.from_url(server.url) as client:
            client.rpush("kept", key)
    else:
        sql(server.url, "CREATE TABLE IF NOT EXISTS kept (key text)", f"INSERT INTO kept VALUES ('{key}')")


def read(server: EmbeddedServer) -> list[str]:
    if isinstance(server, EmbeddedRedis):
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            return [str(item) for item in client.lrange("kept", 0, -1)]
    return [str(row["key"]) for row in sql(server.url, "SELECT key FROM kept ORDER BY key")]


def sql(url: str, *statements: str, timeout: float = 10.0) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url, timeout=timeout)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetch(statements[-1])
        finally:
            await connection.close()

    return blocking(run())


@pytest.fixture(params=[EmbeddedRedis, make_postgres], ids=["valkey", "postgres"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


@pytest.fixture
def server(make: Make, tmp_path: Path) -> Iterator[EmbeddedServer]:
    with make(tmp_path / "server") as running:
        yield running


class TestEveryServer:
    def test_stop_and_start_keep_url_and_data(self, server: EmbeddedServer) -> None:
        url, pid = server.url, server.pid
        write(server, "a")
        server.stop()
        assert not server.running
        assert server.start().url == url
        assert server.pid != pid
        assert read(server) == ["a"]

    def test_kill_and_start_keep_url_and_data(self, server: EmbeddedServer) -> None:
        url = server.url
        for key in "abc":
            write(server, key)
            server.kill()
            assert not server.running
            assert ports.is_free(server.port)
            server.start()
        assert server.url == url
        assert read(server) == ["a", "b", "c"]

    def test_the_next_owner_finds_url_and_data(self, server: EmbeddedServer, make: Make) -> None:
        write(server, "a")
        server.stop()
        with make(server.directory.path) as second:
            assert second.url == server.url
            assert read(second) == ["a"]

    def test_the_next_owner_gets_another_port_if_that_one_is_taken(self, server: EmbeddedServer, make: Make) -> None:
        server.stop()
        with socket.create_server((ports.LOOPBACK, server.port)), make(server.directory.path) as second:
            assert second.port != server.port
            write(second, "a")

    def test_the_same_owner_insists_on_its_port(self, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        server.kill()
        monkeypatch.setattr(ports, "wait_until_free", lambda port, timeout: False)
        with pytest.raises(ConfigurationError, match=f"port {server.port} is taken"):
            server.start()

    def test_has_one_owner_also_while_it_is_down(self, server: EmbeddedServer, make: Make) -> None:
        with pytest.raises(ConfigurationError, match="is in use by process"):
            make(server.directory.path).start()
        server.kill()
        with pytest.raises(ConfigurationError, match="is in use by process"):
            make(server.directory.path).start()

    def test_paused_answers_nobody_and_resumed_goes_on(self, server: EmbeddedServer) -> None:
        write(server, "a")
        server.pause()
        with socket.create_connection((ports.LOOPBACK, server.port), timeout=1.0) as connection:
            connection.settimeout(0.3)
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
        server.resume()
        assert read(server) == ["a"]

    def test_stops_and_starts_when_it_is_so_already(self, server: EmbeddedServer) -> None:
        pid = server.pid
        assert server.start().pid == pid
        server.pause()
        with Stopwatch() as watch:
            server.stop()
        assert watch.seconds < 10.0  # in good order, not by force after the timeout
        server.stop()
        server.kill()
        assert not server.running
        with pytest.raises(EventBusError, match="is not running"):
            _ = server.pid

    def test_secrets_are_for_the_owner_alone(self, server: EmbeddedServer) -> None:
        command = Path(f"/proc/{server.pid}/cmdline")
        if command.exists():
            assert server.password.encode() not in command.read_bytes()
        others = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in server.directory.path.iterdir()}
        del others[{"Valkey": "appendonlydir", "PostgreSQL": "cluster"}[server.name]]
        assert set(others.values()) == {0}

    def test_listens_on_its_address_alone(self, server: EmbeddedServer) -> None:
        # On Linux 127.0.0.2 is this machine too, and a server that listens everywhere would answer.
        with pytest.raises(OSError, match=r"refused|assign|unreachable"):
            socket.create_connection(("127.0.0.2", server.port), timeout=1.0).close()

    def test_what_keeps_it_from_starting_is_shown(self, make: Make, tmp_path: Path) -> None:
        server = make(tmp_path / "server")
        server.options["no_such_option"] = "1"
        with pytest.raises(EventBusError, match="no_such_option"):
            server.start()
        server.options.pop("no_such_option")
        with server:
            write(server, "a")


class TestOwnersThatDie:
    SCRIPT = """
import sys, time
from eventbus.embedded import EmbeddedPostgres, EmbeddedRedis
server = {"valkey": EmbeddedRedis, "postgres": EmbeddedPostgres}[sys.argv[1]](sys.argv[2]).start()
if sys.argv[3] == "unwatched":
    server._watchdog.dismiss()
print(server.pid, flush=True)
time.sleep(60)
"""

    @pytest.fixture
    def orphan(self, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], int]:
        """The pid of a server whose owner was killed, with or without a watchdog left behind."""

        def leave(watched: str) -> int:
            kind = request.node.callspec.id.partition("-")[0]  # behind that, how often it is repeated
            arguments = [sys.executable, "-c", self.SCRIPT, kind, str(tmp_path / "server"), watched]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE) as owner:
                assert owner.stdout is not None
                pid = int(owner.stdout.readline())
                owner.kill()
            return pid

        return leave

    def test_take_their_server_along(self, make: Make, orphan: Callable[[str], int]) -> None:
        pid = orphan("watched")
        deadline = time.monotonic() + PATIENCE
        while _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _is_alive(pid)

    def test_leave_a_server_that_the_next_owner_ends(
        self, make: Make, orphan: Callable[[str], int], tmp_path: Path
    ) -> None:
        pid = orphan("unwatched")
        assert _is_alive(pid)
        with make(tmp_path / "server") as server:
            assert not _is_alive(pid)
            write(server, "a")


def _is_alive(pid: int) -> bool:
    found = processes.table().get(pid)
    return found is not None and not found.zombie


class TestRedis:
    def test_persists_and_never_evicts(self, tmp_path: Path, redis_binary: Path) -> None:
        with (
            EmbeddedRedis(tmp_path / "server", binary=redis_binary) as server,
            redis.Redis.from_url(server.url, decode_responses=True) as client,
        ):
            assert client.config_get("append*") == {
                **client.config_get("append*"),
                "appendonly": "yes",
                "appendfsync": "everysec",
            }
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            write(server, "a")
            server.kill()
            server.start()
            assert read(server) == ["a"]

    def test_refuses_who_has_no_password(self, tmp_path: Path) -> None:
        with (
            EmbeddedRedis(tmp_path / "server") as server,
            redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()

    def test_options_may_change_between_starts(self, own_redis: OwnRedis) -> None:
        server = own_redis(options={"maxmemory": "1"})
        with redis.Redis.from_url(server.url) as client, pytest.raises(redis.OutOfMemoryError):
            client.set("key", "value")
        server.stop()
        server.options["maxmemory"] = "0"
        write(server.start(), "a")


class TestPostgres:
    def test_is_as_documented(self, own_postgres: OwnPostgres) -> None:
        (row,) = sql(
            own_postgres().url,
            "SELECT current_user, current_database(), pg_encoding_to_char(encoding) AS encoding, datlocale, "
            "current_setting('TimeZone') AS zone FROM pg_database WHERE datname = current_database()",
        )
        assert tuple(row) == ("eventbus", "eventbus", "UTF8", "C.UTF-8", "UTC")

    def test_refuses_a_wrong_password(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        with pytest.raises(asyncpg.InvalidPasswordError):
            sql(server.url.replace(server.password, "wrong"), "SELECT 1")

    def test_a_first_start_that_was_cut_short_is_begun_again(self, tmp_path: Path) -> None:
        half = tmp_path / "server" / "cluster.new"
        half.mkdir(parents=True)
        (half / "PG_VERSION").write_text("18\n")
        with make_postgres(tmp_path / "server") as server:
            write(server, "a")
        assert not half.exists()

    def test_a_pid_that_was_given_to_another_process_keeps_nobody_out(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        server.kill()
        left = server.directory.path / "cluster" / "postmaster.pid"
        rest = left.read_text().partition("\n")[2]
        with subprocess.Popen(["sleep", "60"], user=left.stat().st_uid) as other:
            left.write_text(f"{other.pid}\n{rest}")
            write(server.start(), "a")
            other.kill()

    def test_changes_nothing_but_its_cluster(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        owners = {path: path.stat().st_uid for path in (server.directory.path, *server.directory.path.iterdir())}
        del owners[server.directory.path / "cluster"]
        assert set(owners.values()) == {os.geteuid()}

    def test_runs_where_an_unprivileged_user_cannot_come(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root's case: the data and the binaries below a directory that is closed to the user it runs as."""
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        server = make_postgres(closed / "data")
        for installed in server._package.parent.glob(f"{server._package.name}*"):
            if not installed.name.endswith("-info"):
                shutil.copytree(installed, closed / installed.name)
        server._package = closed / server._package.name
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            monkeypatch.setattr("tempfile.tempdir", folder)
            with server:
                write(server, "a")
                server.kill()
                server.start()
                assert read(server) == ["a"]
            assert len(list(Path(folder).iterdir())) == (1 if os.geteuid() == 0 else 0)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700

    def test_says_why_it_cannot_run_as_another_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(account, "_USER", "no-such-user")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(ConfigurationError, match="no user 'no-such-user'"):
            EmbeddedPostgres(tmp_path)


class TestFixtures:
    def test_any_redis_url_is_empty(self, any_redis_url: str) -> None:
        with redis.Redis.from_url(any_redis_url) as client:
            assert client.dbsize() == 0
            client.set("left", "behind")

    @pytest.mark.parametrize("turn", [1, 2])
    def test_redis_url_is_empty(self, redis_url: str, turn: int) -> None:
        with redis.Redis.from_url(redis_url) as client:
            assert client.dbsize() == 0
            client.set("left", "behind")

    @pytest.mark.parametrize("turn", [1, 2])
    async def test_database_url_is_new(self, database_url: str, turn: int) -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("CREATE TABLE left_behind ()")
        await connection.close()

    def test_own_servers_are_many(self, own_redis: OwnRedis) -> None:
        assert own_redis().url != own_redis().url
