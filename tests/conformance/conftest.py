"""Every transport that must keep the contract in eventbus/contract/transport.py."""

import os
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest

from eventbus.contract.broker import Broker
from eventbus.memory import MemoryTransport
from eventbus.redis import RedisTransport
from eventbus.redis.router import Router
from tests import servers
from tests.conformance.reach import Everywhere, connected

MEMORY = "memory"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "transport_name" in metafunc.fixturenames:
        metafunc.parametrize("transport_name", [MEMORY, *servers.redis_names(metafunc.config)], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where somebody names a cluster or sentinels, what is of a single server has nothing to prove."""
    if "+" in os.environ.get(servers.REDIS_URL, "").partition("://")[0]:
        single = [item for item in items if item.get_closest_marker("one_server")]
        config.hook.pytest_deselected(items=single)
        items[:] = [item for item in items if item not in single]


@pytest.fixture
async def transport(transport_name: str, redis_servers: Callable[[str], str]) -> AsyncIterator[Broker]:
    """Memory, and Redis on each server of the matrix, with a namespace of its own."""
    transport: Broker = (
        MemoryTransport()
        if transport_name == MEMORY
        else RedisTransport(redis_servers(transport_name), namespace=f"test-{uuid4().hex}")
    )
    await transport.connect()
    yield transport
    await transport.close()


@pytest.fixture
async def raw(any_redis_url: str) -> AsyncIterator[Router]:
    """To do to the servers what nobody should."""
    router = Everywhere(any_redis_url, timeout=5, name="test")
    yield router
    await router.close()


@pytest.fixture
async def redis_transport(any_redis_url: str) -> AsyncIterator[RedisTransport]:
    async with connected(any_redis_url) as transport:
        yield transport
