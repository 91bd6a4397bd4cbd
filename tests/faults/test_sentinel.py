"""A failover behind sentinels: planned, where the old primary lives on and acknowledges what it will lose; and a crash.

What is acknowledged some time after the sentinels have named a new primary is there, and all goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group, Unavailable
from eventbus.contract.codec import pairs
from eventbus.redis.link import Link
from tests.sentinels import SERVICE, Service, sentinel_service
from tests.servers import redis_binaries
from tests.waiting import until
from tests.working import working

LEAVING = 3.0  # seconds; the old primary lives on for ten
PACE = 0.01  # seconds between publishes
GUARD = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}

Fail = Callable[[Service], Awaitable[None]]


class Noted(Event, type="failover.noted"):
    number: int


class Publisher:
    """Publishes one after the other. `acknowledged`: when, by number."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self.acknowledged: dict[int, float] = {}
        self.refused = 0

    def since(self, moment: float) -> set[int]:
        return {number for number, at in self.acknowledged.items() if at > moment}

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                await self._bus.publish(Noted(number=number))
                self.acknowledged[number] = time.monotonic()
            except Unavailable:
                self.refused += 1
            await asyncio.sleep(PACE)


async def planned(service: Service) -> None:
    await service.ask(0, "SENTINEL", "FAILOVER", SERVICE)


async def crash(service: Service) -> None:
    (await service.primary()).kill()


@asynccontextmanager
async def publishing(bus: EventBus) -> AsyncIterator[Publisher]:
    publisher = Publisher(bus)
    running = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("fail", [planned, crash])
@pytest.mark.parametrize("name", sorted(redis_binaries()))
async def test_nothing_is_lost_that_is_acknowledged_after_the_news(name: str, fail: Fail, tmp_path: Path) -> None:
    handled: set[int] = set()
    group = Group("noting", lease=2.0)

    @group.on(Noted)
    async def note(event: Noted, _: Context) -> None:
        handled.add(event.number)

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
            assert wanted <= await stored(service), "the old primary has taken them, and handled, and forgets them"


async def test_a_primary_that_needs_no_replica_is_told_of_once(tmp_path: Path, valkey: Path) -> None:
    told = "a failover can lose what was acknowledged: the primary takes writes that no replica has"
    for options, lines_of_it in (({}, 1), (GUARD, 0)):
        folder = tmp_path / str(lines_of_it)
        folder.mkdir()
        with sentinel_service(folder, valkey, options) as service:
            with capture_logs() as lines:
                async with EventBus(service.url):
                    pass
            assert len([line for line in lines if line["event"] == told]) == lines_of_it


async def stored(service: Service) -> set[int]:
    """What the primary has, as the sentinels name it."""
    link = Link((await service.primary()).url, timeout=5, name="test")
    try:
        entries = await link.execute("XRANGE", "eb:{failover}:stream", "-", "+")
        return {int(pairs(fields)[b"data"].partition(b":")[2][:-1]) for _, fields in entries}
    finally:
        await link.close()


async def _primary(service: Service) -> object:
    try:
        return await service.primary()
    except Unavailable:
        return None


@pytest.fixture
def valkey() -> Path:
    return redis_binaries()["valkey"]
