"""The rule in Python, and the script on each server of the matrix."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests import servers
from tests.properties.turnstiles import Asked, OnServer, Rule, on_server

RULE = "rule"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = servers.redis_names(metafunc.config)
    if "asked" in metafunc.fixturenames:
        metafunc.parametrize("asked_name", [RULE, *names], scope="session")
    elif "script" in metafunc.fixturenames:
        metafunc.parametrize("asked_name", names, scope="session")


@pytest.fixture
async def asked(asked_name: str, redis_servers: Callable[[str], str]) -> AsyncIterator[Asked]:
    if asked_name == RULE:
        yield Rule()
        return
    async with on_server(redis_servers(asked_name)) as found:
        yield found


@pytest.fixture
async def script(asked_name: str, redis_servers: Callable[[str], str]) -> AsyncIterator[OnServer]:
    async with on_server(redis_servers(asked_name)) as found:
        yield found
