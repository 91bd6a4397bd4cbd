"""A primary that is cut off from its replicas and from whoever elects another, while clients still reach it: it goes on
to acknowledge, and all of that is gone when it comes back as a replica."""

import asyncio
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eventbus import EventBus, Unavailable
from eventbus.embedded import EmbeddedRedis
from eventbus.redis.link import Link
from tests.buses import divided_cluster
from tests.cluster import ClusterOfServers
from tests.faults.noting import KEYS, Publisher, noting, publishing, stored
from tests.sentinels import HOUSE, Service, divided_service
from tests.servers import redis_binaries
from tests.stopwatch import Stopwatch
from tests.waiting import eventually, until
from tests.working import working

LEAVING = 1.5  # seconds behind the news of another primary in which it may still be written to
GUARD = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}

each_server = pytest.mark.parametrize("name", sorted(redis_binaries()))


@pytest.mark.parametrize("options", [{}, GUARD], ids=["unguarded", "guarded"])
@each_server
async def test_who_hears_the_sentinels_leaves_it(name: str, options: dict[str, str], tmp_path: Path) -> None:
    handled: set[int] = set()
    async with divided_service(tmp_path, redis_binaries()[name], options) as (service, border):
        await service.settled()
        async with EventBus(service.url) as bus, working(bus, noting(handled)), publishing(bus) as publisher:
            await until(lambda: len(handled) > 20)
            border.shut_out(HOUSE)
            new = await elected(service)
            wanted = await acknowledged_later(publisher)
            await until(lambda: wanted <= handled)
            assert wanted <= await there(new), "the old primary has taken them, and handled, and will forget them"


@each_server
async def test_at_an_address_that_stays_it_is_left_when_it_refuses_to_be_alone(name: str, tmp_path: Path) -> None:
    """The name leads to the new primary by now, and the old one is never reached again by anybody who could demote it:
    whoever is connected to it would be refused for ever."""
    handled: set[int] = set()
    with capture_logs() as lines:
        async with divided_service(tmp_path, redis_binaries()[name], GUARD) as (service, border):
            await service.settled()
            async with EventBus(border.url) as bus, working(bus, noting(handled)), publishing(bus) as publisher:
                await until(lambda: len(handled) > 20)
                border.shut_out(HOUSE)
                new = await elected(service)
                await until(lambda: publisher.refused)
                refusing = time.monotonic()
                border.lead_to(new.url)
                await until(lambda: len(publisher.since(refusing)) > 50)
                wanted = publisher.since(refusing)
                await until(lambda: wanted <= handled)
                assert wanted <= await there(new)
    for connection in ("eventbus-write", "eventbus-read-noting"):
        told = [line["event"] for line in lines if line.get("connection") == connection]
        assert told == ["redis is away", "redis is back"], connection


async def acknowledged_later(publisher: Publisher) -> set[int]:
    """Than LEAVING from now, if the machine let us run for so long."""
    watch = Stopwatch()
    while watch.seconds < LEAVING and watch.passed < 2 * LEAVING:
        await asyncio.sleep(0.05)
    left = time.monotonic()
    await until(lambda: len(publisher.since(left)) > 50)
    return publisher.since(left)


async def elected(service: Service) -> EmbeddedRedis:
    """Another than the first primary."""
    while True:
        try:
            primary = await service.primary()
        except Unavailable:
            continue
        if primary is not service.servers[0]:
            return primary
        await asyncio.sleep(0.02)


async def there(server: EmbeddedRedis) -> set[int]:
    """What is stored here."""
    link = Link(server.url, timeout=5, name="test")
    try:
        return set(await stored(link))
    finally:
        await link.close()


@each_server
async def test_in_a_cluster_its_slots_are_sought_where_most_say(name: str, tmp_path: Path) -> None:
    """It holds all others for dead, and itself for the owner of its slots."""
    handled: set[int] = set()
    async with divided_cluster(tmp_path, redis_binaries()[name]) as buses:
        cluster = buses.cluster
        async with EventBus(cluster.seeds) as bus, working(bus, noting(handled)), publishing(bus) as publisher:
            await until(lambda: len(handled) > 20)
            old = await cluster.owner(KEYS.stream)
            new = await cluster.replica(old)
            buses.cut_off(old)
            await eventually(lambda: has_slots(cluster, new))
            wanted = await acknowledged_later(publisher)
            await until(lambda: wanted <= handled)
            assert wanted <= await there(new)
            buses.heal()
            await eventually(cluster.ready)
            healed = time.monotonic()
            await until(lambda: len(publisher.since(healed)) > 50)
            wanted |= publisher.since(healed)
            await until(lambda: wanted <= handled)
            assert wanted <= await there(new)


async def has_slots(cluster: ClusterOfServers, node: EmbeddedRedis) -> bool:
    """As it says itself."""
    return bool((await cluster.nodes(node))[node.port].ranges)
