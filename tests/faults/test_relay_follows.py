"""The outbox when a replica takes the primary's place that lacks what was acknowledged last: nothing of it is lost, and
nothing is stored twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eventbus import Event
from eventbus.contract.codec import pairs
from eventbus.embedded import EmbeddedRedis
from eventbus.postgres import Database
from eventbus.postgres.relay import Relay
from eventbus.redis import RedisTransport
from eventbus.redis.link import Link
from tests.proxy import Proxy
from tests.sentinels import pair_of_servers
from tests.servers import redis_binaries
from tests.waiting import eventually

LOOK_BACK = 60.0  # seconds; the machine may be slow


class Filed(Event, type="failover.filed"):
    number: int


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[EmbeddedRedis]]:
    with pair_of_servers(tmp_path, redis_binaries()["redis"], {}) as pair:
        yield pair


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.connect()
    yield database
    await database.close()


@asynccontextmanager
async def relaying(database_url: str, redis_url: str) -> AsyncIterator[None]:
    """By a process of its own, as far as the relay and Redis can tell."""
    transport = RedisTransport(redis_url)
    await transport.connect()
    relay = Relay(database_url, transport, primary=lambda: transport.primary, look_back=LOOK_BACK)
    running = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])
        await transport.close()


async def tell(server: EmbeddedRedis, *command: str | int) -> object:
    link = Link(server.url, timeout=5, name="test", primary=False)
    try:
        return await link.execute(*command)
    finally:
        await link.close()


async def stored(server: EmbeddedRedis) -> Counter[int]:
    entries = await tell(server, "XRANGE", "eb:{failover}:stream", "-", "+")
    assert isinstance(entries, list)
    return Counter(int(pairs(fields)[b"data"].partition(b":")[2][:-1]) for _, fields in entries)


async def file(database: Database, *numbers: int) -> None:
    async with database.transaction() as tx:
        for number in numbers:
            await tx.publish(Filed(number=number))


async def unmarked(database: Database) -> int:
    return await database.unpublished()


@pytest.mark.parametrize("dies", [False, True], ids=["one relay", "another relay"])
async def test_what_the_new_primary_lacks_is_appended_again(
    dies: bool, servers: list[EmbeddedRedis], database: Database, database_url: str
) -> None:
    """The relay that has marked the rows may be gone with the primary."""
    old, new = servers
    expected = Counter(range(6))

    async def has(server: EmbeddedRedis, numbers: Counter[int]) -> bool:
        return await stored(server) == numbers and await unmarked(database) == 0

    async with Proxy(old.url) as proxy:
        async with relaying(database_url, proxy.url):
            await file(database, 0, 1, 2)
            await eventually(lambda: has(old, Counter(range(3))))
            await eventually(lambda: in_step(new, Counter(range(3))))
            await tell(new, "REPLICAOF", "NO", "ONE")  # what comes now, it will never have
            await file(database, 3, 4, 5)
            await eventually(lambda: has(old, expected))
            proxy.lead_to(new.url)
            if not dies:
                proxy.cut()
                await file(database, 6)
                expected[6] += 1
                await eventually(lambda: has(new, expected))
        if dies:
            async with relaying(database_url, proxy.url):
                await eventually(lambda: has(new, expected))
    assert await stored(new) == expected


async def in_step(replica: EmbeddedRedis, numbers: Counter[int]) -> bool:
    return await stored(replica) == numbers


async def test_as_long_as_the_primary_stays_nothing_is_looked_for(
    redis_url: str, database: Database, database_url: str
) -> None:
    async def remembered() -> object:
        async with database.connection() as connection:
            return await connection.fetchval("SELECT server FROM eventbus_relayed_to")

    for number in range(2):
        async with relaying(database_url, redis_url):
            await file(database, number)

            async def relayed() -> bool:
                return await unmarked(database) == 0 and bool(await remembered())

            await eventually(relayed)
            async with database.connection() as connection:
                await connection.execute("UPDATE eventbus_outbox SET data = 'no json'")  # would be set aside
    assert await unmarked(database) == 0
