"""What an event costs in round trips and commands: exact where time never is, so these guard the hot paths."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from eventbus import Context, Event, EventBus, Group
from eventbus.redis import scripts
from tests.servers import OwnRedis
from tests.waiting import PATIENCE
from tests.working import working

COUNT = 2_000


class Counted(Event, type="cost.counted"):
    number: int


class Cost(NamedTuple):
    """`reads`: how often the server read from a socket, which is what the clients' writes come to."""

    reads: int
    commands: dict[str, int]


@pytest.fixture
def url(own_redis: OwnRedis) -> str:
    return own_redis().url


async def stats(client: Redis) -> Cost:
    info: dict[str, Any] = await client.info("stats")
    commands: dict[str, Any] = await client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in commands.items()}
    return Cost(int(info["total_reads_processed"]), calls)


async def cost(url: str, work: Callable[[], Awaitable[object]]) -> Cost:
    """Of this work, and of two looks at the statistics."""
    async with Redis.from_url(url, socket_timeout=PATIENCE) as client:
        before = await stats(client)
        await work()
        after = await stats(client)
    commands = {name: calls - before.commands.get(name, 0) for name, calls in after.commands.items()}
    return Cost(after.reads - before.reads, commands)


async def publish(bus: EventBus, count: int = COUNT) -> None:
    await asyncio.gather(*(bus.publish(Counted(number=number)) for number in range(count)))


async def test_publishes_of_one_moment_are_one_command_each_and_share_their_writes(url: str) -> None:
    async with EventBus(url) as bus:
        await publish(bus)
        found = await cost(url, lambda: publish(bus))
    assert found.commands["xadd"] == COUNT
    assert found.reads <= COUNT / 40


async def test_events_are_read_and_settled_many_at_a_time(url: str) -> None:
    group, done = Group("counting", concurrency=100), asyncio.Event()
    seen, count_all = 0, 5 * COUNT

    @group.on(Counted)
    async def count(_event: Counted, _ctx: Context) -> None:
        nonlocal seen
        seen += 1
        if seen == count_all:
            done.set()

    async def consume() -> None:
        async with working(bus, group), asyncio.timeout(PATIENCE):
            await done.wait()

    async with EventBus(url) as bus:
        await publish(bus, count_all)
        async with noted(url) as commands:
            found = await cost(url, consume)
    assert found.commands["xack"] <= count_all / 20
    assert found.reads <= count_all / 10, "what a start and a stop take is among them"
    reads = [command for command in commands if command[1:2] == [scripts.READ.digest.encode()]]
    room = [int(command[3 + int(command[2]) + 2]) for command in reads]
    assert any(command[0] == b"XREADGROUP" for command in commands), "what is looked through is what was sent"
    assert sum(credit >= 30 for credit in room) <= 10, "a full lane is not read through a script"


@contextlib.asynccontextmanager
async def noted(url: str) -> AsyncIterator[list[list[bytes]]]:
    """Each command that the server got meanwhile, by its first thirty words."""
    async with Redis.from_url(url, socket_timeout=PATIENCE) as client:
        await client.config_set("slowlog-max-len", 1_000_000)
        await client.config_set("slowlog-log-slower-than", 0)
        commands: list[list[bytes]] = []
        yield commands
        await client.config_set("slowlog-log-slower-than", -1)
        commands += [entry["command"].split(b" ") for entry in await client.slowlog_get(1_000_000)]


async def test_a_lone_event_costs_one_read_one_acknowledgement_and_its_publish(url: str) -> None:
    """Round trips of a worker that waits: none is spent on looking whether there is more."""
    group = Group("counting")
    heard: asyncio.Queue[int] = asyncio.Queue()

    @group.on(Counted)
    async def hear(event: Counted, _ctx: Context) -> None:
        heard.put_nowait(event.number)

    async def one_after_the_other() -> None:
        for number in range(100):
            await bus.publish(Counted(number=number))
            assert await heard.get() == number

    async with EventBus(url) as bus, working(bus, group), asyncio.timeout(PATIENCE):
        await bus.publish(Counted(number=-1))
        await heard.get()
        found = await cost(url, one_after_the_other)
    assert found.commands["xadd"] == 100
    assert found.commands["xack"] <= 100
    assert found.commands["xreadgroup"] <= 110
    assert found.reads <= 330
