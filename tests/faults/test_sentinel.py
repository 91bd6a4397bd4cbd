"""A failover behind sentinels: planned, where the old primary lives on and acknowledges what it will lose; and a crash.

What is acknowledged some time after the sentinels have named a new primary is there, and all goes on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eventbus import EventBus, Unavailable
from eventbus.redis.link import Link
from tests.faults.noting import noting, publishing, stored
from tests.sentinels import SERVICE, Service, sentinel_service
from tests.servers import redis_binaries
from tests.waiting import until
from tests.working import working

LEAVING = 3.0  # seconds; the old primary lives on for ten
GUARD = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}

Fail = Callable[[Service], Awaitable[None]]


async def planned(service: Service) -> None:
    await service.ask(0, "SENTINEL", "FAILOVER", SERVICE)


async def crash(service: Service) -> None:
    (await service.primary()).kill()


@pytest.mark.parametrize("fail", [planned, crash])
@pytest.mark.parametrize("name", sorted(redis_binaries()))
async def test_nothing_is_lost_that_is_acknowledged_after_the_news(name: str, fail: Fail, tmp_path: Path) -> None:
    handled: set[int] = set()
    group = noting(handled)
    with sentinel_service(tmp_path, redis_binaries()[name], {}) as service:
        await service.settled()
        async with EventBus(service.url) as bus, working(bus, group), publishing(bus) as publisher:
            await until(lambda: len(handled) > 20)
            before = await service.primary()
            await fail(service)
            while (await _primary(service)) in {before, None}:
                await asyncio.sleep(0.02)
            named = time.monotonic()
            await until(lambda: len(publisher.since(named + LEAVING)) > 50)
            wanted = publisher.since(named + LEAVING)
            await until(lambda: wanted <= handled)
            link = Link((await service.primary()).url, timeout=5, name="test")
            there = set(await stored(link))
            await link.close()
            assert wanted <= there, "the old primary has taken them, and handled, and forgets them"


async def test_a_primary_that_needs_no_replica_is_told_of_once(tmp_path: Path, valkey: Path) -> None:
    """Behind sentinels, or at an address: somebody elects there as well."""
    told = "a failover can lose what was acknowledged: the primary takes writes that no replica has"
    for options, lines_of_it in (({}, 1), (GUARD, 0)):
        folder = tmp_path / str(lines_of_it)
        folder.mkdir()
        with sentinel_service(folder, valkey, options) as service:
            await service.settled()
            for url in (service.url, service.servers[0].url):
                with capture_logs() as lines:
                    async with EventBus(url):
                        pass
                assert len([line for line in lines if line["event"] == told]) == lines_of_it


async def _primary(service: Service) -> object:
    try:
        return await service.primary()
    except Unavailable:
        return None


@pytest.fixture
def valkey() -> Path:
    return redis_binaries()["valkey"]
