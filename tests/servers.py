"""Where the tests' Redis and PostgreSQL come from: `--containers`, then the environment, then the embedded ones."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import pytest
import redis

from eventbus.embedded import EmbeddedPostgres, EmbeddedRedis
from eventbus.embedded.valkey import valkey_binary
from eventbus.redis.where import locate
from tests.waiting import PATIENCE

REDIS_URL = "EVENTBUS_TEST_REDIS_URL"
DATABASE_URL = "EVENTBUS_TEST_DATABASE_URL"
POOL_MODE = "EVENTBUS_TEST_POOL_MODE"
CONFIGURED = "configured"

# Tests kill processes, never the machine: nothing has to reach the disk. But synchronous_commit stays on,
# since without it a commit is in the server's memory when it answers, and lost with a SIGKILL.
POSTGRES_OPTIONS = {"fsync": "off", "full_page_writes": "off"}


Reached = Callable[[str], str]
"""The URL of a database -> that by which what is tested reaches it."""


class OwnRedis(Protocol):
    def __call__(self, *, binary: Path | None = None, options: Mapping[str, str] | None = None) -> EmbeddedRedis:
        """A started server for this test alone, to be killed, paused and restarted; stopped after the test."""


class OwnPostgres(Protocol):
    def __call__(self, *, options: Mapping[str, str] | None = None) -> EmbeddedPostgres:
        """A started server for this test alone, to be killed, paused and restarted; stopped after the test."""


def redis_binaries() -> dict[str, Path]:
    """The servers that the matrix runs on, by name."""
    binaries = {"valkey": valkey_binary()}
    if debian := shutil.which("redis-server"):
        binaries["redis"] = Path(debian)
    return binaries


def redis_names(config: pytest.Config) -> list[str]:
    """The matrix: what the command or the environment asks for, else every binary. CI must have them all."""
    if config.getoption("--containers") or os.environ.get(REDIS_URL):
        return [CONFIGURED]
    return sorted({*redis_binaries(), *(["redis"] if os.environ.get("CI") else [])}, reverse=True)


@contextmanager
def redis_server(config: pytest.Config, name: str, directory: Path) -> Iterator[str]:
    """The URL of a running server."""
    if name != CONFIGURED:
        binary = redis_binaries().get(name)
        if binary is None:
            pytest.fail("redis-server is not on PATH, and CI tests with it: see .ci/run")
        with EmbeddedRedis(directory, binary=binary) as server:
            yield server.url
    elif config.getoption("--containers"):
        with _redis_container() as url:
            yield url
    else:
        yield _database_of_this_process(os.environ[REDIS_URL])


def redis_client(url: str) -> redis.Redis | redis.RedisCluster:
    """A client of somebody else's, for one server or a cluster."""
    if "+sentinel://" in url:
        url = asyncio.run(_primary(url))
    scheme, _, rest = url.partition("+cluster://")
    if not rest:
        return redis.Redis.from_url(url, socket_timeout=PATIENCE)
    login, _, hosts = rest.rpartition("@")
    first, _, others = hosts.partition("/")
    return redis.RedisCluster.from_url(f"{scheme}://{login}@{first.split(',')[0]}/{others}", socket_timeout=PATIENCE)


async def _primary(url: str) -> str:
    return (await locate(url).find()).url


@contextmanager
def postgres_server(config: pytest.Config, directory: Path) -> Iterator[str]:
    """The URL of a database of a running server, for a user who may create others."""
    if config.getoption("--containers"):
        with _postgres_container() as url:
            yield url
    elif DATABASE_URL in os.environ:
        yield os.environ[DATABASE_URL]
    else:
        with EmbeddedPostgres(directory, options=POSTGRES_OPTIONS) as server:
            yield server.url


def _database_of_this_process(url: str) -> str:
    # The processes of pytest-xdist share the server, and each test empties its database.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    if "+cluster://" in url:
        return url  # it has one database: the tests need a process
    parts = urlsplit(url)
    service, _, database = parts.path.rpartition("/")  # sentinels watch several services
    return parts._replace(path=f"{service}/{int(database or 0) + int(worker)}").geturl()


@contextmanager
def _redis_container() -> Iterator[str]:
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - needed with --containers alone

    command = "redis-server --appendonly yes --maxmemory-policy noeviction"
    with _started(lambda: RedisContainer("redis:7").with_command(command)) as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


@contextmanager
def _postgres_container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - needed with --containers alone

    with _started(lambda: PostgresContainer("postgres:17", driver=None)) as container:
        yield container.get_connection_url()


class _Container(Protocol):
    def start(self) -> object: ...

    def stop(self) -> object: ...


C = TypeVar("C", bound=_Container)


@contextmanager
def _started(make: Callable[[], C]) -> Iterator[C]:
    try:
        container = make()
        container.start()
    except Exception as error:  # noqa: BLE001 - Docker's own, and whatever it is there are no tests without it
        pytest.fail(f"--containers: is a Docker engine running? {error}", pytrace=False)
    try:
        yield container
    finally:
        container.stop()
