"""Fixtures of all tests. Servers are real: see `tests.servers` for where they come from.

redis_url      the session's Redis, emptied        any_redis_url  the same once for each server of the matrix
database_url   a database of its own               databases      to make more of them
direct_url     the same, past any pooler           reached        how another database is reached
own_redis      servers to kill, pause, restart     own_postgres
"""

import asyncio
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import uvloop
from hypothesis import settings

from eventbus.embedded import EmbeddedPostgres, EmbeddedRedis
from tests import servers
from tests.databases import Databases, Prepare
from tests.pgbouncer import PgBouncer, pgbouncer

Emptied = Callable[[str], str]
"""The URL of a Redis database -> the same, when it is empty."""

# The same examples each time, so that a change is to blame for what fails; HYPOTHESIS_PROFILE=soak looks for many more.
settings.register_profile("quick", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=3_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--containers",
        action="store_true",
        help="run against Redis and PostgreSQL in containers; needs a Docker engine",
    )


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that programs run on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_finish() -> None:
    """Thousands of tests stay until the end, and the collector need not go through them again and again."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "redis_name" in metafunc.fixturenames:
        metafunc.parametrize("redis_name", servers.redis_names(metafunc.config), scope="session")
    if "redis_binary" in metafunc.fixturenames:
        binaries = servers.redis_binaries()
        metafunc.parametrize("redis_binary", list(binaries.values()), ids=list(binaries), scope="session")


@pytest.fixture(autouse=True)
def own_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves in its spool must not be replayed into the next test's Redis."""
    monkeypatch.setenv("EVENTBUS_SPOOL_PATH", str(tmp_path / "contingency-log.jsonl"))


@pytest.fixture(scope="session")
def redis_servers(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], str]]:
    """Name of the matrix -> URL; each server starts when it is first asked for."""
    urls: dict[str, str] = {}
    with ExitStack() as running:

        def url(name: str) -> str:
            if name not in urls:
                directory = tmp_path_factory.mktemp(name)
                urls[name] = running.enter_context(servers.redis_server(pytestconfig, name, directory))
            return urls[name]

        yield url


@pytest.fixture
def redis_url(pytestconfig: pytest.Config, redis_servers: Callable[[str], str], emptied: Emptied) -> str:
    """The session's first Redis, its database emptied."""
    return emptied(redis_servers(servers.redis_names(pytestconfig)[0]))


@pytest.fixture
def any_redis_url(redis_name: str, redis_servers: Callable[[str], str], emptied: Emptied) -> str:
    """Like `redis_url`; the test runs once for each server of the matrix."""
    return emptied(redis_servers(redis_name))


@pytest.fixture(scope="session")
def emptied() -> Iterator[Emptied]:
    """Over clients that stay, where there is nothing but one server."""
    with ExitStack() as open_clients:
        clients: dict[str, redis.Redis | redis.RedisCluster] = {}

        def empty(url: str) -> str:
            if "+" in urlsplit(url).scheme:  # there the server of today may not be that of tomorrow
                with servers.redis_client(url) as client:
                    client.flushdb()
                return url
            if url not in clients:
                clients[url] = open_clients.enter_context(servers.redis_client(url))
            clients[url].flushdb()
            return url

        yield empty


@pytest.fixture(scope="session")
def databases(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """The session's PostgreSQL."""
    with servers.postgres_server(pytestconfig, tmp_path_factory.mktemp("postgres")) as url:
        databases = Databases(url)
        yield databases
        databases.close()


@pytest.fixture(scope="session")
def prepare_database() -> Prepare | None:
    """What makes of an empty database one that the tests of a folder want; here they want it empty."""
    return None


@pytest.fixture
def direct_url(databases: Databases, prepare_database: Prepare | None) -> Iterator[str]:
    """A database that this test has to itself, for what looks into it: past a pooler, where there is one."""
    url = databases.lend(prepare_database)
    yield url
    databases.take_back(url)


@pytest.fixture
def database_url(direct_url: str, reached: servers.Reached) -> str:
    """The same, for what is tested."""
    return reached(direct_url)


@pytest.fixture(scope="session")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Reached]:
    """Through PgBouncer, if the environment names a mode; one before each server."""
    mode, poolers = os.environ.get(servers.POOL_MODE), dict[str, PgBouncer]()
    with ExitStack() as running:

        def url(direct: str) -> str:
            if mode is None:
                return direct
            server = urlsplit(direct).netloc
            if server not in poolers:
                folder = tmp_path_factory.mktemp("pgbouncer")
                sessions = {"session": "90", "transaction": "20"}[mode]  # each connection needs one, or as it is packed
                pooler = pgbouncer(folder, direct, pool_mode=mode, default_pool_size=sessions)
                poolers[server] = running.enter_context(pooler)
            return urlsplit(poolers[server].url)._replace(path=urlsplit(direct).path).geturl()

        yield url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[servers.OwnRedis]:
    with ExitStack() as running:

        def start(*, binary: Path | None = None, options: Mapping[str, str] | None = None) -> EmbeddedRedis:
            server = EmbeddedRedis(_unused(tmp_path, "redis"), binary=binary, options=options)
            return running.enter_context(server)

        yield start


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[servers.OwnPostgres]:
    with ExitStack() as running:

        def start(*, options: Mapping[str, str] | None = None) -> EmbeddedPostgres:
            directory = _unused(tmp_path, "postgres")
            server = EmbeddedPostgres(directory, options={**servers.POSTGRES_OPTIONS, **(options or {})})
            return running.enter_context(server)

        yield start


def _unused(folder: Path, name: str) -> Path:
    return folder / f"{name}-{len(list(folder.glob(f'{name}-*')))}"
