"""A primary that is demoted behind an address that stays: a virtual IP, DNS, a proxy, a managed service. Connections to
it stay open, and it answers all writes with READONLY."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group, Unavailable
from eventbus.embedded import EmbeddedRedis
from eventbus.redis.link import Link
from tests.proxy import Proxy
from tests.sentinels import pair_of_servers
from tests.servers import redis_binaries
from tests.waiting import eventually, until
from tests.working import working


class Noted(Event, type="demotion.noted"):
    number: int


@pytest.fixture(params=sorted(redis_binaries()))
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[EmbeddedRedis]]:
    """A primary and its replica, with one password."""
    with pair_of_servers(tmp_path, redis_binaries()[request.param], {}) as pair:
        yield pair


async def tell(server: EmbeddedRedis, *command: str | int) -> Any:
    link = Link(server.url, timeout=5, name="test", primary=False)
    try:
        return await link.execute(*command)
    finally:
        await link.close()


async def change_places(old: EmbeddedRedis, new: EmbeddedRedis) -> None:
    await eventually(lambda: in_step(new))
    await tell(new, "REPLICAOF", "NO", "ONE")
    await tell(old, "REPLICAOF", "127.0.0.1", new.port)
    await eventually(lambda: in_step(old))


async def in_step(replica: EmbeddedRedis) -> bool:
    return b"master_link_status:up" in await tell(replica, "INFO", "replication")


async def test_publishers_and_workers_find_the_new_primary(servers: list[EmbeddedRedis]) -> None:
    """At first the address still leads to the old one."""
    attempts: dict[int, list[int]] = {}
    group = Group("noting", concurrency=4)

    @group.on(Noted)
    async def note(event: Noted, ctx: Context) -> None:
        attempts.setdefault(event.number, []).append(ctx.attempt)

    old, new = servers
    with capture_logs() as lines:
        async with Proxy(old.url) as proxy, EventBus(proxy.url) as bus, working(bus, group):
            await bus.publish(Noted(number=1))
            await until(lambda: 1 in attempts)
            await change_places(old, new)
            with pytest.raises(Unavailable):
                await bus.publish(Noted(number=2))
            proxy.lead_to(new.url)
            await eventually(lambda: accepted(bus, Noted(number=3)))
            await until(lambda: 3 in attempts)
    assert attempts == {1: [1], 3: [1]}
    for connection in ("eventbus-write", "eventbus-read-noting"):
        told = [line["event"] for line in lines if line.get("connection") == connection]
        assert told == ["redis is away", "redis is back"], connection


async def test_what_waits_on_the_old_one_is_not_waited_for(servers: list[EmbeddedRedis]) -> None:
    """Nobody publishes: the reader alone finds out, and hears of the next event."""
    handled = asyncio.Event()
    group = Group("noting")

    @group.on(Noted)
    async def note(event: Noted, _: Context) -> None:
        handled.set()

    old, new = servers
    async with Proxy(old.url) as proxy, EventBus(proxy.url) as bus, working(bus, group):
        await eventually(lambda: has_group(old))
        await change_places(old, new)
        proxy.lead_to(new.url)
        async with EventBus(new.url) as other:
            await other.publish(Noted(number=1))
        await until(handled.is_set)


async def has_group(server: EmbeddedRedis) -> bool:
    return bool(await tell(server, "EXISTS", "eb:{demotion}:stream"))


async def accepted(bus: EventBus, event: Event) -> bool:
    try:
        await bus.publish(event)
    except Unavailable:
        return False
    return True
