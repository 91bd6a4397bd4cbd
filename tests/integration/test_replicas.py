"""Publishing that waits for replicas: the receipt says how many had the event."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import ConfigurationError, Event, EventBus, Status, Unavailable
from eventbus.embedded import EmbeddedRedis
from eventbus.errors import WrongValue
from eventbus.redis import replication
from eventbus.redis.link import Link
from tests.sentinels import pair_of_servers
from tests.servers import OwnRedis, redis_binaries
from tests.waiting import PATIENCE, eventually


class Noted(Event, type="replicas.noted"):
    number: int


@pytest.fixture(params=sorted(redis_binaries()))
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[EmbeddedRedis]]:
    with pair_of_servers(tmp_path, redis_binaries()[request.param], {}) as pair:
        yield pair


async def in_step(replica: EmbeddedRedis) -> bool:
    link = Link(replica.url, timeout=5, name="test", primary=False)
    try:
        return b"master_link_status:up" in await link.execute("INFO", "replication")
    finally:
        await link.close()


async def test_the_receipt_tells_how_many_replicas_had_it(
    servers: list[EmbeddedRedis], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, replica = servers
    monkeypatch.setattr(replication, "WAIT", PATIENCE)  # the machine may be slow
    await eventually(lambda: in_step(replica))
    async with EventBus(primary.url) as bus, EventBus(primary.url, min_replicas=1) as careful:
        assert (await bus.publish(Noted(number=1))).replicas is None
        event_id, status = first = await bus.publish(Noted(number=2), replicas=1)
        assert (first.replicas, status, event_id) == (1, Status.STORED, first.id)
        assert [receipt.replicas for receipt in await bus.publish_many([Noted(number=3)] * 2, replicas=1)] == [1, 1]
        assert (await careful.publish(Noted(number=4), delay=60)).replicas == 1
        replica.pause()
        monkeypatch.setattr(replication, "WAIT", 0.2)
        for late in (await careful.publish(Noted(number=5)), *await bus.publish_many([Noted(number=6)], replicas=1)):
            assert (late.status, late.replicas) == (Status.STORED, 0), "nobody had it in time"
        assert (await careful.publish(Noted(number=7), replicas=0)).replicas is None
        replica.resume()


async def test_a_server_without_replicas_and_a_spool_have_none(redis_url: str, tmp_path: Path) -> None:
    async with EventBus(redis_url) as bus:
        assert (await bus.publish(Noted(number=1), replicas=1)).replicas == 0
    async with EventBus("memory://", min_replicas=1) as bus:
        assert (await bus.publish(Noted(number=1))).replicas == 0


async def test_a_number_that_cannot_be_is_refused_and_nothing_is_stored(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="min_replicas=-1"):
        EventBus(redis_url, min_replicas=-1)
    async with EventBus(redis_url) as bus:
        for wrong in (-1, 101):
            with pytest.raises(WrongValue, match=f"replicas={wrong}"):
                await bus.publish(Noted(number=1), replicas=wrong)
        assert await bus.transport.find_streams() == []


async def test_who_waits_when_the_bus_closes_is_told_that_nobody_had_it(
    servers: list[EmbeddedRedis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that he was cancelled: the event is stored."""
    primary, replica = servers
    await eventually(lambda: in_step(replica))
    monkeypatch.setattr(replication, "WAIT", PATIENCE)
    replica.pause()
    async with EventBus(primary.url) as bus:
        waiting = [asyncio.create_task(bus.publish(Noted(number=count), replicas=count)) for count in (1, 2)]
        async with EventBus(primary.url) as other:
            await eventually(lambda: waits(other))
    assert [(await one).replicas for one in waiting] == [0, 0]
    replica.resume()


async def waits(bus: EventBus) -> bool:
    """Both are stored, so both have begun to wait."""
    return sum(state.length for state in await bus.transport.inspect(["replicas"])) == 2


async def test_a_primary_that_took_over_meanwhile_is_not_counted(
    servers: list[EmbeddedRedis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it and its replicas have says nothing about what was stored at the one before."""
    primary, replica = servers
    monkeypatch.setattr(replication, "WAIT", PATIENCE)
    await eventually(lambda: in_step(replica))
    async with EventBus(primary.url) as bus:
        await bus.publish(Noted(number=1))
        assert await bus.transport.replicated(1, ["replicas"]) == 1
        bus.transport._router.at(None).server_id = "another"  # type: ignore[attr-defined]
        assert await bus.transport.replicated(1, ["replicas"]) == 0


async def test_a_primary_that_lacks_one_of_several_replicas_is_waited_for(servers: list[EmbeddedRedis]) -> None:
    """Whoever has some is not cut off: reads go on, and there is nobody else to go to."""
    primary, replica = servers
    await eventually(lambda: in_step(replica))
    link = Link(primary.url, timeout=5, name="test")
    async with EventBus(primary.url) as bus:
        await link.execute("CONFIG", "SET", "min-replicas-to-write", 2)
        for _ in range(3):
            with pytest.raises(Unavailable, match="NOREPLICAS"):
                await bus.publish(Noted(number=1))
        with pytest.raises(Unavailable, match="NOREPLICAS"):
            await link.execute("SET", "key", "value")
        assert await link.execute("GET", "key") is None
        assert link.epoch == 1, "the connection is the one that it was"
        await link.execute("CONFIG", "SET", "min-replicas-to-write", 1)
        await eventually(lambda: accepted(bus))
    await link.close()


async def test_who_comes_to_a_primary_without_replicas_learns_what_is_wrong_with_it(own_redis: OwnRedis) -> None:
    """It is left by who was refused, until it has one; others get in, for all that needs no write."""
    server = await asyncio.to_thread(own_redis, options={"min-replicas-to-write": "1"})
    link = Link(server.url, timeout=5, name="test")
    with pytest.raises(Unavailable, match="NOREPLICAS"):
        await link.execute("SET", "key", "value")
    await eventually(lambda: refused(link))
    newcomer = Link(server.url, timeout=5, name="test")
    assert await newcomer.execute("GET", "key") is None
    await newcomer.execute("CONFIG", "SET", "min-replicas-to-write", 0)
    assert await link.execute("SET", "key", "value") == b"OK"
    await asyncio.gather(link.close(), newcomer.close())


async def refused(link: Link) -> bool:
    try:
        await link.execute("GET", "key")
    except Unavailable as error:
        return "it has no replica" in str(error)
    return False


async def accepted(bus: EventBus) -> bool:
    try:
        await bus.publish(Noted(number=1))
    except Unavailable:
        return False
    return True
